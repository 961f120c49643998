"""The JSON Schema of plan documents, for editors and other languages: generated from the models, with the short
forms that people may write.
"""

from __future__ import annotations

import copy
from typing import Any

from agentflow.core.canonical import PAYLOAD, WAYS
from agentflow.wire.document_shape import CEL_SCHEMA, NAME, Document

ID = "agentflow/plan/v1"
_MODELS = {
    "task": "TaskNode", "check": "CheckNode", "sequence": "SeriesNode", "fallback": "SeriesNode",
    "parallel": "ParallelNode", "retry": "LoopNode", "repeat": "LoopNode", "invert": "InvertNode",
    "force": "ForceNode", "map": "MapNode", "once": "OnceNode", "delay": "TimerNode", "timeout": "TimerNode",
    "switch": "SwitchNode", "keep": "LoopNode", "subtree": "SubtreeNode",
}  # fmt: skip

_NODE = {"$ref": "#/$defs/Node"}
_NODES = {"type": "array", "items": _NODE, "maxItems": 499}


def json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12)."""
    schema = _plain(Document.model_json_schema(by_alias=True))
    defs = schema["$defs"]
    canonical: dict[str, Any] = {}
    schema = _with_node_refs(schema, canonical)
    defs = schema["$defs"]
    defs["Node"] = {
        "description": "A node, a task's name, or a short form such as {sequence: [a, b]}.",
        "anyOf": [
            {"type": "string", "pattern": NAME},
            canonical,
            *(_short(kind, defs) for kind in PAYLOAD),
            *(_written(defs["WayNode"], {way: CEL_SCHEMA, then: _NODE}, {"else": _NODE}) for way, then in WAYS.items()),
            _written(defs["TryNode"], {"try": {**_NODES, "minItems": 1}, "catch": _NODE}, {}),
        ],
    }
    schema["required"].remove("kind")
    one_task = {"tasks": {"maxProperties": 1}}
    schema["oneOf"] = [
        {
            "properties": {"kind": {"const": "fsm"}},
            "required": ["initial", "states"],
            "not": {"required": ["root"]},
        },
        {"properties": {"kind": {"const": "bt"}}, "required": ["root"], "not": {"required": ["states"]}},
        {"properties": one_task, "not": {"anyOf": [{"required": [key]} for key in ("kind", "root", "states")]}},
    ]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": ID, **schema}


def _plain(schema: Any) -> Any:
    """Without titles and nulls: an optional key is left out, not set to null."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {
        key: {name: _plain(value) for name, value in item.items()}
        if key in ("properties", "$defs")
        else _plain(item)
        for key, item in schema.items()
        if not (key == "title" and isinstance(item, str)) and not (key == "default" and item is None)
    }
    options = found.get("anyOf")
    if isinstance(options, list) and {"type": "null"} in options:
        rest = [option for option in options if option != {"type": "null"}]
        del found["anyOf"]
        found = {**rest[0], **found} if len(rest) == 1 else {**found, "anyOf": rest}
    return found


def _with_node_refs(schema: Any, canonical: dict[str, Any]) -> Any:
    """Every place of a node refers to one definition; ``canonical`` receives the union that stood there."""
    if isinstance(schema, list):
        return [_with_node_refs(item, canonical) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("discriminator", {}).get("propertyName") == "type":
        canonical.update({"oneOf": schema["oneOf"]})
        return {"$ref": "#/$defs/Node"}
    if "discriminator" in schema:
        schema = {key: item for key, item in schema.items() if key != "discriminator"}
    return {key: _with_node_refs(item, canonical) for key, item in schema.items()}


def _written(model: dict[str, Any], required: dict[str, Any], optional: dict[str, Any]) -> dict[str, Any]:
    """A short form that names its children, beside what every node may have."""
    shared = {name: value for name, value in model["properties"].items() if name not in ("type", "children", *required)}
    return {
        "type": "object",
        "properties": {**required, **optional, **shared},
        "required": list(required),
        "additionalProperties": False,
    }


def _short(kind: str, defs: dict[str, Any]) -> dict[str, Any]:
    model = copy.deepcopy(defs[_MODELS[kind]])
    payload = PAYLOAD[kind]
    properties = {
        kind if name == payload else name: value
        for name, value in model["properties"].items()
        if name != "type"
    }
    required = [kind if name == payload else name for name in model["required"] if name != "type"]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
