"""The one table of routes: what the application serves and what the OpenAPI document says come from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pydantic import BaseModel
from starlette.responses import Response

from agentflow.control import (
    audit,
    budgets,
    corrections,
    costs,
    estimates,
    events,
    forks,
    graphs,
    human,
    limits,
    parked,
    plans,
    prices,
    retention,
    runs,
    shapes,
    streams,
    workflows,
)
from agentflow.control.call import Call

Handler = Callable[[Call], Awaitable[Response]]

JSON = "application/json"
YAML = "application/yaml"
CLOUDEVENT = "application/cloudevents+json"
CLOUDEVENTS = "application/cloudevents-batch+json"
STREAM = "text/event-stream"
CSV = "text/csv"
SVG = "image/svg+xml"
TEXT = "text/plain"

HEADERS = {
    "Idempotency-Key": "1 to 200 visible ASCII characters: the same key and request count once.",
    "Last-Event-ID": "Go on after this event of the stream.",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One successful answer: its body (None: none) and what it means."""

    meaning: str
    body: type[BaseModel] | None = None
    media: str = JSON
    others: tuple[str, ...] = ()
    """Media types that it may have besides, as text."""


@dataclass(frozen=True, slots=True)
class Route:
    """One operation.

    ``request`` maps the media types it takes to the class of the body (None: any such document). ``errors``
    are the statuses it may answer with besides 401, 500 and 503, which every operation may.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    answers: dict[int, Answer]
    errors: tuple[int, ...] = ()
    request: dict[str, type[BaseModel] | None] = field(default_factory=dict)
    optional_body: bool = False
    query: type[shapes.Query] = shapes.NoQuery
    headers: tuple[str, ...] = ()


_DOCUMENT: dict[str, type[BaseModel] | None] = {YAML: None, JSON: None}
_EVENTS: dict[str, type[BaseModel] | None] = {CLOUDEVENT: None, CLOUDEVENTS: None, "*/*": None}

ROUTES = (
    Route(
        "POST", "/v1/workflows", workflows.register_workflow, "Register a workflow",
        {201: Answer("A new version.", shapes.Registered), 200: Answer("Known content.", shapes.Registered)},
        (400, 408, 413, 415, 422), _DOCUMENT,
    ),
    Route(
        "GET", "/v1/workflows", workflows.list_workflows, "List workflows",
        {200: Answer("The newest version of each.", shapes.Workflows)},
        (400,), query=shapes.PageQuery,
    ),
    Route(
        "GET", "/v1/workflows/{name}", workflows.get_workflow, "Get a workflow",
        {200: Answer("The version asked for, or the newest.", shapes.WorkflowDocument)},
        (400, 404), query=shapes.VersionQuery,
    ),
    Route(
        "GET", "/v1/workflows/{name}/graph", graphs.draw_workflow, "Draw a workflow's plan",
        {200: Answer("The picture.", media=SVG, others=(TEXT,))},
        (400, 404), query=shapes.WorkflowGraphQuery,
    ),
    Route(
        "POST", "/v1/workflows/{name}/estimate", estimates.estimate_run, "Estimate what a run may cost",
        {200: Answer("Least, expected and most, by task and in all.", shapes.Estimate)},
        (400, 404, 408, 413, 415, 422), {JSON: shapes.EstimateRequest}, optional_body=True,
    ),
    Route(
        "POST", "/v1/validate", workflows.validate_workflow, "Check a workflow without registering it",
        {200: Answer("The document is valid.", shapes.Checked)},
        (400, 408, 413, 415, 422), _DOCUMENT,
    ),
    Route(
        "POST", "/v1/runs", runs.start_run, "Start a run",
        {202: Answer("Accepted and durable.", shapes.AcceptedRun), 200: Answer("It has ended.", shapes.Run)},
        (400, 402, 404, 408, 413, 415, 422), {JSON: shapes.RunRequest},
        query=shapes.WaitQuery, headers=("Idempotency-Key",),
    ),
    Route(
        "POST", "/v1/plans", plans.write_plan, "Have a plan written for a goal",
        {
            202: Answer("A run that ends with the plan: its output names the workflow.", shapes.AcceptedRun),
            200: Answer("It has ended.", shapes.Run),
        },
        (400, 402, 404, 408, 413, 415, 422), {JSON: shapes.PlanRequest},
        query=shapes.WaitQuery, headers=("Idempotency-Key",),
    ),
    Route(
        "GET", "/v1/runs", runs.list_runs, "List runs, newest first",
        {200: Answer("A page of runs.", shapes.Runs)},
        (400,), query=shapes.RunsQuery,
    ),
    Route(
        "GET", "/v1/runs/{run}", runs.get_run, "Get a run",
        {200: Answer("The run as it is now.", shapes.Run)},
        (404,),
    ),
    Route(
        "GET", "/v1/runs/{run}/steps", runs.list_steps, "List a run's steps",
        {200: Answer("A page of attempts.", shapes.Steps)},
        (400, 404), query=shapes.PageQuery,
    ),
    Route(
        "GET", "/v1/runs/{run}/history", runs.list_history, "List a run's history",
        {200: Answer("A page of lines.", shapes.Lines)},
        (400, 404), query=shapes.PageQuery,
    ),
    Route(
        "GET", "/v1/runs/{run}/graph", graphs.draw_run, "Draw a run's plan, with where the run is",
        {200: Answer("The picture; colours and marks say what has been done.", media=SVG, others=(TEXT,))},
        (400, 404, 409, 422), query=shapes.GraphQuery,
    ),
    Route(
        "GET", "/v1/runs/{run}/events", streams.stream_run, "Follow a run",
        {
            200: Answer("The history so far, then what follows; the last id is `end`.", media=STREAM),
            204: Answer("There is nothing after that event."),
        },
        (400, 404), query=shapes.FollowQuery, headers=("Last-Event-ID",),
    ),
    Route(
        "POST", "/v1/runs/{run}/fork", forks.fork_run, "Start a run from a point of another one",
        {202: Answer("Accepted and durable.", shapes.AcceptedRun), 200: Answer("It has ended.", shapes.Run)},
        (400, 402, 404, 408, 409, 413, 415, 422), {JSON: shapes.ForkRequest},
        query=shapes.WaitQuery, headers=("Idempotency-Key",),
    ),
    Route(
        "POST", "/v1/runs/{run}/cancel", runs.cancel_run, "Cancel a run",
        {202: Answer("The run will stop, or has been cancelled before.", shapes.Noted)},
        (400, 404, 408, 409, 413, 415, 422), {JSON: shapes.CancelRequest}, optional_body=True,
    ),
    Route(
        "POST", "/v1/runs/{run}/pause", runs.pause_run, "Pause a run",
        {202: Answer("The run will start nothing more.", shapes.Noted)},
        (400, 404, 408, 409, 413, 415, 422), {JSON: shapes.PauseRequest}, optional_body=True,
    ),
    Route(
        "POST", "/v1/runs/{run}/resume", runs.resume_run, "Resume a paused run",
        {202: Answer("The run will go on.", shapes.Noted)},
        (400, 404, 408, 409, 413, 415, 422), {JSON: shapes.PauseRequest}, optional_body=True,
    ),
    Route(
        "GET", "/v1/tasks", human.list_tasks, "List what waits for people",
        {200: Answer("A page of steps that wait for an answer.", shapes.HumanTasks)},
        (400,), query=shapes.HumanTasksQuery,
    ),
    Route(
        "POST", "/v1/runs/{run}/steps/{step}/answer", human.answer_task, "Answer a step that waits for a person",
        {202: Answer("Accepted and durable.", shapes.Noted)},
        (400, 404, 408, 409, 413, 415, 422), {JSON: shapes.AnswerRequest}, optional_body=True,
    ),
    Route(
        "POST", "/v1/runs/{run}/signals/{name}", runs.signal_run, "Send a run a signal",
        {202: Answer("Accepted and durable.", shapes.Noted)},
        (400, 404, 408, 409, 413, 415, 422), {JSON: shapes.SignalRequest}, optional_body=True,
        headers=("Idempotency-Key",),
    ),
    Route(
        "POST", "/v1/events", events.publish_events, "Publish CloudEvents: binary, structured or a batch",
        {202: Answer("Accepted and durable; the same source and id count once.", shapes.AcceptedEvents)},
        (400, 408, 413, 415, 422), _EVENTS,
    ),
    Route(
        "GET", "/v1/parked", parked.list_parked, "List messages that could not be handled",
        {200: Answer("A page of messages with their reasons.", shapes.ParkedPage)},
        (400,), query=shapes.PageQuery,
    ),
    Route(
        "POST", "/v1/parked/{parked}/retry", parked.retry_parked, "Retry a parked message",
        {202: Answer("The message is on its way again.", shapes.Retried)},
        (404, 413),
    ),
    Route(
        "GET", "/v1/retention", retention.get_retention, "See how long things are kept",
        {200: Answer("What is set; null: as the installation says.", shapes.Retention)},
    ),
    Route(
        "PUT", "/v1/retention", retention.put_retention, "Set how long things are kept",
        {200: Answer("What is set now.", shapes.Retention)},
        (400, 408, 409, 413, 415, 422), {JSON: shapes.RetentionRequest},
    ),
    Route(
        "GET", "/v1/limits", limits.list_limits, "List limits",
        {200: Answer("A page of limits.", shapes.Limits)},
        (400,), query=shapes.PageQuery,
    ),
    Route(
        "GET", "/v1/limits/{scope:path}", limits.get_limit, "Get a limit",
        {200: Answer("What is set.", shapes.ScopeLimit)},
        (404, 422),
    ),
    Route(
        "PUT", "/v1/limits/{scope:path}", limits.put_limit, "Set a limit",
        {200: Answer("What is set now.", shapes.ScopeLimit)},
        (400, 408, 413, 415, 422), {JSON: shapes.LimitRequest},
    ),
    Route(
        "DELETE", "/v1/limits/{scope:path}", limits.delete_limit, "Remove a limit",
        {204: Answer("It is gone.")},
        (404, 413, 422),
    ),
    Route(
        "GET", "/v1/prices", prices.list_prices, "List prices",
        {200: Answer("A page of prices.", shapes.Prices)},
        (400,), query=shapes.PageQuery,
    ),
    Route(
        "POST", "/v1/prices/reload", prices.reload_prices, "Have prices read again",
        {204: Answer("Every host that can be reached has been told.")},
        (413,),
    ),
    Route(
        "GET", "/v1/prices/{scope:path}", prices.get_price, "Get a price",
        {200: Answer("What it costs, and has cost.", shapes.PriceHistory)},
        (404, 422),
    ),
    Route(
        "GET", "/v1/budgets", budgets.list_budgets, "List budgets",
        {200: Answer("A page of budgets: limit, spent, held, remaining, reset time.", shapes.Budgets)},
        (400,), query=shapes.PageQuery,
    ),
    Route(
        "POST", "/v1/corrections", corrections.correct_spend, "Correct what was spent",
        {
            201: Answer("It counts from now on.", shapes.Correction),
            200: Answer("It was made before.", shapes.Correction),
        },
        (400, 403, 404, 408, 413, 415, 422), {JSON: shapes.CorrectionRequest}, headers=("Idempotency-Key",),
    ),
    Route(
        "GET", "/v1/corrections", corrections.list_corrections, "List corrections",
        {200: Answer("A page of corrections.", shapes.Corrections)},
        (400,), query=shapes.PageQuery,
    ),
    Route(
        "GET", "/v1/costs", costs.list_costs, "Report what was spent",
        {200: Answer("A page of sums, the newest period first.", shapes.Costs, others=(CSV,))},
        (400,), query=shapes.CostsQuery,
    ),
    Route(
        "GET", "/v1/audit", audit.list_audit, "List the audit chain",
        {200: Answer("A page of entries, oldest first.", shapes.AuditPage)},
        (400,), query=shapes.PageQuery,
    ),
)  # fmt: skip
