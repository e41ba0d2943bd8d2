"""Listens for what goes wrong, keeps the incidents, and hands their notices to the lanes (spec/daemon.md 6).

Judging is quick and happens where the happening is told; writing and sending have tasks of their own, so no run ever
waits for an alert. Order on disk: the outbox's files, then the incidents. A crash between the two judges the same
history again and finds the same ids.
"""

import asyncio
import shlex
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from reqon.clock import SYSTEM, Clock, rfc3339
from reqon.diagnostics import Diagnostic
from reqon.errors import StateError
from reqon.events import TOKENS_NOT_KEPT, AuthRefreshed, Emitted, EventBus, FetchFailed, MissionEnded
from reqon.files import DISK, FileSystem, failpoint, is_temporary, make_directory
from reqon.state.records import ExecutionRecord, ExecutionStatus
from reqon.values import JsonError, decode, encode
from reqon_daemon.delivery import Delivery
from reqon_daemon.happenings import (
    Happenings,
    MissionPaused,
    MissionsReloaded,
    MissionUnpaused,
    RunEnded,
    RunOutcome,
    SchedulerTicked,
    SlotDecided,
    SlotOutcome,
)
from reqon_daemon.health import Health
from reqon_daemon.incidents import (
    ENDED_BY_SUCCESS,
    Incident,
    Incidents,
    Kind,
    Notice,
    Report,
    Status,
    kind_of,
    report_of,
    succeeded,
    summary,
)
from reqon_daemon.metrics import Metrics
from reqon_daemon.notices import entry_for, notice_of
from reqon_daemon.outbox import Answer, Entry, Outbox, Sender
from reqon_daemon.targets import AlertmanagerTarget, LogTarget

