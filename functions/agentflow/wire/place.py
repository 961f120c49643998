"""Where the contract files are."""

from __future__ import annotations

from pathlib import Path


def contracts_path() -> Path:
    """The folder that holds events/ and schemas/: the checkout's root, or the copy inside a wheel."""
    package = Path(__file__).resolve().parents[1]
    root = package.parents[1]
    if (root / "pyproject.toml").is_file() and (root / "events").is_dir():
        return root
    return package / "_contracts"
