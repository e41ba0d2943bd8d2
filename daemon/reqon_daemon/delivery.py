"""The lanes to all targets, and what is known of how they fare (spec/daemon.md 6)."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from reqon.clock import SYSTEM, Clock
from reqon_daemon.health import Health
from reqon_daemon.metrics import Metrics
from reqon_daemon.outbox import KEEP_FOR, Answer, Entry, Lane, Outbox, Outcome, Sender
from reqon_daemon.targets import log_notice

_FAILURES_TO_WORRY = 3

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Delivery:
    """Hands the outbox's entries to their targets, a lane each, from `run` on."""

    outbox: Outbox
    clock: Clock = SYSTEM
    metrics: Metrics | None = None
    health: Health | None = None
    _lanes: dict[str, Lane] = field(default_factory=dict, init=False)
    _tasks: asyncio.TaskGroup | None = field(default=None, init=False)
    _troubles: dict[str, int] = field(default_factory=dict, init=False)

    def add(self, senders: Iterable[Sender]) -> None:
        """Deliver to these targets too."""
        for sender in senders:
            if sender.key in self._lanes:
                continue
            lane = self._lanes[sender.key] = Lane(sender, self.outbox, self.clock, self._told)
            if self._tasks is not None:
                self._tasks.create_task(lane.run())
            self._show_pending(sender.key)

    @property
    def senders(self) -> Iterator[Sender]:
        return (lane.sender for lane in tuple(self._lanes.values()))

    async def run(self) -> None:
        """Deliver until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for lane in self._lanes.values():
                    tasks.create_task(lane.run())
                await asyncio.Event().wait()  # targets may still come
        finally:
            self._tasks = None
            for sender in self.senders:
                await sender.close()

    def wake(self, entries: Iterable[Entry]) -> None:
        """These are new in the outbox."""
        for entry in entries:
            self._show_pending(entry.target)
            self._lanes[entry.target].wake()

    async def idle(self) -> None:
        """Wait until each lane has nothing in flight."""
        for lane in tuple(self._lanes.values()):
            await lane.idle.wait()

    def drop_unclaimed(self, now: datetime) -> None:
        """Entries for a target that is no longer configured are kept as long as any, then told to the log."""
        for entry in list(self.outbox.entries.values()):
            if entry.target not in self._lanes and now - entry.created_at >= KEEP_FOR:
                log_notice(entry)
                self.outbox.remove(entry)

    def _told(self, entry: Entry, outcome: Outcome) -> None:
        """A lane tried."""
        sender = self._lanes[entry.target].sender
        if self.metrics is not None:
            self.metrics.alerts_sent.at(sender.shown, outcome.answer).inc()
        self._show_pending(entry.target, less=entry if outcome.answer is not Answer.LATER else None)
        if outcome.answer is Answer.DELIVERED:
            self._troubles.pop(sender.shown, None)
            self._worry(sender.shown, worried=False)
            log.info("alert delivered", target=sender.shown, alert_id=entry.id, status=str(entry.status))
            return
        number = self._troubles[sender.shown] = self._troubles.get(sender.shown, 0) + 1
        if outcome.answer is Answer.REJECTED:
            log.error("alert refused by its target", target=sender.shown, alert_id=entry.id, reason=outcome.reason)
            log_notice(entry)  # the log is the last one to tell
            self._worry(sender.shown, worried=True)
        else:
            log.warning("alert not delivered yet", target=sender.shown, alert_id=entry.id, reason=outcome.reason)
            self._worry(sender.shown, worried=number >= _FAILURES_TO_WORRY)

    def _worry(self, shown: str, *, worried: bool) -> None:
        if self.health is not None:
            reasons = (f"alerts to {shown} are not delivered",) if worried else ()
            self.health.concern(f"alerts to {shown}", reasons)

    def _show_pending(self, key: str, *, less: Entry | None = None) -> None:
        if self.metrics is not None and (lane := self._lanes.get(key)):
            number = len(self.outbox.of(key)) - (less is not None and less.file_name in self.outbox.entries)
            self.metrics.alerts_pending.at(lane.sender.shown).set(number)
