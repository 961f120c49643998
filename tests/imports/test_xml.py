"""XML that is hostile, or none, is refused before anything is made of it, for both formats alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentflow.errors import Invalid
from agentflow.imports.btcpp import read_btcpp
from agentflow.imports.scxml import read_scxml

BOMB = b'<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><root>&b;</root>'
READERS = pytest.mark.parametrize("reader", [read_scxml, read_btcpp])


@READERS
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is not XML"),
        (b"{}", "is not XML"),
        (b"<root><a></root>", "line 1: is not XML: mismatched tag"),
        (b"<root>\n<a x='1' x='2'/></root>", "line 2: is not XML: duplicate attribute"),
        (BOMB, "has a document type, which may define entities"),
        (b'<!DOCTYPE r SYSTEM "file:///etc/hostname"><r/>', "has a document type"),
        (b"<root>&unknown;</root>", "undefined entity"),
        (b'<?xml version="1.0" encoding="utf-7"?><root/>', "is not read"),
        (b"<root>\xff</root>", "is not XML"),
        (b"<a>" * 61 + b"</a>" * 61, "is nested more than 60 deep"),
        (b"<root>" + b"<a/>" * 20_000 + b"</root>", "has more than 20,000 elements"),
        (b"<root " + b" ".join(b"a%d='1'" % i for i in range(51)) + b"/>", "more than 50 attributes"),
        (b"<root>" + b"x" * 65_537 + b"</root>", "more than 65,536 characters"),
        (b" " * (1024 * 1024 + 1), "at most 1,048,576 are read"),
        (b"<html/>", "is not a"),
    ],
)
def test_xml_that_is_refused(reader: Callable[[bytes], Any], data: bytes, said: str) -> None:
    with pytest.raises(Invalid) as refusal:
        reader(data)
    assert said in str(refusal.value)
