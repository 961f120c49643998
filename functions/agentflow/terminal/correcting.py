"""``agentflow budgets correct``: what a provider's invoice, or a refund, changes about what was spent."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import uuid4

from agentflow.config import Settings
from agentflow.errors import Rejected
from agentflow.terminal import output
from agentflow.terminal.client import all_pages, api, call
from agentflow.terminal.progress import dollars

MOST = 10**12


async def run_correct(
    settings: Settings,
    usd: str,
    reason: str,
    run: str,
    step: int | None,
    scope: str,
    key: str,
    *,
    as_json: bool,
) -> None:
    """Make a correction and say what it was."""
    body: dict[str, Any] = {"amount_micro": exactly(usd), "reason": reason}
    body |= {name: value for name, value in (("run", run), ("step", step), ("scope", scope)) if value}
    async with api(settings) as client:
        made = await call(
            client, "POST", "/v1/corrections", json=body, headers={"idempotency-key": key or str(uuid4())}
        )
    if as_json:
        output.print_json(made)
        return
    whose = f"run {made['run']}" if made["run"] else made["scope"]
    more = "more was spent" if made["amount_micro"] > 0 else "was given back"
    print(f"{whose}: {dollars(abs(made['amount_micro']))} {more} (key {made['key']})")


async def show_corrections(settings: Settings, *, as_json: bool) -> None:
    """List corrections, the newest first."""
    async with api(settings) as client:
        items = await all_pages(client, "/v1/corrections")
    if as_json:
        output.print_json(items)
        return
    rows = [
        [output.utc(each["made_at"]), each["run"] or each["scope"], each["step"] or "", _signed(each["amount_micro"]),
         each["reason"], each["by"], each["key"]]
        for each in items
    ]  # fmt: skip
    output.print_table(("made at", "of", "step", "amount", "reason", "by", "key"), rows, "nothing was corrected")


def exactly(usd: str) -> int:
    """Signed dollars as micro-dollars; ``Rejected`` where that is no amount, or finer than a micro-dollar."""
    try:
        micro = Decimal(usd) * 1_000_000
        if micro == micro.to_integral_value() and 0 < abs(micro) <= MOST:
            return int(micro)
    except ArithmeticError:  # no number, or one beyond what decimals can be
        pass
    mend = "give dollars with six decimals at most, e.g. -12.50 for what was given back"
    raise Rejected(f"{usd[:50]} is not an amount to correct by", code="bad_amount", path="--usd", mend=mend)


def _signed(micro: int) -> str:
    return f"{'-' if micro < 0 else '+'}{dollars(abs(micro))}"
