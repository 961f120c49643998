"""Names of other formats as names of plan/v1, one to one: lower-case letters, digits and ``_``; states, events and
tasks also ``-``. A name that is one already stays as it is; of others

    ``__x``    is an upper-case X            ``--``   a dot (not in fields and tasks)
    ``__3``    three underscores             ``__0``  the length and the hexadecimal number of any other character

A name that ends in ``_`` begins with the other case than is usual there (lower, or upper where ``capital``); one that
ends in ``__`` is that name itself, which means something else to us; ``x__9`` in front is not part of it.
"""

from __future__ import annotations

import re

from agentflow.core.draft import RESERVED
from agentflow.core.machine import OWN_EVENTS

MAX_NAME = 64
_PIECES = re.compile(r"_+|-+|.", re.DOTALL)
_HERE = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")


class TooLong(ValueError):
    """A name that has more than 64 characters when it is written our way."""


def state_name(name: str, *, capital: bool = False) -> str:
    """The name of a state, tree or workflow."""
    return _name(name, frozenset(), dashes=True, capital=capital)


def task_name(name: str, *, capital: bool = False) -> str:
    """The name of a task; ``--`` in one is for the parts of agents."""
    return _name(name, frozenset(), dashes=True, capital=capital, dots=False)


def event_name(name: str) -> str:
    """The name of an event; ``done``, ``error`` and the like are the machine's own, and ``cancel`` the operator's."""
    return _name(name, OWN_EVENTS | {"cancel"}, dashes=True, capital=False)


def field_name(name: str) -> str:
    """The name of a variable or an input."""
    return _name(name, RESERVED, dashes=False, capital=False)


def original(name: str, *, capital: bool = False) -> str:
    """The name that ``state_name``, ``event_name`` or ``field_name`` has been given."""
    if name.startswith("x__9"):
        return _decoded(name[4:])
    if name.endswith("__"):
        return name[:-2]
    flipped = name.endswith("_")
    text = _decoded(name.removesuffix("_"))
    return text[:1].upper() + text[1:] if flipped != capital else text


def _decoded(name: str) -> str:
    found = []
    at = 0
    while at < len(name):
        if name.startswith("--", at):
            found.append(".")
            at += 2
        elif name.startswith("__", at):
            code = name[at + 2]
            if code == "0":
                end = at + 4 + int(name[at + 3])
                found.append(chr(int(name[at + 4 : end], 16)))
                at = end
                continue
            found.append("_" * int(code) if code.isdigit() else code.upper())
            at += 3
        else:
            found.append(name[at])
            at += 1
    return "".join(found)


def _name(name: str, taken: frozenset[str], *, dashes: bool, capital: bool, dots: bool = True) -> str:
    if name in taken:
        return name + "__"
    first = name[:1]
    usual = first.upper() if capital else first.lower()
    flipped = first.isascii() and first.isalpha() and first != usual
    text = first.lower() + name[1:] if first.isascii() else name
    pieces = _PIECES.findall(text)
    written = [
        _piece(piece, "".join(pieces[i + 1 : i + 2]), last=i + 1 == len(pieces), dashes=dashes, dots=dots)
        for i, piece in enumerate(pieces)
    ]
    made = "".join(written) + ("_" if flipped else "")
    made = made if made[:1].isalpha() else "x__9" + made
    if len(made) > MAX_NAME:
        raise TooLong(f"the name {name[:40]!r} is too long")
    return made


def _piece(piece: str, after: str, *, last: bool, dashes: bool, dots: bool) -> str:
    """A run of underscores or dashes, or one other character."""
    plain = not last and after.islower() and after in _HERE
    if piece[0] == "_":
        if len(piece) == 1 and (plain or after.isdigit()):
            return piece
        return "".join(f"__{min(len(piece) - i, 8)}" for i in range(0, len(piece), 8))
    if piece == "-" and dashes and (plain or after in _HERE) and not last:
        return piece
    if piece in _HERE:
        return piece
    if piece == "." and dashes and dots:
        return "--"
    if piece.isascii() and piece.isupper():
        return "__" + piece.lower()
    return "".join(f"__0{len(f'{ord(char):x}')}{ord(char):x}" for char in piece)
