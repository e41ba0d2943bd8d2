"""What `/health`, `/livez` and `/readyz` say (spec/daemon.md 5). Looks at nobody else's API; changes nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from reqon.clock import SYSTEM, Clock
from reqon.secrets import SECRETS
from reqon.values import encode
from reqon_daemon.exposition import JSON, Page, Route

TICK_LIMIT_SECONDS = 60.0
_LOCK_LOST = "the state directory is not this daemon's any more: it was removed or replaced; restart the daemon"


@dataclass(slots=True)
class Health:
    """The daemon's condition. The main thread writes, the side thread reads: each field is replaced, never changed.

    Attributes:
        phase: loading, recovering, ready or draining; only `ready` is.
        lock_held: whether the state directory is still ours.
        concerns: what is wrong but stops nothing, by subject: load errors, undeliverable alerts, a full disk.
    """

    clock: Clock = SYSTEM
    phase: str = "loading"
    missions_loaded: int = 0
    lock_held: Callable[[], bool] = bool
    concerns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _started: float = field(init=False)
    _ticked: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self._ticked = self.clock.monotonic()

    def ticked(self) -> None:
        """The scheduler's loop came round."""
        self._ticked = self.clock.monotonic()

    def concern(self, subject: str, reasons: tuple[str, ...] = ()) -> None:
        """Say what is wrong about a subject from now on; nothing: all is well with it."""
        others = {name: said for name, said in self.concerns.items() if name != subject}
        self.concerns = others | {subject: reasons} if reasons else others

    @property
    def reasons(self) -> tuple[str, ...]:
        """All that is wrong, one sentence each, redacted."""
        lost = () if self.phase == "loading" or self.lock_held() else (_LOCK_LOST,)
        return lost + tuple(SECRETS.redact(reason) for reasons in self.concerns.values() for reason in reasons)

    def tick_age_seconds(self) -> float:
        return self.clock.monotonic() - self._ticked

    def routes(self) -> dict[str, Route]:
        """The three paths and their aliases."""
        health, live, ready = self._health, self._live, self._ready
        return {
            "/health": health,
            "/healthz": health,
            "/livez": live,
            "/-/healthy": live,
            "/readyz": ready,
            "/-/ready": ready,
        }

    def _health(self, _headers: Mapping[str, str]) -> Page:
        told: dict[str, object] = {
            "status": "ok",
            "uptime": int(self.clock.monotonic() - self._started),
            "missionsLoaded": self.missions_loaded,
        }
        if reasons := self.reasons:
            told |= {"status": "degraded", "degraded": list(reasons)}
        return Page(encode(told) + b"\n", JSON)

    def _live(self, _headers: Mapping[str, str]) -> Page:
        age = self.tick_age_seconds()
        if age > TICK_LIMIT_SECONDS:
            return Page(f"the scheduler last ticked {age:.0f} s ago\n".encode(), status=503)
        if not self.lock_held():
            return Page(f"{_LOCK_LOST}\n".encode(), status=503)
        return Page(b"ok\n")

    def _ready(self, _headers: Mapping[str, str]) -> Page:
        return Page(b"ok\n") if self.phase == "ready" else Page(f"{self.phase}\n".encode(), status=503)
