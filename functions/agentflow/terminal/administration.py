"""Commands of the database's administrator: migrate, tenants, keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from agentflow.config import Settings
from agentflow.errors import Rejected
from agentflow.terminal import output
from agentflow.terminal.amounts import micro

ADMINISTRATOR = "postgres"
PEPPER = "AGENTFLOW_KEY_PEPPER"


async def run_migrate(settings: Settings, database: str, passwords: str = "") -> None:
    """Bring the database to this version's schema and say what was applied; give the roles the passwords that a pgpass
    file has for them."""
    from agentflow.runtime.preparation import give_passwords, passwords_for_roles
    from agentflow.store.migrate import migrate

    given = passwords_for_roles(Path(passwords)) if passwords else {}
    async with admin_dsn(settings, database) as dsn:
        applied = await migrate(dsn)
        await give_passwords(dsn, given)
    print("\n".join(f"applied {name}" for name in applied) or "the schema is up to date")
    if given:
        print(f"gave {', '.join(given)} the passwords of {passwords}")


async def run_restored(settings: Settings, database: str, *, nothing_lost: bool) -> None:
    """Have functions go on with a database that was put back, and say what that means."""
    from agentflow.store.restored import restored

    async with admin_dsn(settings, database) as dsn:
        found = await restored(dsn, nothing_lost=nothing_lost)
    print(f"as of {found.as_of:%Y-%m-%d %H:%M:%S %Z}" if found.as_of else "there were no runs")
    print(f"{found.runs} runs go on")
    if not nothing_lost:
        print(f"{found.once} calls that may be made once were under way: what has become of them is not known")
        print(f"{found.paid} calls that cost money were under way: they are paid for, and made again")


async def run_init(settings: Settings, database: str, folder: Path, wait_s: float) -> None:
    """Have everything that functions need before they start."""
    from agentflow.observe import logs
    from agentflow.runtime.preparation import prepare

    logs.configure(settings.log_level)
    settings.bus()  # said at once, if it is missing
    async with admin_dsn(settings, database) as dsn:
        await prepare(settings, dsn, folder, wait_s=wait_s)


async def run_create_tenant(
    settings: Settings, database: str, name: str, limit_usd: float | None, *, as_json: bool
) -> None:
    """Create a tenant and print its id."""
    from agentflow.store.admin import create_tenant

    limit = micro(limit_usd, "--limit-usd")
    async with admin_dsn(settings, database) as dsn:
        tenant = await create_tenant(dsn, name, limit_micro=limit)
    if as_json:
        output.print_json({"tenant": str(tenant), "name": name})
    else:
        print(tenant)


async def run_create_key(
    settings: Settings, database: str, tenant: str, label: str, *, admin: bool, as_json: bool
) -> None:
    """Create an API key and print it, this once. ``Rejected`` where it would open no API: see ``own_pepper``."""
    from agentflow.store.admin import issue_key

    owner = tenant_named(tenant)
    own_pepper(settings, database)
    async with admin_dsn(settings, database) as dsn:
        key = await issue_key(dsn, owner, settings.key_pepper, label=label, admin=admin)
    if as_json:
        output.print_json({"tenant": str(owner), "key_id": key.id, "key": str(key)})
    else:
        print(key)


def own_pepper(settings: Settings, database: str) -> None:
    """``Rejected`` for the pepper that everybody knows, on any database but the embedded one: the API of an
    installation has a pepper of its own, and would answer 401 to a key that was hashed with another."""
    if (database or settings.database_url) and PEPPER in settings.development_secrets():
        mend = "set it to the secret that this installation's API has; in a cluster: infra/knative/administration.yaml"
        message = "is the one for development, and the API of this database knows no key that is hashed with it"
        raise Rejected(message, code="development_secret", path=PEPPER, mend=mend)


def tenant_named(text: str) -> UUID:
    """The tenant with that id; without one that of the embedded stack."""
    if not text:
        from agentflow.runtime.embedded import LOCAL_TENANT

        return LOCAL_TENANT
    try:
        return UUID(text)
    except ValueError:
        mend = "give the id that agentflow tenant create printed"
        raise Rejected("is not a tenant's id", code="bad_tenant", path="--tenant", mend=mend) from None


@asynccontextmanager
async def admin_dsn(settings: Settings, database: str) -> AsyncIterator[str]:
    """The administrator's DSN: as given, as configured, or of the embedded PostgreSQL (started if need be)."""
    if database:
        yield database
    elif settings.database_url:
        yield settings.dsn(ADMINISTRATOR)
    elif (running := _running_embedded(settings.home)) is not None:
        yield running
    else:
        from agentflow.runtime.embedded import backends

        async with backends(settings) as stack:
            yield stack.admin_dsn


@asynccontextmanager
async def roles(settings: Settings, database: str) -> AsyncIterator[tuple[str, str, str]]:
    """DSNs of the engine, the keeper and the administrator, in the database that the administrator's is about."""
    async with admin_dsn(settings, database) as dsn:
        scheme, _, rest = dsn.partition("://")
        place = rest.rpartition("@")[2]
        yield f"{scheme}://agentflow_engine@{place}", f"{scheme}://agentflow_keeper@{place}", dsn


def _running_embedded(home: Path) -> str | None:
    """The DSN of an embedded PostgreSQL that another process runs: its pid file names the socket's folder."""
    from urllib.parse import quote

    try:
        lines = (home / "postgres" / "data" / "postmaster.pid").read_text().splitlines()
        port, folder = lines[3].strip(), lines[4].strip()
    except (OSError, IndexError):
        return None
    if not (Path(folder) / f".s.PGSQL.{port}").is_socket():
        return None
    return f"postgresql://{ADMINISTRATOR}@/agentflow?host={quote(folder, safe='')}&port={port}"
