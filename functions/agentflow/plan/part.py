"""Parts of a document under construction: their keys, and the line of Python that built them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from agentflow.plan.expression import Expr


class Part:
    """A mapping of the document. ``keys``: as Python names them (``if_``), None for those that are not given."""

    def __init__(self, **keys: Any) -> None:
        self.keys = keys
        self.where = _caller()


class Placed(Part):
    """A value of any other kind, and where it was given."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


Places = dict[str, str]
"""The line of Python by the path of the part it built."""


def written(value: Any, path: str, places: Places) -> Any:
    """A part, or a value in one, as the document has it; ``places`` receives where its parts were built."""
    if isinstance(value, Part):
        places[path] = value.where
        if isinstance(value, Placed):
            return written(value.value, path, places)
        given = {key.rstrip("_"): each for key, each in value.keys.items() if each is not None}
        return written(given, path, places)
    if isinstance(value, Mapping):
        return {str(key): written(each, f"{path}.{key}".lstrip("."), places) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [written(each, f"{path}[{i}]", places) for i, each in enumerate(value)]
    return str(value) if isinstance(value, Expr) else value


def _caller() -> str:
    """The file and line outside this package that is being run."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(__package__):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
