"""What functions of the former version and ours say to each other while one is rolled out over the other: whatever the
former one writes, ours reads. The other way round is chaos/test_upgrade.py's."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos import versions

from agentflow.wire import catalogue, json_format

ROOT = Path(__file__).parents[2]
BOUNDS = {"maximum": 1, "maxLength": 1, "maxItems": 1, "minimum": -1, "minLength": -1, "minItems": -1}
"""Keywords that may only be widened: upwards (1) or downwards (-1)."""

Shape = dict[str, Any]


def narrower(old: Shape, new: Shape, path: str = "data") -> Iterator[str]:
    """Where ``new`` refuses, or does not name, what ``old`` takes."""
    old_ways, new_ways = old.get("anyOf", [old]), new.get("anyOf", [new])
    for way in old_ways:
        fits = [each for each in new_ways if each.get("type") == way.get("type")]
        if not fits:
            yield f"{path}: {way.get('type')} is not taken any more"
            continue
        yield from _narrower(way, fits[0], path)


def _narrower(old: Shape, new: Shape, path: str) -> Iterator[str]:
    for name, way in BOUNDS.items():
        if name in new and (name not in old or way * new[name] < way * old[name]):
            yield f"{path}: {name} is {new[name]}, and was {old.get(name)}"
    if "enum" in new and not set(old.get("enum", ["anything"])) <= set(new["enum"]):
        yield f"{path}: not all of {old.get('enum')} is taken any more"
    if new.get("pattern") not in (None, old.get("pattern")):
        yield f"{path}: another pattern"
    for name in set(new.get("required", ())) - set(old.get("required", ())):
        yield f"{path}.{name}: is required from now on"
    for name, shape in old.get("properties", {}).items():
        if name not in new.get("properties", {}):
            yield f"{path}.{name}: is not there any more"
        else:
            yield from narrower(shape, new["properties"][name], f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(old.get(name), dict) and isinstance(new.get(name), dict):
            yield from narrower(old[name], new[name], f"{path}[]")


def whole(schema: Shape) -> Shape:
    """A schema with its definitions in their places."""
    parts = schema.get("$defs", {})

    def put(value: Any) -> Any:
        if isinstance(value, list):
            return [put(each) for each in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return put(parts[value["$ref"].rpartition("/")[2]])
        return {name: put(each) for name, each in value.items() if name != "$defs"}

    return dict(put(schema))


@pytest.mark.history
def test_whatever_the_former_version_may_say_is_taken() -> None:
    found = []
    for name in versions.names("schemas/events"):
        path = ROOT / "schemas" / "events" / name
        assert path.exists(), f"{name} is not there any more: functions of the former version send it"
        old, new = json.loads(versions.text(f"schemas/events/{name}")), json.loads(path.read_text())
        found += [f"{name} {each}" for each in narrower(whole(old), whole(new))]
    assert found == []


@pytest.mark.history
def test_the_former_versions_examples_are_read() -> None:
    names = [name for name in versions.names("events/examples") if name.endswith(".json")]
    assert len(names) > 15
    for name in names:
        catalogue.parse(json_format.decode(versions.text(f"events/examples/{name}").encode()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["properties"].pop("usage"), "data.usage: is not there any more"),
        (lambda s: s["required"].append("alias"), "data.alias: is required from now on"),
        (lambda s: s["properties"]["status"]["enum"].remove("failed"), "not all of"),
        (lambda s: s["properties"]["attempt"].update(type="string"), "data.attempt: integer is not taken any more"),
        (lambda s: s["properties"]["attempt"].update(maximum=9), "data.attempt: maximum is 9"),
        (lambda s: s["properties"]["usage"]["properties"].pop("calls"), "data.usage.calls: is not there"),
    ],
)  # fmt: skip
def test_what_is_refused_from_now_on_is_found(change: Any, said: str) -> None:
    old = whole(json.loads((ROOT / "schemas" / "events" / "step.completed.schema.json").read_text()))
    new = copy.deepcopy(old)
    change(new)
    assert any(each.startswith(said) or said in each for each in narrower(old, new))
