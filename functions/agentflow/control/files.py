"""Files in a run's input: their content becomes a blob, and a reference travels in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.core.types import Type
from agentflow.wire.claim import blob_ref, is_ref


def check_out(
    given: Mapping[str, Any], types: Mapping[str, Type], root: str = "input"
) -> tuple[dict[str, Any], dict[str, bytes], dict[str, str]]:
    """The values with references in place of files, the contents to keep, and the references given by path.

    A string that is itself a well-formed reference stands for a blob that is there already. Values that do
    not fit their type stay as they are: the input's check names them.
    """
    blobs: dict[str, bytes] = {}
    refs: dict[str, str] = {}

    def replaced(value: Any, kind: Type, path: str) -> Any:
        if kind.kind == "file" and isinstance(value, str):
            if is_ref(value):
                refs[path] = value
                return value
            content = value.encode()
            ref = blob_ref(content)
            blobs[ref] = content
            return ref
        if kind.of is not None and "file" in kind.name:
            if kind.kind == "list" and isinstance(value, list):
                return [replaced(item, kind.of, f"{path}[{index}]") for index, item in enumerate(value)]
            if kind.kind == "map" and isinstance(value, dict):
                return {name: replaced(item, kind.of, f"{path}.{name}") for name, item in value.items()}
        return value

    found = {
        name: replaced(value, types[name], f"{root}.{name}") if name in types else value
        for name, value in given.items()
    }
    return found, blobs, refs
