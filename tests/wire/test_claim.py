"""The claim check: large data leaves the event and comes back unchanged, or not at all."""

from __future__ import annotations

import pytest

from agentflow.errors import Invalid
from agentflow.wire import claim, json_format
from agentflow.wire.event import Event


def event(size: int) -> Event:
    return Event(id="1", source="/s", type="t", datacontenttype="application/json", data={"text": "x" * size})


def test_small_data_travels_inline() -> None:
    small = event(claim.INLINE_LIMIT - len('{"text":""}'))
    assert claim.check_in(small) == (small, None)


def test_large_data_travels_by_reference_and_comes_back() -> None:
    large = event(claim.INLINE_LIMIT)
    sent, content = claim.check_in(large)
    assert content is not None
    assert sent.data is None
    assert claim.is_ref(sent.dataref)
    arrived = json_format.decode(json_format.encode(sent))
    assert claim.check_out(arrived, content).data == large.data
    assert claim.check_in(sent) == (sent, None)


def test_other_content_is_not_taken_for_the_blob() -> None:
    sent, content = claim.check_in(event(claim.INLINE_LIMIT))
    assert content is not None
    with pytest.raises(Invalid, match="does not match"):
        claim.check_out(sent, content + b" ")


def test_a_reference_names_the_content() -> None:
    ref = claim.blob_ref(b"abc")
    assert ref == "blob:sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert claim.ref_hash(ref).hex() == ref.removeprefix("blob:sha256:")


@pytest.mark.parametrize(
    "text", ["", "blob:sha256:", "blob:sha256:" + "A" * 64, "blob:sha256:" + "0" * 65, 5, None]
)
def test_what_is_no_reference(text: object) -> None:
    assert not claim.is_ref(text)
    with pytest.raises(Invalid):
        claim.ref_hash(str(text))
