"""One tree of errors; the type says what the caller may do next.

AgentFlowError
├── Rejected          terminal: trying again changes nothing; carries code, path and mend
│   ├── Invalid       many problems at once, each with its path
│   └── Exhausted     money is in the way; carries the account that is short
│       └── TooDear   what was asked for may cost more than there is; carries the estimate, too
├── Conflict          the same key with another content, or a state that forbids the request
├── RetryLater        try again after ``after`` seconds
├── Unreadable        stored by another version: a host of that one may go on; parked after a few tries
└── UnknownOutcome    an external effect may or may not have happened; never retried blindly
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in an input: where it is, what it is, how to mend it.

    ``path`` addresses the document (``states.triage.transitions[0].if``), ``code`` is stable for machines.
    ``severity``: an ``error`` refuses the input, a ``warning`` is only told.
    """

    path: str
    message: str
    mend: str = ""
    code: str = "invalid"
    severity: str = "error"

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}" if self.path else self.message
        return f"{text} ({self.mend})" if self.mend else text


class AgentFlowError(Exception):
    """The root: everything AgentFlow raises on purpose."""


class Rejected(AgentFlowError):
    """Terminal: the same input fails the same way."""

    def __init__(self, message: str, *, code: str = "rejected", path: str = "", mend: str = "") -> None:
        super().__init__(message)
        self.problem = Problem(path, message, mend, code)

    @property
    def code(self) -> str:
        return self.problem.code

    @property
    def members(self) -> Mapping[str, Any]:
        """What a problem document says of it besides."""
        return {}

    def __str__(self) -> str:
        return str(self.problem)


class Invalid(Rejected):
    """An input with one or more faults, each addressed by path."""

    def __init__(self, problems: Sequence[Problem], *, code: str = "") -> None:
        first = problems[0]
        super().__init__(first.message, code=code or first.code, path=first.path, mend=first.mend)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "; ".join(map(str, self.problems))


class Exhausted(Rejected):
    """A budget has nothing left, or not enough. ``account`` is what it says: limit, spent, held, remaining, reset."""

    def __init__(
        self,
        message: str,
        account: Mapping[str, Any],
        *,
        code: str = "budget_exhausted",
        path: str = "",
        mend: str = "",
    ) -> None:
        super().__init__(message, code=code, path=path, mend=mend)
        self.account = account

    @property
    def members(self) -> Mapping[str, Any]:
        return {"budget": self.account}


class TooDear(Exhausted):
    """A run may cost more than it, or an account of its tenant, may spend. ``estimate``: what it may cost."""

    def __init__(
        self, message: str, estimate: Mapping[str, Any], account: Mapping[str, Any], *, path: str, mend: str
    ) -> None:
        super().__init__(message, account, code="estimate_exceeds_budget", path=path, mend=mend)
        self.estimate = estimate

    @property
    def members(self) -> Mapping[str, Any]:
        return {"estimate": self.estimate, **super().members}


class Conflict(AgentFlowError):
    """The request contradicts what is already recorded."""

    def __init__(self, message: str, *, code: str = "conflict") -> None:
        super().__init__(message)
        self.code = code


class RetryLater(AgentFlowError):
    """A passing fault: the same request may succeed after ``after`` seconds."""

    def __init__(self, message: str, *, after: float = 1.0, code: str = "retry_later") -> None:
        super().__init__(message)
        self.after = after
        self.code = code


class Unreadable(AgentFlowError):
    """What was stored by another version of us is not understood by this one."""


class UnknownOutcome(AgentFlowError):
    """An external effect was begun and its outcome is not known."""

    def __init__(self, message: str, *, code: str = "outcome_unknown") -> None:
        super().__init__(message)
        self.code = code
