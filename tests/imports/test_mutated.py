"""Documents with something changed at random are imported, or refused; nothing else happens."""

from __future__ import annotations

import contextlib
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.errors import Invalid
from agentflow.imports.btcpp import read_btcpp
from agentflow.imports.scxml import read_scxml
from agentflow.wire.document import check_document

from . import test_btcpp, test_scxml

PARTS = re.compile(rb'("[^"]*"|<[a-zA-Z]+|/>|</[a-zA-Z]+>)')
MACHINES = [test_scxml.source(case.values[0]) for case in test_scxml.CASES]  # type: ignore[arg-type]
TREES = [test_btcpp.btcpp(case.values[0]["xml"]) for case in test_btcpp.CASES]  # type: ignore[arg-type]
DOCUMENTS = [*((read_scxml, data) for data in MACHINES), *((read_btcpp, data) for data in TREES)]
SPARE = sorted({part for _, data in DOCUMENTS for part in PARTS.findall(data)})


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_changed_at_random(data: st.DataObject) -> None:
    read, document = data.draw(st.sampled_from(DOCUMENTS))
    parts = PARTS.split(document)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(parts) - 1))
        same = [part for part in SPARE if part[:1] == parts[at][:1]]
        parts[at] = data.draw(st.sampled_from([*same, b""]) | st.binary(max_size=4))
    with contextlib.suppress(Invalid):
        check_document(read(b"".join(parts)).document)
