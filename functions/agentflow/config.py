"""Configuration: the only reader of the environment.

``Settings.from_env()`` reads every variable once into a frozen value; each field documents its variable, and
the table in functions/README.md is tested against it. Any value may be a reference to a secret: see secrets.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from agentflow.errors import Invalid, Problem, Rejected
from agentflow.secrets import private_copy, resolve

PREFIX = "AGENTFLOW_"

# How long a server that does not answer is waited for, unless the URL says so itself. Left to itself libpq waits two
# minutes for a connection, and for hours on one whose other end has vanished.
PATIENCE = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


def _option(default: Any, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a host may be told from outside. Field ``x_y`` is read from ``AGENTFLOW_X_Y``."""

    home: Path = _option(
        Path(".agentflow"), "folder for the embedded stack's data, logs and the local API key"
    )
    database_url: str = _option("", "PostgreSQL URL without a user; empty: start the embedded PostgreSQL")
    passfile: str = _option(
        "", "file of passwords in the form of PGPASSFILE that others may read, too, as mounted Secrets are"
    )
    nats_url: str = _option(
        "",
        "NATS URL, or those of a cluster's servers behind commas; user and password percent-encoded; empty: start the"
        " embedded nats-server",
    )
    nats_ca: str = _option("", "file of the certificates that NATS's own has to be signed by; empty: the system's")
    nats_replicas: int = _option(
        1, "copies of each stream that is made: 1, 3 or 5; one that is there keeps the copies that it has"
    )
    http_host: str = _option("127.0.0.1", "address the API and push servers listen on")
    http_port: int = _option(
        8080, "port the API and push servers listen on; PORT wins where the platform sets it"
    )
    function: str = _option(
        "", "what `agentflow serve` carries when it names nothing: a function, relay or bridge; images set it"
    )
    processes: int = _option(1, "processes of `agentflow dev` that share its work and its port, 1 to 16")
    api_url: str = _option(
        "", "where the CLI finds the API; empty: where `agentflow dev` says in its home, else http://127.0.0.1:8080"
    )
    api_key: str = _option("", "API key of the CLI; empty: the one the embedded stack wrote to its home")
    key_pepper: str = _option(
        "local-development-pepper", "secret that API key hashes are made with; set it in production"
    )
    audit_key: str = _option(
        "local-development-audit-key",
        "secret that the audit chain is made with, 16 to 64 bytes; set it in production. After a change the former keys"
        " follow behind commas",
    )
    models: str = _option(
        "", "model aliases: JSON, or the path of a YAML/JSON file; empty: see model and llm_base_url"
    )
    model: str = _option(
        "", "model name every alias falls back to, e.g. gpt-5-mini; empty: the scripted model"
    )
    llm_base_url: str = _option(
        "", "base URL of an OpenAI-compatible API (OpenAI, vLLM, Ollama, TGI, llama.cpp)"
    )
    llm_api_key: str = _option("", "key of that API")
    prices_at: str = _option("", "the day whose public model prices count, e.g. 2026-11-01; empty: today")
    script_dir: Path = _option(
        Path("local/workflows"), "folder searched for *.model.yaml rules of the scripted model"
    )
    sandbox: str = _option("auto", "driver for tool code: auto, gvisor, docker, nested or process")
    sandbox_required: bool = _option(
        False,
        "have auto never take plain processes, and be ready with a sandbox only; images set it, as their containers"
        " hold secrets",
    )
    sandbox_image: str = _option("python:3.12-slim", "image that container drivers run Python tools in")
    batch: int = _option(256, "most events handled in one transaction")
    calls: int = _option(1000, "most external calls in flight per function and process")
    remember: int = _option(
        20_000, "most runs kept in memory between their steps; 0: each is read and locked every time"
    )
    handoff: bool = _option(True, "give a request straight to a function in the same process after commit")
    plan_bytes: int = _option(262_144, "most bytes of a workflow's document that is registered, at most 262144")
    plan_nodes: int = _option(5_000, "most nodes or states of a workflow that is registered, at most 5000")
    plan_steps: int = _option(100_000, "most steps that a workflow's limits.steps may allow, at most 100000")
    plan_states: int = _option(
        500, "most states that the model check goes through when a workflow is registered; 0: it is left out"
    )
    fork_lines: int = _option(
        100_000, "most lines of a run's history that are read to find the step before which a fork begins"
    )
    function_urls: str = _option(
        "", "where the bridge finds functions: a URL with {function} in it, or JSON by name"
    )
    push: bool = _option(
        False, "have `agentflow serve` take CloudEvents over HTTP, where no --push can be said (OpenFaaS)"
    )
    push_key: str = _option(
        "",
        "secret that the bridge shows to functions, at least 32 characters; without it --push serves a loopback address"
        " only. While it changes: the new one, a comma, the old one",
    )
    push_open: bool = _option(
        False,
        "have --push take events without a key, where something else keeps strangers out; where there is a push_key,"
        " clients' events only",
    )
    metrics_key: str = _option(
        "", "secret that /metrics asks for, like push_key; empty: it answers whoever does not come through a proxy"
    )
    sink: str = _option(
        "", "URL that the bridge posts public facts to, as CloudEvents; K_SINK where a SinkBinding sets it"
    )
    log_level: str = _option("info", "debug, info, warning or error")
    trace_sample: float = _option(1.0, "share of runs that are traced, 0.0 to 1.0")
    otlp_endpoint: str = _option("", "OTLP/HTTP endpoint for spans; empty: spans are kept out of the network")
    sandbox_slots: int = _option(8, "most tools running at once per process; the others wait")
    docker_host: str = _option(
        "unix:///var/run/docker.sock", "address of the Docker engine; DOCKER_HOST wins where it is set"
    )
    retention: str = _option(
        "forever",
        "how long finished runs are kept, e.g. 90d, where a tenant has not set it; forever: nothing goes",
    )
    retention_ledger: str = _option("400d", "the same for the ledger; never shorter than for runs")
    retention_spend: str = _option(
        "1200d", "how long a day's sums stay, which reports and estimates are made of; never shorter than the ledger"
    )
    retention_inbox: str = _option("30d", "how long an event's id is remembered, so that it counts once")
    retention_parked: str = _option(
        "400d", "how long parked messages wait to be retried; never shorter than for runs"
    )
    archive: str = _option(
        "", "where runs go before they are removed: s3://bucket/prefix or file:///folder; empty: nowhere"
    )
    archive_endpoint: str = _option("", "URL of an S3-compatible store; empty: Amazon S3")
    archive_encryption: str = _option(
        "", "encryption the bucket is asked for: AES256, aws:kms or aws:kms:KEY"
    )

    def dsn(self, user: str) -> str:
        """The database URL for one of the roles. ``Rejected`` where no database is configured."""
        if not self.database_url:
            raise Rejected(
                "there is no database",
                code="no_database",
                path="AGENTFLOW_DATABASE_URL",
                mend="set it, e.g. postgresql://db.internal:5432/agentflow",
            )
        scheme, _, rest = self.database_url.partition("://")
        if scheme not in ("postgresql", "postgres") or not rest:
            mend = "e.g. postgresql://db.internal:5432/agentflow"
            raise Rejected("is not a PostgreSQL URL", code="bad_setting", path="AGENTFLOW_DATABASE_URL", mend=mend)
        address, _, given = rest.rpartition("@")[2].partition("?")
        named = {option.partition("=")[0] for option in given.split("&")}
        ours = {**PATIENCE, "passfile": private_copy(self.passfile)} if self.passfile else PATIENCE
        options = [given] * bool(given) + [f"{n}={v}" for n, v in ours.items() if n not in named]
        return f"{scheme}://{user}@{address}?{'&'.join(options)}"

    def bus(self) -> str:
        """The URL of NATS, of one server or more (bus/servers.py). ``Rejected`` where none is configured."""
        if not self.nats_url:
            mend = "set it, e.g. nats://user:password@nats.internal:4222"
            raise Rejected("there is no NATS", code="no_nats", path="AGENTFLOW_NATS_URL", mend=mend)
        return self.nats_url

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings; a malformed or unknown ``AGENTFLOW_*`` variable raises ``Invalid`` naming it."""
        source = os.environ if environ is None else environ
        known = {PREFIX + f.name.upper(): f for f in fields(cls)}
        values: dict[str, Any] = {}
        problems: list[Problem] = []
        for variable, text in source.items():
            if not variable.startswith(PREFIX):
                continue
            spec = known.get(variable)
            if spec is None:
                if variable not in RESERVED:
                    mend = "see the configuration table in functions/README.md"
                    problems.append(Problem(variable, "unknown setting", mend, "unknown_setting"))
                continue
            try:
                values[spec.name] = _convert(resolve(text), spec.default)
            except Rejected as fault:
                problems.append(Problem(variable, fault.problem.message, fault.problem.mend, fault.code))
            except ValueError as fault:
                problems.append(
                    Problem(variable, str(fault), "correct the environment variable", "bad_setting")
                )
        port = source.get("PORT", "")
        if "http_port" not in values and port:
            values["http_port"] = int(port) if port.isdigit() else 0
            if not port.isdigit():
                problems.append(Problem("PORT", f"must be a number, not {port!r}", "correct it", "bad_setting"))
        if "sink" not in values and source.get("K_SINK"):
            values["sink"] = source["K_SINK"]
        if source.get("DOCKER_HOST"):
            values["docker_host"] = source["DOCKER_HOST"]
        if problems:
            raise Invalid(problems)
        return cls(**values)

    def development_secrets(self) -> list[str]:
        """The variables whose secrets are the ones that everybody knows."""
        known = {spec.name: spec.default for spec in fields(self) if spec.name in ("audit_key", "key_pepper")}
        return [PREFIX + name.upper() for name, default in known.items() if getattr(self, name) == default]

    @staticmethod
    def environment(**changes: object) -> dict[str, str]:
        """The environment of this process with some settings changed, for a process of ours to be started with.

        What is not changed is handed on as it was written: a secret stays a reference.
        """
        return {**os.environ, **{PREFIX + name.upper(): str(value) for name, value in changes.items()}}

    @classmethod
    def table(cls) -> list[tuple[str, str, str]]:
        """Rows (variable, default, meaning) for the documentation."""
        rows = []
        for spec in fields(cls):
            assert spec.default is not MISSING
            rows.append((PREFIX + spec.name.upper(), str(spec.default), str(spec.metadata["doc"])))
        return rows


# Read by the test suite and the deployment, not by a host.
RESERVED = frozenset({"AGENTFLOW_CRDS", "AGENTFLOW_REQUIRE_ALL"})


def _convert(text: str, default: object) -> object:
    if isinstance(default, bool):
        lowered = text.strip().lower()
        if lowered not in {"1", "0", "true", "false"}:
            raise ValueError(f"must be true or false, not {text!r}")
        return lowered in {"1", "true"}
    if isinstance(default, int | float):
        kind = type(default)
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"must be a number, not {text!r}") from None
    if isinstance(default, Path):
        return Path(text)
    return text
