"""``agentflow`` and ``python -m agentflow``: what containers run goes straight to work, the rest to the CLI."""

from __future__ import annotations

import sys

from agentflow.terminal import carrying


def main() -> None:
    """Run the program. A plain ``serve`` starts without the library that reads command lines: 40 ms of a cold start."""
    plain = carrying.plainly_serves(sys.argv[1:])
    if plain is not None:
        functions, switches = plain
        carrying.guarded(lambda: carrying.serve(functions, **dict.fromkeys(switches, True)))
        return
    from agentflow import cli

    cli.main()


if __name__ == "__main__":
    main()
