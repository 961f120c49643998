"""A token bucket: so many per second on average, and at most ``burst`` at once. Time is an argument, in seconds."""

from __future__ import annotations

_NEARLY = 1e-9  # what rounding may take from a token


class Bucket:
    """Starts with ``burst`` tokens when ``full``, else with none: who does not know what was spent spends nothing."""

    __slots__ = ("_at", "_tokens", "burst", "per_second")

    def __init__(self, per_second: float, burst: float, now: float, *, full: bool) -> None:
        self.per_second = per_second
        self.burst = burst
        self._tokens = burst if full else 0.0
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until a token can be taken; 0 when one is there."""
        self._fill(now)
        missing = 1 - self._tokens
        return missing / self.per_second if missing > _NEARLY else 0.0

    def take(self, now: float) -> None:
        """Take a token; ask ``wait`` first."""
        self._fill(now)
        self._tokens -= 1

    def give(self) -> None:
        """Put a token back that was taken for nothing."""
        self._tokens = min(self.burst, self._tokens + 1)

    def change(self, per_second: float, burst: float, now: float) -> None:
        """Go on at another rate with the tokens that are there."""
        self._fill(now)
        self.per_second, self.burst = per_second, burst
        self._tokens = min(self._tokens, burst)

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.per_second)
            self._at = now
