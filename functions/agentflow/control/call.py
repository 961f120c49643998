"""One authenticated request on its way to its handler, with what handlers share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from agentflow.control import shapes
from agentflow.control.ports import Engine
from agentflow.core.price import Price, Told
from agentflow.errors import Rejected, RetryLater
from agentflow.observe import metrics
from agentflow.store.control import ControlStore

if TYPE_CHECKING:
    from agentflow.control.estimates import Bases
    from agentflow.control.origins import Origins
    from agentflow.control.registry import Registry

MAX_WAITS = 1000
"""Most clients one process holds open: event streams and ?wait=."""

_NAME = re.compile(shapes.NAME)

Model = TypeVar("Model", bound=BaseModel)


class Models(Protocol):
    """The catalogue of models: which there are, and what an alias costs where its price is known."""

    def resolve(self, alias: str, told: Told | None = None) -> Price: ...

    def aliases(self) -> list[str]: ...

    def window(self, alias: str) -> int | None: ...


class Waits:
    """Counts the clients that are held open, so that they cannot take a process's last file descriptor."""

    def __init__(self, limit: int = MAX_WAITS) -> None:
        self.limit = limit
        self.open = 0

    def check(self) -> None:
        """Refuse one more when there are too many."""
        if self.open >= self.limit:
            raise RetryLater("too many clients are waiting", after=5.0, code="too_many_waits")

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Count one client for as long as the block takes."""
        self.open += 1
        metrics.STREAMS.inc()
        try:
            yield
        finally:
            self.open -= 1
            metrics.STREAMS.dec()


@dataclass(frozen=True, slots=True)
class Services:
    """What all handlers share."""

    engine: Engine
    store: ControlStore
    registry: Registry
    waits: Waits
    origins: Origins
    bases: Bases


@dataclass(frozen=True, slots=True)
class Call:
    """A request, the tenant whose key it carries, and the ``traceparent`` that events made from it carry."""

    request: Request
    tenant: UUID
    services: Services
    trace: str

    def path(self, name: str) -> str:
        """A path parameter."""
        return str(self.request.path_params[name])

    def workflow(self, version: int | None = None) -> str:
        """The workflow in the path; what cannot be a name is none."""
        name = self.path("name")
        if _NAME.fullmatch(name) is None:
            raise no_workflow(name[:64], version)
        return name

    def run_id(self) -> UUID:
        """The run in the path; what is not a UUID is no run."""
        try:
            return UUID(self.path("run"))
        except ValueError:
            raise no_run() from None


def no_run() -> Rejected:
    """The refusal that an unknown run, another tenant's and a malformed id get alike."""
    return Rejected("there is no such run", code="not_found", mend="list runs with GET /v1/runs")


def no_workflow(name: str, version: int | None) -> Rejected:
    """The refusal of a workflow or version that does not exist."""
    said = f"there is no workflow {name}" + (f" of version {version}" if version else "")
    return Rejected(said, code="not_found", mend="register it with POST /v1/workflows")


def answer(
    model: type[Model], value: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """``value`` (a mapping with at least the fields of ``model``) as a JSON response."""
    fields = {name: value[name] for name in model.model_fields}
    body = model.model_validate(fields).model_dump_json()
    return Response(body, status, headers, media_type="application/json")


def page(model: type[Model], items: list[Any], next_cursor: str | None) -> Response:
    """A page of a list as a JSON response; ``items`` are mappings."""
    return answer(model, {"items": items, "next": next_cursor})
