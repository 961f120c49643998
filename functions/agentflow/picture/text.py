"""Text in pictures: short, harmless, and how much room it takes."""

from __future__ import annotations

from unicodedata import category, east_asian_width

MAX_LABEL = 60
MAX_TOLD = 2_000

_NARROW = frozenset("iljtfrI.,:;'|!()[]{} /\\`\"-")
_BROAD = frozenset("mwMW@%✓✗…→⇉↻")
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000))


def plain(text: str) -> str:
    """One line without anything that a reader or a parser would not see as a character."""
    spaced = " ".join(text.split())
    # Cc, Cf, Cs, Cn: controls, marks that turn the direction of text, surrogates, no characters at all.
    return "".join("�" if category(each) in ("Cc", "Cf", "Cs", "Cn", "Co") else each for each in spaced)


def short(text: str, most: int = MAX_LABEL) -> str:
    """One line, not too long."""
    text = plain(text[: 4 * most + MAX_LABEL])
    return text if len(text) <= most else text[: most - 1] + "…"


def width(text: str, size: float) -> int:
    """The most room that a line takes in the usual fonts without serifs, in the unit of ``size``, rounded up."""
    return int(sum(map(_em, text)) * size) + 1


def mono_width(text: str, size: float) -> int:
    """The same in fonts whose characters are all as wide."""
    return int(sum(1.1 if east_asian_width(each) in "WFA" else 0.62 for each in text) * size) + 1


def duration(milliseconds: int) -> str:
    """Milliseconds as plans write them: ``90s``, ``2h``, ``1500ms``."""
    for unit, length in _UNITS:
        if milliseconds and milliseconds % length == 0:
            return f"{milliseconds // length}{unit}"
    return f"{milliseconds}ms"


def _em(char: str) -> float:
    if char in _NARROW:
        return 0.42
    if char in _BROAD or char.isupper():
        return 1.0 if char in _BROAD else 0.78
    return 1.1 if east_asian_width(char) in "WFA" else 0.64
