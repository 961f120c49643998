"""LangGraph with its PostgreSQL saver; runs in the environment of requirements-langgraph.txt. Prints one JSON line."""

from __future__ import annotations

import argparse
import asyncio
import operator
import time
from importlib.metadata import version
from multiprocessing.synchronize import Barrier
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import fleet
import psycopg
import uvloop
import work
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from psycopg.rows import dict_row

starts: list[float] = []


class Run(TypedDict):
    n: int


class Fan(TypedDict):
    results: Annotated[list[int], operator.add]
    joined: int


async def echo(state: Run) -> Run:
    starts.append(time.perf_counter())
    return {"n": state["n"] + 1}


async def branch(state: Run) -> dict[str, Any]:
    return {"results": [state["n"] + 1]}


async def join(state: Fan) -> dict[str, Any]:
    return {"joined": sum(state["results"])}


def ten_steps() -> StateGraph:
    graph = StateGraph(Run)
    names = [f"step{number}" for number in range(work.STEPS)]
    for name in names:
        graph.add_node(name, echo)
    for before, after in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(before, after)
    return graph


def fan_out() -> StateGraph:
    graph = StateGraph(Fan)
    graph.add_node("branch", branch)
    graph.add_node("join", join)
    graph.add_conditional_edges(
        START, lambda _: [Send("branch", {"n": n}) for n in range(work.WIDTH)], ["branch"]
    )
    graph.add_edge("branch", "join")
    graph.add_edge("join", END)
    return graph


async def saver(dsn: str) -> AsyncPostgresSaver:
    """A saver with a connection of its own: one saver holds a lock around each statement, whatever its pool."""
    connect = psycopg.AsyncConnection.connect
    conn = await connect(dsn, autocommit=True, prepare_threshold=0, row_factory=dict_row)
    return AsyncPostgresSaver(conn)


async def invoke(graph: Any, state: Any) -> Any:
    """One run, under a thread id that says which graph it was."""
    thread = {"configurable": {"thread_id": f"{'run' if 'n' in state else 'fan'}-{uuid4()}"}}
    return await graph.ainvoke(state, thread, durability="sync")


async def one_run(graph: Any) -> None:
    assert await invoke(graph, {"n": 0}) == {"n": work.STEPS}


async def one_at_a_time(dsn: str) -> work.Clock:
    clock = work.Clock()
    graph = ten_steps().compile(checkpointer=await saver(dsn))
    for _ in range(work.SINGLES_BEFORE + work.SINGLES):
        starts.clear()
        await one_run(graph)
        clock.single(starts)
    graph = fan_out().compile(checkpointer=await saver(dsn))
    for _ in range(work.FANS_BEFORE + work.FANS):
        began = time.perf_counter()
        state = await invoke(graph, {"joined": 0})
        clock.fan(began)
        assert state["joined"] == work.JOINED, state
    return clock


async def at_once(given: argparse.Namespace, runs: int, barrier: Barrier) -> None:
    graphs = [ten_steps().compile(checkpointer=await saver(given.dsn)) for _ in range(given.savers)]
    left = iter(range(runs))

    async def lane(graph: Any) -> None:
        for _ in left:
            await one_run(graph)

    barrier.wait(fleet.PATIENCE_S)
    await asyncio.gather(*map(lane, graphs))
    barrier.wait(fleet.PATIENCE_S)
    assert len(starts) == runs * work.STEPS, len(starts)


def worker(given: Any, number: int, runs: int, barrier: Barrier) -> None:
    uvloop.run(at_once(given, runs, barrier))


def count(dsn: str) -> int:
    """Steps by the saver's tables: a checkpoint after each step of a run, a write of each branch of a fan-out."""
    query = """
        select (select count(*) from checkpoints where thread_id like 'run-%' and (metadata ->> 'step')::int > 0)
             + (select count(*) from checkpoint_writes where channel = 'results')"""
    with psycopg.connect(dsn) as conn:
        row = conn.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def main() -> None:
    parser = work.arguments(__doc__)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--savers", type=int, default=4, help="per process, each with a connection of its own"
    )
    given = parser.parse_args()
    with PostgresSaver.from_conn_string(given.dsn) as tables:
        tables.setup()
    clock = uvloop.run(one_at_a_time(given.dsn))
    seconds = fleet.seconds(worker, given, given.runs, given.processes)
    work.emit(
        clock.measured(
            given.runs,
            seconds,
            steps_counted=count(given.dsn),
            version=version("langgraph"),
            durability='PostgreSQL: durability="sync", fsync on',
            settings=f"async graph, {given.processes} processes, {given.savers} savers and connections each, uvloop",
        )
    )


if __name__ == "__main__":
    main()
