"""The API as an ASGI application: the table of routes behind one edge that traces, counts and explains."""

from __future__ import annotations

import time

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentflow.config import Settings
from agentflow.control import dashboard, problems
from agentflow.control.auth import Keys
from agentflow.control.call import Call, Models, Services, Waits
from agentflow.control.estimates import Bases
from agentflow.control.origins import Origins
from agentflow.control.ports import Engine
from agentflow.control.registry import PlanLimits, Registry
from agentflow.control.routes import ROUTES, Route
from agentflow.control.waiting import Gone
from agentflow.errors import AgentFlowError, Rejected
from agentflow.observe import logs, metrics, traces
from agentflow.store.control import ACTOR, ControlStore

CLIENT_LEFT = 499
UNMATCHED = "unmatched"

_log = logs.logger("api")


def create_app(engine: Engine, control_store: ControlStore, settings: Settings, models: Models) -> Starlette:
    """The application over an open store and a running engine, which stay their owner's to close.

    It has no lifespan of its own, so it may be mounted in a host's application or served alone.
    """
    origins = Origins(control_store, settings.fork_lines)
    limits = PlanLimits(settings.plan_bytes, settings.plan_nodes, settings.plan_steps, settings.plan_states)
    services = Services(engine, control_store, Registry(control_store, models, limits), Waits(), origins, Bases())
    keys = Keys(control_store, settings.key_pepper)
    routes = [_starlette_route(route, services, keys) for route in ROUTES]
    routes.append(_only(StarletteRoute("/openapi.json", _openapi, methods=["GET"])))
    routes += [_only(StarletteRoute(path, dashboard.serve_file, methods=["GET"])) for path in dashboard.FILES]
    app = Starlette(
        routes=routes, middleware=[Middleware(Edge)], exception_handlers={HTTPException: _http_problem}
    )
    app.router.redirect_slashes = False
    app.state.services = services
    return app


class Exchange:
    """What the edge and the handlers of one request tell each other."""

    __slots__ = ("ids", "route", "span")

    def __init__(self, span: traces.Span) -> None:
        self.span = span
        self.route = UNMATCHED
        self.ids: dict[str, str] = {}
        """What the handlers found out about the request: its tenant, its run."""


class Edge:
    """Around every request: a span, the ids on its log lines, its metrics, and a problem for every error."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parent = next(
            (value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"), None
        )
        began = time.perf_counter()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        method = scope["method"]
        with (
            traces.start_span(f"api {method}", parent, kind="server") as span,
            logs.bound(trace_id=span.trace_id),
        ):
            exchange = scope["agentflow"] = Exchange(span)
            try:
                await self._app(scope, receive, watched)
            except (Gone, ClientDisconnect):
                status = status or CLIENT_LEFT
            except Exception as fault:
                refused = _refusal(fault, scope["path"], span.trace_id)
                if status:
                    _log.error("answer broken off", route=exchange.route, exc_info=fault, **exchange.ids)
                    raise
                if refused.status_code == 500:
                    _log.error("request failed", route=exchange.route, exc_info=fault, **exchange.ids)
                await refused(scope, receive, watched)
            finally:
                seconds = time.perf_counter() - began
                metrics.request(method, exchange.route, status, seconds)
                span.set({
                    "http.request.method": method, "http.route": exchange.route,
                    "http.response.status_code": status,
                })  # fmt: skip
                _log.info(
                    "request",
                    method=method[:20],
                    route=exchange.route,
                    status=status,
                    ms=round(seconds * 1000, 1),
                    **exchange.ids,
                )


def _starlette_route(route: Route, services: Services, keys: Keys) -> StarletteRoute:
    async def endpoint(request: Request) -> Response:
        exchange: Exchange = request.scope["agentflow"]
        exchange.route = route.path
        tenant, key = await keys.owner(request.headers.get("authorization"))
        ACTOR.set(key)  # each request is a task of its own
        exchange.ids["tenant"] = str(tenant)
        if run := request.path_params.get("run"):
            exchange.ids["run"] = run[:36]
        with logs.bound(**exchange.ids):
            return await route.handler(Call(request, tenant, services, exchange.span.traceparent))

    metrics.route(route.method, route.path)
    name = getattr(route.handler, "__name__", route.path)
    return _only(StarletteRoute(route.path, endpoint, methods=[route.method], name=name))


def _only(route: StarletteRoute) -> StarletteRoute:
    """The route without the HEAD that Starlette adds: a HEAD for an event stream would never end."""
    assert route.methods is not None
    route.methods.discard("HEAD")
    return route


async def _openapi(request: Request) -> Response:
    from agentflow.control.openapi import document_bytes

    request.scope["agentflow"].route = "/openapi.json"
    return Response(document_bytes(), media_type="application/json")


def _refusal(fault: Exception, path: str, trace_id: str) -> Response:
    if isinstance(fault, AgentFlowError):
        return problems.response(fault, instance=path, trace_id=trace_id)
    return problems.internal(instance=path, trace_id=trace_id)


async def _http_problem(request: Request, fault: Exception) -> Response:
    """What the router refuses by itself: 404 for an unknown path, 405 for a method the path has not."""
    assert isinstance(fault, HTTPException)
    trace_id = request.scope["agentflow"].span.trace_id
    if fault.status_code == 405:
        allowed = ", ".join(sorted((fault.headers or {}).get("Allow", "").replace(" ", "").split(",")))
        refusal = Rejected(
            f"{request.method[:20]} is not possible here", code="method_not_allowed", mend=f"use {allowed}"
        )
    else:
        refusal = Rejected("there is nothing at this path", code="not_found", mend="see GET /openapi.json")
    answer = problems.response(refusal, instance=request.url.path, trace_id=trace_id)
    for name, value in (fault.headers or {}).items():
        answer.headers[name] = value
    return answer
