"""The load: runs of all workflows, chosen by seed, submitted as clients would: with keys, again, and by event."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from chaos.client import PATIENCE_S, Client, Tenant
from chaos.fleet import Fleet
from chaos.listener import Listener
from chaos.sampler import Sampler
from chaos.violation import Violation
from chaos.workflows import BY_NAME, LIMITS, TEAM, UNPRICED, WORKFLOWS, Workflow

CLOUDEVENT = "application/cloudevents+json"


@dataclass(slots=True)
class Submission:
    """One run that was asked for. ``ids``: every id that its acknowledgements named."""

    tenant: Tenant
    workflow: Workflow
    token: str
    given: dict[str, Any]
    ids: set[str] = field(default_factory=set)
    acknowledged: bool = False
    cancelled: bool = False
    signalled: bool = False


class Load:
    """Drives the runs of one round."""

    def __init__(self, seed: str, tenants: list[Tenant], fleet: Fleet, sampler: Sampler, listener: Listener,
                 effect_url: str, only: str = "", *, team: str | None = TEAM) -> None:  # fmt: skip
        self._seed = seed
        self._team = team  # the named budget that half of the third tenant's runs are charged to
        self._tenants = tenants
        self._sampler = sampler
        self._listener = listener
        self._effect_url = effect_url
        self.client = Client([worker.url for worker in fleet.workers.values() if worker.has_api])
        chosen = [BY_NAME[name] for name in only.split()] if only else list(WORKFLOWS)
        self._workflows = chosen
        self._weights = [workflow.weight for workflow in chosen]
        self.submissions: list[Submission] = []

    async def register(self) -> None:
        """Register every workflow with every tenant; one without a price has to be refused."""
        for tenant in self._tenants:
            for workflow in self._workflows:
                await self.client.ask(tenant, "POST", "/v1/workflows", {200, 201}, json=workflow.document)
            answer = await self.client.ask(
                tenant, "POST", "/v1/workflows", {200, 201, 422}, json=UNPRICED.document
            )
            if answer.status_code != 422 or "price" not in answer.text:
                self.client.violations.append(
                    Violation(7, f"a model without a price was admitted: {answer.text[:200]}")
                )

    async def submit_unpriced(self, tenant: Tenant) -> None:
        """Ask for a run of a workflow without a price that has got into the registry all the same."""
        token = f"{tenant.mark}-unpriced"
        submission = Submission(tenant, UNPRICED, token, {"token": token, "n": 0})
        self.submissions.append(submission)
        body = {"workflow": UNPRICED.name, "input": submission.given}
        await self.client.ask(
            tenant, "POST", "/v1/runs", {202, 400, 422}, json=body, headers={"Idempotency-Key": token}
        )

    async def limit(self) -> None:
        """Have the second tenant's runs and calls wait for each other."""
        for scope, limit in LIMITS.items():
            await self.client.ask(self._tenants[1], "PUT", f"/v1/limits/{scope}", {200}, json=limit)

    async def warm_up(self) -> None:
        """Some runs that call models, before anything is timed: a worker's first call takes seconds, because it
        imports the client."""
        first = next(
            (workflow for workflow in self._workflows if workflow.calls_models and not workflow.scene), None
        )
        if first is not None:
            tenant = self._tenants[0]
            warm = [Submission(tenant, first, f"{tenant.mark}-warm-{n}", {"token": f"{tenant.mark}-warm-{n}", "n": n})
                    for n in range(2 * self.client.doors)]  # fmt: skip
            for submission in warm:
                if first.name == "mapped":
                    submission.given["items"] = [1]
                self.submissions.append(submission)
                await self._submit(submission, random.Random(submission.token))
            await self._sampler.until(
                lambda: all(each.token in self._sampler.ended_tokens for each in warm), within_s=PATIENCE_S
            )

    async def run(self, count: int, *, in_flight: int, over_s: float, first: int = 0) -> None:
        """Submit ``count`` runs, spread over some seconds, with at most so many going on at once, and see each
        through to its end. ``first``: the number of the first, for who does so again."""
        gate = asyncio.Semaphore(in_flight)
        began = time.monotonic()
        tasks = []
        try:
            for number in range(count):
                await asyncio.sleep(max(0.0, began + over_s * number / count - time.monotonic()))
                await gate.acquire()
                task = asyncio.create_task(self._see_through(first + number))
                task.add_done_callback(lambda _: gate.release())
                tasks.append(task)
            for ended in asyncio.as_completed(tasks):
                await ended
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _see_through(self, number: int) -> None:
        chance = random.Random(f"{self._seed}/{number}")
        tenant = chance.choice(self._tenants)
        (workflow,) = chance.choices(self._workflows, self._weights)
        token = f"{tenant.mark}-{number}"
        given: dict[str, Any] = {"token": token, "n": chance.randrange(1000)}
        if workflow.name == "mapped":
            given["items"] = list(range(chance.randrange(1, 7)))
        if workflow.name in ("tooled", "charged"):
            given["url"] = self._effect_url
        submission = Submission(tenant, workflow, token, given)
        self.submissions.append(submission)
        if workflow.scene == "trigger":
            await self._event(submission, "com.chaos.started", given, chance, self._known(submission))
        else:
            await self._submit(submission, chance)
            if not submission.acknowledged:  # nothing is left for it
                self.submissions.remove(submission)
                return
            await SCENES.get(workflow.scene, _nothing)(self, submission, chance)
        if chance.random() < 0.05 and submission.ids:
            await self._conflict(submission)
        await self._ended(submission)
        if submission.workflow.forks and submission.ids and chance.random() < 0.3:
            await self._fork(submission, chance)

    async def _ended(self, submission: Submission) -> None:
        token = submission.token
        while token not in self._sampler.ended_tokens:
            await self._sampler.until(lambda: token in self._sampler.ended_tokens, within_s=30)

    # -- what clients do -------------------------------------------------------------------------------

    async def _submit(self, submission: Submission, chance: random.Random) -> None:
        body: dict[str, Any] = {"workflow": submission.workflow.name, "input": submission.given}
        if self._team and submission.tenant is self._tenants[-2] and chance.random() < 0.5:
            body["budget"] = self._team
        headers = {"Idempotency-Key": submission.token}
        for _ in range(1 + (chance.random() < 0.2)):  # some clients ask twice
            answer = await self.client.ask(
                submission.tenant, "POST", "/v1/runs", {200, 202, 402}, json=body, headers=headers
            )
            if answer.status_code in (200, 202):
                submission.ids.add(answer.json()["id"])
                submission.acknowledged = True

    async def _fork(self, old: Submission, chance: random.Random) -> None:
        """Fork a run that has succeeded before one of its steps: the new run has to come to what that workflow must."""
        (run,) = list(old.ids)[:1]
        found = (await self.client.ask(old.tenant, "GET", f"/v1/runs/{run}", {200})).json()
        if found["status"] != "succeeded":
            return
        token = f"{old.token}-f"
        submission = Submission(old.tenant, old.workflow, token, {**old.given, "token": token})
        self.submissions.append(submission)
        body = {"at": chance.randrange(1, found["steps"] + 1), "set": {"token": token}}
        headers = {"Idempotency-Key": token}
        for _ in range(1 + (chance.random() < 0.3)):
            path = f"/v1/runs/{run}/fork"
            answer = await self.client.ask(old.tenant, "POST", path, {200, 202, 402}, json=body, headers=headers)
            if answer.status_code in (200, 202):
                submission.ids.add(answer.json()["id"])
                submission.acknowledged = True
        if submission.acknowledged:
            await self._ended(submission)

    async def _conflict(self, submission: Submission) -> None:
        """The same key with another request is refused."""
        body = {"workflow": submission.workflow.name, "input": {**submission.given, "n": -1}}
        headers = {"Idempotency-Key": submission.token}
        await self.client.ask(submission.tenant, "POST", "/v1/runs", {409, 422}, json=body, headers=headers)

    async def _event(self, submission: Submission, kind: str, data: dict[str, Any], chance: random.Random,
                     taken: Callable[[], bool]) -> None:  # fmt: skip
        """Publish a CloudEvent over HTTP or NATS. What NATS has acknowledged and lost with all its data is
        published again, as its clients would have to; nothing else is."""
        event = {
            "specversion": "1.0", "id": f"{submission.token}/{kind}", "source": "/chaos", "type": kind,
            "datacontenttype": "application/json", "data": data,
        }  # fmt: skip
        payload = json.dumps(event).encode()
        if chance.random() < 0.5:
            for _ in range(1 + (chance.random() < 0.2)):
                await self.client.ask(
                    submission.tenant,
                    "POST",
                    "/v1/events",
                    {202},
                    content=payload,
                    headers={"Content-Type": CLOUDEVENT},
                )
            submission.acknowledged = True
            return
        subject = f"agentflow.{submission.tenant.id}.in.chaos"
        while not taken():
            losses = self._listener.losses
            await self._listener.publish_surely(subject, payload)
            submission.acknowledged = True
            while not taken() and losses == self._listener.losses:
                await self._sampler.until(lambda: taken() or losses != self._listener.losses, within_s=10)  # noqa: B023

    def _known(self, submission: Submission) -> Callable[[], bool]:
        sampler, token = self._sampler, submission.token
        return lambda: token in sampler.ended_tokens or token in sampler.by_token

    def _holding(self, submission: Submission) -> bool:
        """Whether its run waits in the state ``holding`` (or has ended)."""
        run = self._sampler.by_token.get(submission.token)
        if run is None:
            return submission.token in self._sampler.ended_tokens
        return any(opened[0] == "ages" for opened in ((run["state"] or {}).get("open") or {}).values())

    async def pay(self, submission: Submission, chance: random.Random) -> None:
        """Publish the event its run waits for, once it does."""
        sampler = self._sampler

        def waits() -> bool:
            run = self._sampler.by_token.get(submission.token)
            return submission.token in sampler.ended_tokens or (
                run is not None and run["run_id"] in sampler.subscribed
            )

        while not waits():
            await sampler.until(waits, within_s=30)
        data = {"token": submission.token, "sum": 9}
        await self._event(
            submission, "com.chaos.paid", data, chance, lambda: submission.token in sampler.ended_tokens
        )

    async def signal(self, submission: Submission, chance: random.Random) -> None:
        """Send its run ``go``, once it listens; before that, something nobody listens to."""
        for _ in range(2 * (chance.random() < 0.5)):  # the same key, twice: it counts once
            await self._say(submission, "noise")
        while not self._holding(submission):
            await self._sampler.until(lambda: self._holding(submission), within_s=30)
        submission.signalled = True
        for _ in range(1 + (chance.random() < 0.3)):
            await self._say(submission, "go")

    async def answer(self, submission: Submission, chance: random.Random) -> None:
        """Answer what its run asks, once it does; sometimes twice: one answer counts."""
        (run,) = list(submission.ids)[:1] or [""]
        while submission.token not in self._sampler.ended_tokens:
            for _ in range(1 + (chance.random() < 0.3)):
                path = f"/v1/runs/{run}/steps/1/answer"
                body = {"result": {"n": 7}, "by": "chaos"}
                await self.client.ask(submission.tenant, "POST", path, {202, 409}, json=body)
            await asyncio.sleep(0.2)

    async def pause(self, submission: Submission, chance: random.Random) -> None:
        """Pause its run at some time, and resume it later."""
        (run,) = list(submission.ids)[:1] or [""]
        await asyncio.sleep(chance.uniform(0.0, 0.4))
        retries = self.client.retries
        for verb in ("pause", "resume"):
            await self._steer(submission, run, verb)
            await asyncio.sleep(chance.uniform(0.0, 0.6))
        while self.client.retries != retries and submission.token not in self._sampler.ended_tokens:
            # A pause that was asked for again may have had its effect after the resume, in a process that was stopped
            # with the first request in its hands: whoever sees that has to resume again.
            await self._sampler.until(lambda: submission.token in self._sampler.ended_tokens, within_s=5)
            found = await self.client.ask(submission.tenant, "GET", f"/v1/runs/{run}", {200})
            if found.json()["status"] == "paused":
                await self._steer(submission, run, "resume")

    async def _steer(self, submission: Submission, run: str, verb: str) -> None:
        path = f"/v1/runs/{run}/{verb}"
        await self.client.ask(submission.tenant, "POST", path, {202, 409}, json={"reason": "chaos"})

    async def _say(self, submission: Submission, name: str) -> None:
        (run,) = list(submission.ids)[:1] or [""]
        headers = {"Idempotency-Key": f"{submission.token}/{name}"}
        body = {"data": {"token": submission.token}}
        path = f"/v1/runs/{run}/signals/{name}"
        await self.client.ask(submission.tenant, "POST", path, {202, 409}, json=body, headers=headers)

    async def cancel(self, submission: Submission, chance: random.Random) -> None:
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        await self._cancel(submission)

    async def cancel_in_plan(self, submission: Submission, chance: random.Random) -> None:
        while not self._holding(submission):
            await self._sampler.until(lambda: self._holding(submission), within_s=30)
        await self._cancel(submission)

    async def _cancel(self, submission: Submission) -> None:
        (run,) = list(submission.ids)[:1] or [""]
        answer = await self.client.ask(
            submission.tenant, "POST", f"/v1/runs/{run}/cancel", {202, 409}, json={"reason": "chaos"}
        )
        submission.cancelled = answer.status_code == 202


async def _nothing(load: Load, submission: Submission, chance: random.Random) -> None: ...


SCENES: dict[str, Callable[[Load, Submission, random.Random], Awaitable[None]]] = {
    "event": Load.pay,
    "signal": Load.signal,
    "answer": Load.answer,
    "pause": Load.pause,
    "cancel": Load.cancel,
    "cancel-plan": Load.cancel_in_plan,
}
