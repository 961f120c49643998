"""Preparation: what has to be there before functions start, made once or found: schema, passwords, streams, a key.

For installations without an administrator at hand, such as local/compose.yaml. Whatever is done already is left alone,
so it may run at every start.
"""

from __future__ import annotations

import os
import secrets
import time
from asyncio import sleep
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

import structlog

from agentflow.bus.jetstream import JetStream
from agentflow.config import Settings
from agentflow.errors import Rejected, RetryLater
from agentflow.runtime.embedded import KEY_FILE, first_key
from agentflow.store.admin import set_password
from agentflow.store.migrate import migrate
from agentflow.store.passfile import passwords

log = structlog.get_logger(__name__)
ROLES = ("agentflow_engine", "agentflow_api", "agentflow_relay", "agentflow_keeper")
PASSWORDS = "pgpass"
PAUSE_S = 2.0

T = TypeVar("T")


async def prepare(settings: Settings, admin_dsn: str, folder: Path, *, wait_s: float) -> None:
    """Bring everything to this version; the roles' passwords and the first tenant's key go into ``folder``.

    Waits for PostgreSQL and NATS for ``wait_s`` seconds, then raises ``RetryLater`` that says what is in the way.
    """
    deadline = time.monotonic() + wait_s
    for name in await _patiently(lambda: migrate(admin_dsn), deadline):
        log.info("migrated", migration=name)
    await set_passwords(admin_dsn, folder)
    await first_key(admin_dsn, folder / KEY_FILE, settings.key_pepper)
    await _patiently(lambda: _make_streams(settings.bus(), settings.nats_replicas), deadline)
    log.info("prepared", folder=str(folder))


async def set_passwords(admin_dsn: str, folder: Path) -> None:
    """Give each role the password that ``folder/pgpass`` has for it, made at the first time."""
    await give_passwords(admin_dsn, _passwords(folder))


async def give_passwords(admin_dsn: str, given: Mapping[str, str]) -> None:
    """Give each role its password."""
    for role, password in given.items():
        await set_password(admin_dsn, role, password)


def passwords_for_roles(path: Path) -> dict[str, str]:
    """The four roles' passwords in a pgpass file; ``Rejected`` where one of them is not there."""
    found = passwords(path)
    if missing := [role for role in ROLES if not found.get(role)]:
        mend = f"add a line host:port:database:{missing[0]}:password"
        message = f"{path} has no password for {', '.join(missing)}"
        raise Rejected(message, code="bad_passfile", path="passwords", mend=mend)
    return {role: found[role] for role in ROLES}


def _passwords(folder: Path) -> dict[str, str]:
    """Each role's password, kept in the folder before the database knows it: an interruption changes nothing then."""
    path = folder / PASSWORDS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = passwords(path) if path.exists() else {}
        made = {role: kept.get(role) or secrets.token_hex(24) for role in ROLES}
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.writelines(f"*:*:*:{role}:{password}\n" for role, password in made.items())
        fresh.replace(path)
    except OSError as fault:
        mend = "name a folder that this process may write to: --folder"
        raise Rejected(f"cannot be written: {fault.strerror}", code="folder", path=str(path), mend=mend) from None
    return made


async def _make_streams(nats_url: str, replicas: int) -> None:
    bus = JetStream(nats_url, name="init", replicas=replicas)
    await bus.open()
    await bus.close()


async def _patiently(work: Callable[[], Awaitable[T]], deadline: float) -> T:
    said = ""
    while True:
        try:
            return await work()
        except RetryLater as fault:
            if time.monotonic() > deadline:
                raise
            if str(fault) != said:
                said = str(fault)
                log.warning("not ready yet", reason=said)
            await sleep(PAUSE_S)
