"""Where tool code runs: gVisor, Docker and plain-process drivers behind one protocol."""

from agentflow.sandbox.choice import check_driver, open_sandbox
from agentflow.sandbox.job import RETRYABLE, Code, Job, Outcome, Profile, Sandbox

__all__ = ["RETRYABLE", "Code", "Job", "Outcome", "Profile", "Sandbox", "check_driver", "open_sandbox"]
