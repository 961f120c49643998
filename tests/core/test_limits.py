"""Limits: which scopes count what, who may set which, and what has to wait."""

from __future__ import annotations

from uuid import UUID

import pytest

from agentflow.core.limits import OPERATOR, Limit, Limits, check, checked_scope, scopes_of
from agentflow.errors import Rejected

A, B = UUID(int=0xA), UUID(int=0xB)


def counted(tenant: UUID, gate: str) -> set[tuple[UUID, str]]:
    scopes = scopes_of(tenant, gate)
    return {*scopes.own, *scopes.shared}


def test_a_call_is_counted_for_its_name_and_its_kind_by_the_tenant_and_by_the_operator() -> None:
    assert counted(A, "model:gpt:4") == {
        (A, "model:gpt:4"), (A, "model:*"), (OPERATOR, "model:gpt:4"), (OPERATOR, "model:*"),
    }  # fmt: skip
    assert (
        scopes_of(A, "tool:x").resource == scopes_of(B, "tool:x").resource != scopes_of(A, "tool:y").resource
    )


def test_a_run_is_counted_for_its_workflow_and_its_tenant_by_the_tenant_and_by_the_operator() -> None:
    assert counted(A, "workflow:w") == {
        (A, "workflow:w"), (A, "tenant"), (OPERATOR, "workflow:w"), (OPERATOR, f"tenant:{A}"), (OPERATOR, "tenant"),
    }  # fmt: skip
    assert scopes_of(A, "workflow:w").resource == scopes_of(B, "workflow:v").resource


@pytest.mark.parametrize(
    ("tenant", "scope", "waits"),
    [
        (A, "model:m", {"model:m"}),
        (A, "model:*", {"model:m", "model:n"}),
        (A, "tool:t", {"tool:t"}),
        (A, "workflow:w", {"workflow:w"}),
        (A, "tenant", {"workflow:w", "workflow:v"}),
        (OPERATOR, "model:m", {"model:m"}),
        (OPERATOR, "tenant", {"workflow:w", "workflow:v"}),
        (OPERATOR, f"tenant:{A}", {"workflow:w", "workflow:v"}),
        (OPERATOR, f"tenant:{B}", set()),
        (B, "tenant", set()),
        (B, "model:*", set()),
    ],
)
def test_only_what_a_limit_counts_has_to_wait_for_it(tenant: UUID, scope: str, waits: set[str]) -> None:
    limits = Limits([(tenant, scope, Limit(concurrency=1))])
    gates = ("model:m", "model:n", "tool:t", "workflow:w", "workflow:v")
    assert {gate for gate in gates if limits.bind(A, gate)} == waits


def test_a_weight_alone_makes_nobody_wait() -> None:
    limits = Limits([(OPERATOR, f"tenant:{A}", Limit(weight=7))])
    assert limits.weights() == {A: 7}
    assert not limits.any
    assert not limits.bind(A, "workflow:w")


def test_a_tenants_limits_are_told_as_a_whole() -> None:
    limits = Limits([(A, "tenant", Limit(1)), (A, "model:m", Limit(1)), (B, "tenant", Limit(1))])
    assert limits.bind(A, "workflow:w")
    limits.tell([A], [(A, "model:m", Limit(2))])
    assert not limits.bind(A, "workflow:w")
    assert limits.get((A, "model:m")) == Limit(2)
    assert limits.bind(B, "workflow:w")
    limits.tell([A, B], [])
    assert not limits.any
    assert not limits.bind(B, "workflow:w")


@pytest.mark.parametrize(
    "text",
    [
        "tenant",
        "workflow:a",
        "workflow:a-b_9",
        "model:gpt-5",
        "model:openai/gpt:5",
        "model:*",
        "tool:std.echo",
        "tool:*",
    ],
)
def test_scopes_of_a_tenant(text: str) -> None:
    assert checked_scope(text, A) == text
    assert checked_scope(text, OPERATOR) == text


def test_a_tenants_own_scope_is_the_operators_and_is_kept_in_one_spelling() -> None:
    assert checked_scope(f"tenant:{str(A).upper()}", OPERATOR) == f"tenant:{A}"
    with pytest.raises(Rejected, match="operator") as refused:
        checked_scope(f"tenant:{A}", A)
    assert refused.value.problem.path == "scope"


@pytest.mark.parametrize(
    "text",
    ["", "x", "tenants", "tenant:", "tenant:x", "workflow:", "workflow:*", "workflow:A", "workflow:a b", "model:",
     "tool:", "model:a b", "model:a\n", "tool:" + "x" * 129, "step:x", "intake"],
)  # fmt: skip
def test_what_is_no_scope_is_refused_with_a_mend(text: str) -> None:
    with pytest.raises(Rejected) as refused:
        checked_scope(text, OPERATOR)
    assert refused.value.problem.path == "scope"
    assert refused.value.problem.mend


def test_limits_that_mean_nothing_are_refused_with_path_and_mend() -> None:
    for scope, tenant, limit, path in (
        ("tenant", A, Limit(), "concurrency"),
        ("tenant", A, Limit(concurrency=1, burst=3), "burst"),
        ("tenant", A, Limit(concurrency=1, weight=2), "weight"),
        ("model:m", OPERATOR, Limit(concurrency=1, weight=2), "weight"),
    ):
        with pytest.raises(Rejected) as refused:
            check(scope, tenant, limit)
        assert refused.value.problem.path == path
        assert refused.value.problem.mend
    check("tenant", A, Limit(concurrency=0))
    check("model:*", A, Limit(per_second=0.5, burst=3))
    check(f"tenant:{A}", OPERATOR, Limit(weight=3))


def test_the_burst_is_a_seconds_worth_unless_said_otherwise() -> None:
    assert Limit(per_second=0.2).depth == 1
    assert Limit(per_second=2.5).depth == 3
    assert Limit(per_second=100, burst=7).depth == 7
