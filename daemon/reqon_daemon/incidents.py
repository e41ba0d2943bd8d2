"""Which failures are one incident, and what must be said about it when (spec/daemon.md 6). Decides; does no I/O.

An incident belongs to a mission and a kind of trouble: ok, firing, resolved. Missions that fail on the same source in
the same way within a minute join it. All ids are made from what caused them, so that the same history, judged again
after a crash, gives the same notices.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import blake2b

from reqon.state.records import ExecutionRecord, ExecutionStatus
from reqon.values import Value, convert, to_builtins

JOIN_WINDOW = timedelta(seconds=60)
_AUTH_KINDS = frozenset(("auth",))


class Kind(StrEnum):
    """What an incident is about."""

    FAILED = "failed"
    STALE = "stale"
    STUCK = "stuck"
    TIMEOUT = "timeout"
    SLOT_MISSED = "slot_missed"
    LOAD_ERROR = "load_error"
    AUTH_EXPIRED = "auth_expired"
    CRASHED = "crashed"
    TEST = "test"

    @property
    def severity(self) -> str:
        """A word that Alertmanager routes and PagerDuty know."""
        if self in (Kind.STALE, Kind.CRASHED):
            return "critical"
        return "warning" if self in (Kind.SLOT_MISSED, Kind.LOAD_ERROR) else "error"

    @property
    def alert_name(self) -> str:
        """`ReqonMissionFailed`, `ReqonLoadError`: the label `alertname`."""
        words = "".join(word.capitalize() for word in self.split("_"))
        return f"Reqon{words}" if self in (Kind.SLOT_MISSED, Kind.LOAD_ERROR, Kind.TEST) else f"ReqonMission{words}"


# What a mission's success puts right. A load error ends when the file loads.
ENDED_BY_SUCCESS = frozenset(kind for kind in Kind if kind is not Kind.LOAD_ERROR)


class Status(StrEnum):
    """What a notice says."""

    FIRING = "firing"  # the first one
    UPDATE = "update"  # missions joined
    REPEAT = "repeat"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One failure, as people need it at night. `cause` tells it from others: an execution and attempt, a slot, a hash.

    Attributes:
        group: source and error class, where several missions may fail for one reason.
        location: `file:line:col` of the failed step.
        resume: the command that goes on with it.
    """

    mission: str
    kind: Kind
    at: datetime
    cause: str
    summary: str
    group: str | None = None
    execution_id: str | None = None
    trigger: str | None = None
    started_at: datetime | None = None
    duration_seconds: float | None = None
    action: str | None = None
    step: str | None = None
    location: str | None = None
    error: str | None = None
    error_type: str | None = None
    hint: str | None = None
    items_processed: int | None = None
    last_success: datetime | None = None
    resume: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Trouble that is not over. `members` still have it, `everyone` had; `report` is the latest."""

    id: str
    mission: str
    kind: Kind
    started_at: datetime
    notified_at: datetime
    members: tuple[str, ...]
    everyone: tuple[str, ...]
    report: Report
    group: str | None = None
    update_at: datetime | None = None
    notices: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something to say about an incident. The same `id` means the same thing said again."""

    id: str
    status: Status
    at: datetime
    incident: Incident


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The newest end of an execution that was looked at."""

    at: datetime
    execution_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """What lies in `incidents.json`."""

    incidents: list[Incident]
    judged: dict[str, Judged]
    resolved: list[Notice] = field(default_factory=list)


@dataclass(slots=True)
class Incidents:
    """All incidents of one instance, and how far each mission is judged. Every change is answered with its notices."""

    instance: str
    repeat_after: timedelta = timedelta(hours=4)
    incidents: dict[str, Incident] = field(default_factory=dict)
    resolved: list[Notice] = field(default_factory=list)  # the latest, for targets that must be told again
    judged: dict[str, Judged] = field(default_factory=dict)

    def fire(self, report: Report) -> list[Notice]:
        """The first notice of a new incident; nothing yet from a mission that joins one, or fails on."""
        known = self._of(report.mission, report.kind)
        if known is not None:
            self.incidents[known.id] = _joined(known, report) if report.mission not in known.members else known
            self._keep_report(known.id, report)
            return []
        host = self._host(report)
        if host is not None:
            self.incidents[host.id] = _joined(host, report)
            return []
        incident = Incident(
            id=self._id(report),
            mission=report.mission,
            kind=report.kind,
            started_at=report.at,
            notified_at=report.at,
            members=(report.mission,),
            everyone=(report.mission,),
            report=report,
            group=report.group,
        )
        self.incidents[incident.id] = incident
        return [Notice(id=f"{incident.id}-firing", status=Status.FIRING, at=report.at, incident=incident)]

    def end(self, mission: str, kinds: Iterable[Kind], at: datetime) -> list[Notice]:
        """The mission no longer has these troubles; resolves incidents that nobody has any more."""
        ended: list[Notice] = []
        for kind in kinds:
            known = self._of(mission, kind)
            if known is None or mission not in known.members:
                continue
            left = tuple(member for member in known.members if member != mission)
            if left:
                self.incidents[known.id] = replace(known, members=left)
                continue
            del self.incidents[known.id]
            over = replace(known, members=())
            ended.append(Notice(id=f"{known.id}-resolved", status=Status.RESOLVED, at=at, incident=over))
        self.resolved += ended
        return ended

    def resolved_since(self, at: datetime) -> list[Notice]:
        """The resolved notices from then on; older ones are forgotten."""
        self.resolved = [notice for notice in self.resolved if notice.at >= at]
        return self.resolved

    def due(self, now: datetime) -> list[Notice]:
        """Updates and repeats whose time has come."""
        said: list[Notice] = []
        for incident in tuple(self.incidents.values()):
            if incident.update_at is not None and now >= incident.update_at:
                status = Status.UPDATE
            elif now - incident.notified_at >= self.repeat_after:
                status = Status.REPEAT
            else:
                continue
            number = incident.notices + 1
            told = replace(incident, notified_at=now, update_at=None, notices=number)
            self.incidents[incident.id] = told
            said.append(Notice(id=f"{incident.id}-{status}-{number}", status=status, at=now, incident=told))
        return said

    def firing(self) -> Iterable[tuple[str, Kind]]:
        """Every mission that has a trouble now, with its kind."""
        for incident in self.incidents.values():
            for member in incident.members:
                yield member, incident.kind

    def forget(self, mission: str, at: datetime) -> list[Notice]:
        """The mission is gone: what it had is over."""
        notices = self.end(mission, Kind, at)
        self.judged.pop(mission, None)
        return notices

    # --- judging ---

    def begin(self, mission: str, at: datetime) -> None:
        """Judge what ends from now on; nothing if it is judged already."""
        self.judged.setdefault(mission, Judged(at=at))

    def is_news(self, record: ExecutionRecord) -> bool:
        """Whether this end comes after all that was judged."""
        known = self.judged.get(record.mission)
        if record.completed_at is None or known is None:
            return record.completed_at is not None
        return (record.completed_at, record.execution_id) > (known.at, known.execution_id)

    def note(self, mission: str, at: datetime, execution_id: str) -> None:
        """Remember that this end was judged."""
        known = self.judged.get(mission)
        if known is None or (at, execution_id) > (known.at, known.execution_id):
            self.judged[mission] = Judged(at=at, execution_id=execution_id)

    # --- as JSON ---

    def to_value(self) -> Value:
        """What `from_value` reads; instants stay datetimes."""
        return {
            "instance": self.instance,
            "incidents": [to_builtins(incident) for incident in self.incidents.values()],
            "resolved": [to_builtins(notice) for notice in self.resolved],
            "judged": {mission: to_builtins(judged) for mission, judged in self.judged.items()},
        }

    def load(self, value: Value) -> None:
        """Go on from what was saved.

        Raises:
            JsonError: it has another shape.
        """
        kept = convert(value, _Kept)
        self.judged, self.resolved = kept.judged, kept.resolved
        self.incidents = {incident.id: incident for incident in kept.incidents}

    # --- finding ---

    def _of(self, mission: str, kind: Kind) -> Incident | None:
        """The incident that this mission is a member of; else the one that bears its name, kept up by others."""
        own = None
        for incident in self.incidents.values():
            if incident.kind is kind:
                if mission in incident.members:
                    return incident
                if incident.mission == mission:
                    own = incident
        return own

    def _host(self, report: Report) -> Incident | None:
        """The incident that this failure joins."""
        if report.group is None:
            return None
        for incident in self.incidents.values():
            same = incident.kind is report.kind and incident.group == report.group
            if same and abs(report.at - incident.started_at) <= JOIN_WINDOW:
                return incident
        return None

    def _keep_report(self, incident_id: str, report: Report) -> None:
        incident = self.incidents[incident_id]
        if incident.mission == report.mission:
            self.incidents[incident_id] = replace(incident, report=report)

    def _id(self, report: Report) -> str:
        text = f"{self.instance}\0{report.mission}\0{report.kind}\0{report.cause}"
        return blake2b(text.encode(), digest_size=10).hexdigest()


def _joined(incident: Incident, report: Report) -> Incident:
    everyone = incident.everyone if report.mission in incident.everyone else (*incident.everyone, report.mission)
    return replace(
        incident,
        members=(*incident.members, report.mission),
        everyone=everyone,
        update_at=incident.update_at or max(report.at, incident.started_at + JOIN_WINDOW),
    )


def kind_of(error_type: str | None) -> Kind:
    """The kind of incident that a failure of this error kind is."""
    if error_type in _AUTH_KINDS:
        return Kind.AUTH_EXPIRED
    return {"timeout": Kind.TIMEOUT, "stuck": Kind.STUCK}.get(error_type or "", Kind.FAILED)


def report_of(record: ExecutionRecord, kind: Kind | None = None, **also: object) -> Report:
    """What a failed or lost execution's record says. `also` are fields of Report that the record doesn't know."""
    first = record.errors[0] if record.errors else None
    last = record.errors[-1] if record.errors else None
    kind = kind or kind_of(last.type if last else None)
    active = record.active_step
    values: dict[str, object] = {
        "at": record.completed_at or record.started_at,
        "execution_id": record.execution_id,
        "trigger": str(record.trigger),
        "started_at": record.started_at,
        "duration_seconds": record.duration_ms / 1000 if record.duration_ms is not None else None,
        "action": first.action if first else active.action if active else None,
        "step": first.step if first else active.step if active else None,
        "location": first.location if first else None,
        "error": first.message if first else None,
        "error_type": first.type if first else None,
        "hint": first.hint if first else None,
        "items_processed": record.items_processed,
        "summary": summary(record.mission, kind, first.message if first else None),
        "cause": f"{record.execution_id}/{record.attempt}",
        **also,
    }
    return Report(mission=record.mission, kind=kind, **values)  # type: ignore[arg-type]


def summary(mission: str, kind: Kind, error: str | None = None) -> str:
    """One line: `CustomerSync failed: HTTP 503 from API`."""
    what = {
        Kind.FAILED: "failed",
        Kind.STALE: "has not succeeded in time",
        Kind.STUCK: "made no progress and was stopped",
        Kind.TIMEOUT: "ran for longer than its timeout and was stopped",
        Kind.SLOT_MISSED: "did not run when it was due",
        Kind.LOAD_ERROR: "cannot be loaded",
        Kind.AUTH_EXPIRED: "failed: its credentials are not accepted",
        Kind.CRASHED: "was lost with its process",
        Kind.TEST: "tests its alerts",
    }[kind]
    if error is None or kind in (Kind.STUCK, Kind.TIMEOUT):  # their errors say no more
        return f"{mission} {what}"
    return f"{mission} {what}: {error}"


def succeeded(record: ExecutionRecord) -> bool:
    return record.status is ExecutionStatus.COMPLETED
