"""Limit a rate of bytes over time. No clock: the caller gives the time. Called by the publisher."""


class Pace:
    """Allows `rate` bytes a second, and `burst` bytes at once after a pause."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst_s = burst / rate
        self._paid_until = 0.0

    def spend(self, size: int, now: float) -> None:
        """Count bytes that were sent."""
        self._paid_until = max(self._paid_until, now - self._burst_s) + size / self._rate

    def allowed_at(self, now: float) -> float:
        """Return when more may be sent: `now`, or later."""
        return max(now, self._paid_until)
