"""Whether a failed request goes again, and after how long (spec/runtime.md 5). Decides; never waits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Backoff = Literal["exponential", "linear", "constant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """`retry: { … }`, complete. Durations in seconds; `max_delay_seconds` None is the default of 30 s, never below `initial`."""

    max_attempts: int = 3
    backoff: Backoff = "exponential"
    initial_delay_seconds: float = 1.0
    max_delay_seconds: float | None = None
    delay_seconds: float | None = None
    jitter: float = 0.1

    def delay_before(self, attempt: int, random: Callable[[], float]) -> float:
        """Seconds to wait before attempt `attempt`, which is at least 2. `random` gives numbers in [0, 1).

        Raises:
            ValueError: there is no wait before the first attempt.
        """
        if attempt < 2:
            raise ValueError(f"no wait before attempt {attempt}")
        if self.delay_seconds is not None:
            return self.delay_seconds
        factor = {"exponential": 2.0 ** min(attempt - 2, 64), "linear": attempt - 1.0, "constant": 1.0}[self.backoff]
        spread = 1 + self.jitter * (2 * random() - 1)
        ceiling = max(30.0, self.initial_delay_seconds) if self.max_delay_seconds is None else self.max_delay_seconds
        return round(min(self.initial_delay_seconds * factor * spread, ceiling), 3)
