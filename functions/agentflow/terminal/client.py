"""The API from the command line: one client, and its errors as ours, each with the mend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from agentflow.config import Settings
from agentflow.errors import AgentFlowError, Conflict, Invalid, Problem, Rejected, RetryLater

if TYPE_CHECKING:
    from httpx import AsyncClient, Response

KEY_FILE = "api_key"
URL_FILE = "api_url"
"""Beside the key, for as long as the embedded stack runs: where its API is."""
HERE = "http://127.0.0.1:8080"
AWAY = ("unreachable", "not_agentflow", "unauthorized")
"""Codes of what one finds where the embedded stack is not any more: nobody, or somebody else."""
TIMEOUT_S = 30.0
PAGE = 100


@asynccontextmanager
async def api(settings: Settings) -> AsyncIterator[AsyncClient]:
    """A client for the API of the settings, or of the embedded stack in their home; ``Rejected`` when there is no key
    to use."""
    key = settings.api_key or _local_key(settings)
    left = "" if settings.api_url else local_url(settings)
    async with connect(settings.api_url or left or HERE, key) as client:
        try:
            yield client
        except (Rejected, RetryLater) as fault:
            if left and fault.code in AWAY and not (settings.api_key and fault.code == "unauthorized"):
                raise _stale(settings, fault) from None
            raise


@asynccontextmanager
async def connect(url: str, key: str) -> AsyncIterator[AsyncClient]:
    """A client for the API at ``url``."""
    import httpx

    if not url.startswith(("http://", "https://")):
        mend = "set AGENTFLOW_API_URL, e.g. http://127.0.0.1:8080"
        raise Rejected(f"{url!r} is not an http or https URL", code="bad_setting", path="api_url", mend=mend)
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_S) as client:
        yield client


async def call(client: AsyncClient, method: str, path: str, **request: Any) -> Any:
    """One request; the parsed JSON of the answer. Raises what the API's problem document says."""
    import httpx

    try:
        response = await client.request(method, path, **request)
    except httpx.TransportError as fault:
        raise unreachable(client, fault) from None
    if response.status_code >= 400:
        raise refusal(response)
    return response.json() if response.content else None


async def all_pages(client: AsyncClient, path: str, filters: Mapping[str, Any] | None = None) -> list[Any]:
    """The items of all pages of a list."""
    items: list[Any] = []
    params: dict[str, Any] = {"limit": PAGE, **(filters or {})}
    while True:
        page = await call(client, "GET", path, params=params)
        items += page["items"]
        if not page["next"]:
            return items
        params["cursor"] = page["next"]


def unreachable(client: AsyncClient, fault: Exception) -> RetryLater:
    """The error of an API that does not answer."""
    address = str(client.base_url).rstrip("/")
    said = f"the API at {address} does not answer: {type(fault).__name__}"
    return RetryLater(f"{said} (start it with: agentflow dev, or set AGENTFLOW_API_URL)", code="unreachable")


def refusal(response: Response) -> AgentFlowError:
    """The error that a response above 399 stands for; its body must have been read."""
    try:
        document = response.json()
        detail, code, mend = str(document["detail"]), str(document["code"]), str(document.get("mend") or "")
        problems = [
            Problem(str(e["path"]), str(e["message"]), str(e["mend"]), str(e["code"]))
            for e in document.get("errors") or []
        ]
    except (ValueError, KeyError, TypeError):
        said = f"{response.request.url} answered {response.status_code}, but not as AgentFlow does"
        return Rejected(said, code="not_agentflow", mend="check AGENTFLOW_API_URL")
    if problems:
        return Invalid(problems, code=code)
    if response.status_code == 503:
        return RetryLater(detail, code=code)
    if response.status_code == 409:
        return Conflict(f"{detail} ({mend})" if mend else detail, code=code)
    if response.status_code == 401:
        mend = "set AGENTFLOW_API_KEY; a key is made with: agentflow key create"
    return Rejected(detail, code=code, mend=mend)


def local_url(settings: Settings) -> str:
    """Where the embedded stack has said that its API is; '' where it has not."""
    try:
        return (settings.home / URL_FILE).read_text().strip()
    except OSError:
        return ""


def _stale(settings: Settings, fault: Rejected | RetryLater) -> Rejected:
    """The error of an address that the embedded stack has left behind, as it does when it is killed."""
    said = fault.problem.message if isinstance(fault, Rejected) else str(fault).partition(" (")[0]
    file = settings.home / URL_FILE
    mend = "start it again with: agentflow dev, or set AGENTFLOW_API_URL"
    message = f"{said}; the address is the one that `agentflow dev` has left in {file}, and it is not there any more"
    return Rejected(message, code=fault.code, mend=mend)


def _local_key(settings: Settings) -> str:
    try:
        return (settings.home / KEY_FILE).read_text().strip()
    except OSError:
        mend = "set AGENTFLOW_API_KEY, or start the embedded stack with: agentflow dev"
        raise Rejected("there is no API key", code="no_key", path="api_key", mend=mend) from None