REFRESH_SECONDS = 60.0
RESOLVED_KEPT = timedelta(minutes=5)
STALE_CHECK_SECONDS = 10.0
START_GRACE_SECONDS = 120.0
_SOFT_SAVE_SECONDS = 10.0
_REMEMBERED_GROUPS = 10_000

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What alerts need to know of a loaded mission. `freshness_limit_seconds` is None where no dead man watches."""

    name: str
    path: str = ""
    targets: tuple[Sender, ...] = ()
    registered_at: datetime
    last_success_at: datetime | None = None
    freshness_limit_seconds: float | None = None
    paused: bool = False


@dataclass(slots=True)
class Alerts:
    """The incidents of one daemon and their delivery.

    `load`, then `mission_loaded` for each mission, `judge_past` and `run`; `flush` before the end.

    Attributes:
        resume_options: the daemon's own options that the command to resume needs as well.
        set_aside: moves a file that cannot be read, which it is told with the reason; answers its new place.
    """

    directory: Path
    targets: Sequence[Sender] = ()
    instance: str = field(default_factory=socket.gethostname)
    repeat_seconds: float = 4 * 3600.0
    clock: Clock = SYSTEM
    disk: FileSystem = DISK
    metrics: Metrics | None = None
    health: Health | None = None
    resume_options: Sequence[str] = ()
    set_aside: Callable[[Path, str], Path | None] | None = None
    incidents: Incidents = field(init=False)
    outbox: Outbox = field(init=False)
    delivery: Delivery = field(init=False)
    _missions: dict[str, Watched] = field(default_factory=dict, init=False)
    _groups: dict[str, str] = field(default_factory=dict, init=False)
    _unkept: set[str] = field(default_factory=set, init=False)
    _unsaid: list[Notice] = field(default_factory=list, init=False)
    _changed: bool = field(default=False, init=False)
    _writing: bool = field(default=False, init=False)
    _wake: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _saved: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _began: float = field(default=0.0, init=False)
    _stale_checked: float = field(default=0.0, init=False)
    _soft_saved: float = field(default=0.0, init=False)
    _shown_active: set[tuple[str, str]] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.incidents = Incidents(self.instance, timedelta(seconds=self.repeat_seconds))
        self.outbox = Outbox(self.directory / "outbox", self.disk)
        self.delivery = Delivery(self.outbox, self.clock, self.metrics, self.health)
        self._began = self._soft_saved = self.clock.monotonic()
        self.targets = tuple(self.targets) or (LogTarget(),)

    @property
    def path(self) -> Path:
        return self.directory / "incidents.json"

    # --- life ---------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Read the incidents and undelivered alerts of earlier processes; what cannot be read is set aside."""
        make_directory(self.directory)
        for name in filter(is_temporary, self.disk.list(self.directory)):
            self.disk.remove(self.directory / name)
        self.outbox.load(self._aside)
        try:
            self.incidents.load(decode(self.disk.read(self.path)))
        except FileNotFoundError:
            pass
        except (OSError, JsonError, StateError) as error:
            if self._aside(self.path, f"cannot be used: {error}") is None:
                raise StateError(f"cannot use {self.path}: {error}") from error
            log.warning("the incidents cannot be read; they begin anew", file=str(self.path), error=str(error))
        self.delivery.add(self.targets)

    def _aside(self, path: Path, reason: str) -> Path | None:
        if self.set_aside is not None:
            return self.set_aside(path, reason)
        return path.rename(path.with_name(f"{path.name}.{self.clock.now():%Y%m%dT%H%M%SZ}.damaged"))

    async def run(self) -> None:
        """Write down and deliver until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.delivery.run())
            tasks.create_task(self._refresh())
            await self._keep()

    async def flush(self, seconds: float) -> bool:
        """Wait until all is written down and tried once, at most so long; whether it is."""
        try:
            async with asyncio.timeout(seconds):
                while self._unsaid or self._changed or self._writing:
                    self._saved.clear()
                    if self._unsaid or self._changed:
                        self._wake.set()
                    await self._saved.wait()
                await self.delivery.idle()
        except TimeoutError:
            return False
        return True

    # --- what is known of missions ------------------------------------------------------------------------------------

    def mission_loaded(self, watched: Watched) -> None:
        """Watch a mission from now on, or with what changed."""
        self._missions[watched.name] = watched
        self.incidents.begin(watched.name, self.clock.now())
        self.delivery.add(watched.targets)
        self._show_active()
        self._changed = True

    def freshness(self, name: str, limit_seconds: float | None) -> None:
        """The mission's dead man has another limit."""
        if watched := self._missions.get(name):
            self._missions[name] = replace(watched, freshness_limit_seconds=limit_seconds)

    def mission_removed(self, name: str) -> None:
        """The mission is gone, and what it had is over."""
        self._missions.pop(name, None)
        self._say(self.incidents.forget(name, self.clock.now()))

    def judge_past(self, records: Iterable[ExecutionRecord], *, retrying: Collection[str] = ()) -> None:
        """Judge, in order, the ends that nobody has judged. `retrying`: executions with a rerun planned."""
        news = [record for record in records if self.incidents.is_news(record)]
        for record in sorted(news, key=lambda r: (r.completed_at or r.started_at, r.execution_id)):
            self._judge(record, will_retry=record.execution_id in retrying)

    def crashed(self, records: Iterable[ExecutionRecord]) -> None:
        """Those executions were lost with their process."""
        for record in records:
            self._say(self.incidents.fire(self._completed(report_of(record, Kind.CRASHED, at=self.clock.now()))))

    def load_errors(self, broken: Mapping[str, Sequence[Diagnostic]]) -> None:
        """The files that cannot be loaded now: all of them, by path."""
        now = self.clock.now()
        for path, found in broken.items():
            first = next((d for d in found if d.severity == "error"), found[0] if found else None)
            text = first.message if first else "it cannot be read"
            report = Report(
                mission=path,
                kind=Kind.LOAD_ERROR,
                at=now,
                cause=blake2b(f"{path}\0{text}\0{now}".encode(), digest_size=8).hexdigest(),
                summary=summary(path, Kind.LOAD_ERROR, text),
                location=str(first.span) if first and first.span else None,
                error=text,
                hint=first.hint if first else None,
            )
            self._say(self.incidents.fire(report))
        mended = {m for m, kind in self.incidents.firing() if kind is Kind.LOAD_ERROR} - set(broken)
        for path in mended:
            self._say(self.incidents.end(path, (Kind.LOAD_ERROR,), now))

    # --- listening ----------------------------------------------------------------------------------------------------

    def observe(self, happenings: Happenings) -> None:
        """Hear what happens in the daemon."""
        happenings.on(RunEnded, self._on_run_ended)
        happenings.on(SlotDecided, self._on_slot)
        happenings.on(MissionsReloaded, lambda happening: self.load_errors(happening.broken))
        happenings.on(MissionPaused, lambda happening: self._on_pause(happening.mission, paused=True))
        happenings.on(MissionUnpaused, lambda happening: self._on_pause(happening.mission, paused=False))
        happenings.on(SchedulerTicked, self._on_tick)

    def listen(self, bus: EventBus) -> None:
        """Hear which source a run failed on: what makes several missions' failures one incident."""
        bus.on(FetchFailed, self._on_fetch_failed)
        bus.on(MissionEnded, self._on_mission_ended)
        bus.on(AuthRefreshed, self._on_tokens)

    def _on_fetch_failed(self, emitted: Emitted) -> None:
        if len(self._groups) >= _REMEMBERED_GROUPS:
            self._groups.pop(next(iter(self._groups)))
        self._groups[emitted.execution_id] = _group(emitted)

    def _on_mission_ended(self, emitted: Emitted) -> None:
        if emitted.status == ExecutionStatus.COMPLETED:
            self._groups.pop(emitted.execution_id, None)

    def _on_tokens(self, emitted: Emitted) -> None:
        """New tokens that could not be kept: the run goes on, but the next start would find used ones."""
        mission, error = emitted.mission, emitted.error or ""
        if error.startswith(TOKENS_NOT_KEPT):
            self._unkept.add(mission)
            report = Report(
                mission=mission,
                kind=Kind.AUTH_EXPIRED,
                at=emitted.timestamp,
                cause=f"{emitted.execution_id} tokens of {emitted.source}",
                summary=f"{mission}: {TOKENS_NOT_KEPT}",
                execution_id=emitted.execution_id,
                error=error,
                hint="keep this daemon running until its state directory can be written",
            )
            self._say(self.incidents.fire(self._completed(report)))
        elif emitted.success and mission in self._unkept:
            self._unkept.discard(mission)
            self._say(self.incidents.end(mission, (Kind.AUTH_EXPIRED,), emitted.timestamp))
        if self.health is not None:
            tokens = f"tokens of {emitted.source}"
            reasons = (f"{tokens} could not be kept",) if error.startswith(TOKENS_NOT_KEPT) else ()
            self.health.concern(tokens, reasons)

    def _put_right(self, mission: str) -> frozenset[Kind]:
        """What a success of the mission ends: it does not write down tokens."""
        return ENDED_BY_SUCCESS - {Kind.AUTH_EXPIRED} if mission in self._unkept else ENDED_BY_SUCCESS

    def _on_run_ended(self, happening: RunEnded) -> None:
        if happening.outcome is RunOutcome.SUCCESS:
            watched = self._missions.get(happening.mission)
            if watched is not None:
                self._missions[happening.mission] = replace(watched, last_success_at=happening.at)
        record = happening.record
        if record is not None and record.completed_at is not None:
            self._judge(record, will_retry=happening.will_retry, error_type=happening.error_type)
        elif happening.outcome is RunOutcome.SUCCESS:
            self._say(self.incidents.end(happening.mission, self._put_right(happening.mission), happening.at))
        elif happening.outcome is RunOutcome.FAILURE and not happening.will_retry:
            self._say(self.incidents.fire(self._unrecorded(happening)))

    def _on_slot(self, happening: SlotDecided) -> None:
        mission = happening.mission
        if happening.outcome.runs:
            self._say(self.incidents.end(mission, (Kind.SLOT_MISSED,), happening.at))
        elif happening.outcome is SlotOutcome.MISSED:
            report = Report(
                mission=mission,
                kind=Kind.SLOT_MISSED,
                at=happening.at,
                cause=rfc3339(happening.due),
                summary=f"{summary(mission, Kind.SLOT_MISSED)}: {rfc3339(happening.due)}, {happening.reason}",
                error=happening.reason,
            )
            self._say(self.incidents.fire(self._completed(report)))

    def _on_pause(self, mission: str, *, paused: bool) -> None:
        if watched := self._missions.get(mission):
            self._missions[mission] = replace(watched, paused=paused)

    def _on_tick(self, happening: SchedulerTicked) -> None:
        now = self.clock.monotonic()
        self._say(self.incidents.due(happening.at))
        if now - self._stale_checked >= STALE_CHECK_SECONDS and now - self._began >= START_GRACE_SECONDS:
            self._stale_checked = now
            stale = {mission for mission, kind in self.incidents.firing() if kind is Kind.STALE}
            for watched in tuple(self._missions.values()):
                self._check_freshness(watched, happening.at, firing=watched.name in stale)
        if self._changed and now - self._soft_saved >= _SOFT_SAVE_SECONDS:
            self._wake.set()

    def _check_freshness(self, watched: Watched, now: datetime, *, firing: bool) -> None:
        since = max(watched.last_success_at or watched.registered_at, watched.registered_at)
        limit = watched.freshness_limit_seconds
        stale = limit is not None and not watched.paused and (now - since).total_seconds() > limit
        if stale and not firing:
            never = watched.last_success_at is None
            text = f"{'never, loaded' if never else 'last success'} {rfc3339(since)}; the limit is {limit:.0f} s"
            report = Report(
                mission=watched.name,
                kind=Kind.STALE,
                at=now,
                cause=rfc3339(since),
                summary=summary(watched.name, Kind.STALE, text),
                error=text,
            )
            self._say(self.incidents.fire(self._completed(report)))
        elif firing and not stale:
            self._say(self.incidents.end(watched.name, (Kind.STALE,), now))

    # --- judging ------------------------------------------------------------------------------------------------------

    def _judge(self, record: ExecutionRecord, *, will_retry: bool, error_type: str | None = None) -> None:
        at = record.completed_at or self.clock.now()
        if succeeded(record):
            self._say(self.incidents.end(record.mission, self._put_right(record.mission), at))
        elif record.status is ExecutionStatus.FAILED and not will_retry:
            kind = kind_of(error_type) if error_type else None
            group = self._groups.pop(record.execution_id, None)
            self._say(self.incidents.fire(self._completed(report_of(record, kind, group=group))))
        self.incidents.note(record.mission, at, record.execution_id)
        self._changed = True  # the next write should hold it; nobody waits for it

    def _unrecorded(self, happening: RunEnded) -> Report:
        kind = kind_of(happening.error_type)
        return self._completed(
            Report(
                mission=happening.mission,
                kind=kind,
                at=happening.at,
                cause=happening.execution_id or rfc3339(happening.at),
                summary=summary(happening.mission, kind, happening.error),
                execution_id=happening.execution_id,
                trigger=str(happening.trigger),
                duration_seconds=happening.duration_seconds,
                error=happening.error,
                error_type=happening.error_type,
            )
        )

    def _completed(self, report: Report) -> Report:
        """The report with what only the daemon knows: the last success, and how to go on."""
        watched = self._missions.get(report.mission)
        if watched is None:
            return report
        resume = None
        if report.execution_id is not None:
            path = watched.path or report.mission
            resume = shlex.join(["reqon", path, *self.resume_options, "--resume", "--execution", report.execution_id])
        return replace(report, last_success=watched.last_success_at, resume=resume)

    # --- saying -------------------------------------------------------------------------------------------------------

    def _say(self, notices: Iterable[Notice]) -> None:
        for notice in notices:
            self._unsaid.append(notice)
            self._changed = True
            self._wake.set()

    async def _keep(self) -> None:
        """Write down what there is to say, then let the lanes say it."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            notices, self._unsaid = self._unsaid, []
            self._changed, self._writing = False, True
            self._soft_saved = self.clock.monotonic()
            entries = [entry for notice in notices for entry in self._entries(notice)]
            # Taken now, in this thread: the state that goes with exactly these notices.
            state = self._state()
            fresh = await asyncio.to_thread(self._write, entries, state)
            self._show_active()
            self.delivery.wake(fresh)
            self._writing = False
            self._saved.set()

    def _state(self) -> bytes | None:
        """The incidents as they are written down. None: a fault of ours; what there is to say is said all the same."""
        try:
            return encode(self.incidents.to_value(), pretty=True) + b"\n"
        except Exception:  # a wall: whoever is on call must hear of a failure, and missions go on
            log.exception("the incidents have no form on disk")
            return None

    def _write(self, entries: Sequence[Entry], state: bytes | None) -> list[Entry]:
        fresh = self.outbox.add(entries)
        failpoint("before-incidents-write")
        if state is None:
            return fresh
        try:
            self.disk.replace(self.path, state, "incidents")
        except OSError as error:
            problem = "the incidents cannot be written down"
            log.error(problem, error=str(error))  # noqa: TRY400  # the disk's fault, no bug
            if self.metrics is not None:
                self.metrics.state_write_errors.inc()
        return fresh

    def _entries(self, notice: Notice) -> Iterable[Entry]:
        """One entry per target; repeats and updates only where the last word is out."""
        for sender in self._senders(notice.incident):
            if notice.status in (Status.REPEAT, Status.UPDATE):
                waiting = self.outbox.waiting_for(sender.key, notice.incident.id)
                if notice.status is Status.REPEAT and waiting:
                    continue
            yield entry_for(sender, notice, self.instance)

    def _senders(self, incident: Incident) -> Iterable[Sender]:
        senders = {sender.key: sender for sender in self.targets}
        for mission in incident.everyone:
            if watched := self._missions.get(mission):
                senders |= {sender.key: sender for sender in watched.targets}
        if len(senders) > 1 and all(isinstance(s, LogTarget) for s in self.targets):
            senders.pop(LogTarget().key, None)  # the log stands in only where there is nobody else
        return senders.values()

    # --- Alertmanager forgets what it isn't told again ----------------------------------------------------------------

    async def _refresh(self) -> None:
        while True:
            await self.clock.sleep(REFRESH_SECONDS)
            now = self.clock.now()
            self.delivery.drop_unclaimed(now)
            resolved = self.incidents.resolved_since(now - RESOLVED_KEPT)
            for sender in self.delivery.senders:
                if isinstance(sender, AlertmanagerTarget):
                    await self._refresh_one(sender, resolved)

    async def _refresh_one(self, sender: AlertmanagerTarget, resolved: Sequence[Notice]) -> None:
        firing = [
            (notice_of(Notice(id="", status=Status.REPEAT, at=i.notified_at, incident=i), self.instance), False)
            for i in self.incidents.incidents.values()
        ]
        shown_again = {notice["fingerprint"] for notice, _ in firing}
        over = [(notice_of(notice, self.instance), True) for notice in resolved]
        pairs = firing + [pair for pair in over if pair[0]["fingerprint"] not in shown_again]
        if pairs:
            outcome = await sender.refresh(pairs)
            if outcome.answer is not Answer.DELIVERED:
                log.warning("alerts could not be refreshed", target=sender.shown, reason=outcome.reason)

    # --- metrics ------------------------------------------------------------------------------------------------------

    def _show_active(self) -> None:
        if self.metrics is None:
            return
        firing = {(mission, str(kind)) for mission, kind in self.incidents.firing()}
        resting = {(m, str(k)) for m in self._missions for k in ENDED_BY_SUCCESS if k is not Kind.TEST}
        for mission, kind in (firing | resting) - self._shown_active:
            self.metrics.alert_active.at(mission, kind).set((mission, kind) in firing)
        for mission, kind in self._shown_active:
            if (mission, kind) in firing or (mission, kind) in resting:
                self.metrics.alert_active.at(mission, kind).set((mission, kind) in firing)
            else:
                self.metrics.alert_active.drop(mission=mission)
        self._shown_active = firing | resting


def _group(failed: Emitted) -> str:
    """What failures of several missions have in common: the API, since names belong to missions, and the way."""
    parts = urlsplit(failed.url)
    status = failed.status_code
    way = "5xx" if status is not None and status >= 500 else str(status or "")  # a server's own trouble
    return f"{parts.scheme}://{parts.netloc} {failed.kind} {way}"
