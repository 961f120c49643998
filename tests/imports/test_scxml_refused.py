"""SCXML that plans cannot say is refused, with the line and the element; what is left out is named."""

from __future__ import annotations

import pytest

from agentflow.errors import Invalid
from agentflow.imports.scxml import read_scxml

from .test_scxml import scxml

A = '<state id="a"><transition event="go" target="end"/>{}</state><final id="end"/>'

MACHINES = {
    "several targets that are never active together": (
        '<state id="o"><transition target="x y"/></state><state id="x"/><state id="y"/><final id="end"/>',
        "'x' and 'y' are never active together",
    ),
    "a state that is not there": ('<state id="a"><transition target="b"/></state>', "there is no state 'b'"),
    "two of a name": ('<state id="a"/><state id="a"/>', "line 1 <state id='a'>: there are two states"),
    "a loop over what changes": (
        '<datamodel><data id="l" expr="[1]"/><data id="i"/></datamodel>'
        + A.format('<onentry><assign location="l" expr="[2]"/><foreach array="l" item="i"/></onentry>'),
        "a loop over a list that changes",
    ),
    "part of a variable": (
        '<datamodel><data id="o" expr="{a: 1}"/></datamodel>'
        + A.format('<onentry><assign location="o.a" expr="2"/></onentry>'),
        "only a whole variable can be assigned",
    ),
    "the event on entry": (
        '<datamodel><data id="n"/></datamodel>'
        + A.format('<onentry><assign location="n" expr="_event.name"/></onentry>'),
        "the event is known only in a transition",
    ),
    "no expression": (A.format('<transition cond="x ==="/>'), "`x ===`: it ends where a value is expected"),
    "a function": (A.format('<transition cond="Math.random() &gt; 1"/>'), "'Math' is not declared"),
    "code": (A.format('<onentry><script>while (true) {}</script></onentry>'), "'while' is not read"),
    "an element of another language": (
        A.format('<onentry><x:do xmlns:x="urn:x"/></onentry>'), "<do of urn:x> is not read",
    ),
    "data from elsewhere": ('<datamodel><data id="x" src="file:///etc/passwd"/></datamodel>' + A, "nothing is fetched"),
    "a script from elsewhere": (A.format('<onentry><script src="x.js"/></onentry>'), "nothing is fetched"),
    "a name that is too long": (f'<state id="{"a" * 65}"/>', "is too long"),
    "an event with a name that is too long": (A.replace("go", "e" * 65), "is too long"),
    "a variable with one": (f'<datamodel><data id="{"x" * 65}"/></datamodel>' + A, "is too long"),
    "a delay that is worked out": (
        '<datamodel><data id="d" expr="1"/></datamodel>'
        + A.format('<onentry><send event="go" delayexpr="d"/></onentry>'),
        "the delay '' is not known beforehand",
    ),
    "no states": ("", "has no states"),
    "deep expressions": (A.format(f'<transition cond="{"(" * 50}1{")" * 50}"/>'), "nested more than 30 deep"),
    "values that grow": (
        '<datamodel><data id="x" expr="1"/></datamodel>'
        + A.format("<onentry>" + '<assign location="x" expr="x + x"/>' * 40 + "</onentry>"),
        "becomes too long",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_that_cannot_be_said(name: str) -> None:
    body, reason = MACHINES[name]
    with pytest.raises(Invalid) as refusal:
        read_scxml(scxml(body))
    assert reason in str(refusal.value)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"datamodel": "xpath"}, "the datamodel 'xpath' is not read"),
        ({"initial": "b"}, "there is no state 'b'"),
    ],
)
def test_a_document_that_is_not_read(attributes: dict[str, str], reason: str) -> None:
    with pytest.raises(Invalid) as refusal:
        read_scxml(scxml(A, **attributes))
    assert reason in str(refusal.value)


def test_what_is_left_out_is_named() -> None:
    body = A.format(
        '<onentry><log expr="1"/><send event="go" target="http://example.com"/></onentry>'
        '<onexit><send event="go"><param name="x" expr="1"/></send></onexit>'
    )
    imported = read_scxml(scxml(body))
    assert [str(problem).partition(" (")[0] for problem in imported.left_out] == [
        "line 1 <send event='go'>: sends to 'http://example.com'",
    ]
    assert any("<log>" in str(note) for note in imported.notes)
