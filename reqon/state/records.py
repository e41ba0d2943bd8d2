"""The public record of an execution: one JSON object with the keys of the specification (spec/state.md 2)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from reqon.__about__ import __version__
from reqon.clock import parse_rfc3339, rfc3339
from reqon.errors import StateError
from reqon.files import DamagedFileError
from reqon.secrets import SECRETS
from reqon.state.ids import is_execution_id
from reqon.values import OWN_DEPTH, JsonError, Value, decode, encode

_T = TypeVar("_T")


class ExecutionStatus(StrEnum):
    """Where an execution stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class Trigger(StrEnum):
    """Why an execution began."""

    MANUAL = "manual"
    SCHEDULE = "schedule"
    RETRY = "retry"
    RESUME = "resume"
    WEBHOOK = "webhook"
    API = "api"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who runs it; for people. The lock it holds is what counts."""

    host: str
    pid: int
    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveStep:
    """Where the run is, or would resume. `index` is the 0-based place in its outermost loop; `item` a preview."""

    action: str
    step: str | None = None
    index: int | None = None
    item: Value = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """How far one action got. `page` and `cursor` of its fetch, `index` in its loop."""

    items_processed: int
    at: datetime
    page: int | None = None
    cursor: Value = None
    index: int | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunError:
    """One failure. `type` is a kind of spec/language.md 7.12, or timeout, stuck, config, internal."""

    message: str
    type: str
    at: datetime
    action: str | None = None
    step: str | None = None
    location: str | None = None
    item: Value = None
    status: int | None = None
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreTotals:
    """What an execution did to one store; `count` is the store's size. A store that cannot tell has None."""

    count: int | None = None
    added: int = 0
    updated: int | None = 0
    unchanged: int | None = 0
    deleted: int = 0


MAX_ERRORS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRecord:
    """One execution. `file_name` is the stem of its files; `unknown` keeps keys that a newer version wrote."""

    execution_id: str
    mission: str
    started_at: datetime
    status: ExecutionStatus
    completed_at: datetime | None = None
    trigger: Trigger = Trigger.MANUAL
    attempt: int = 1
    resumed_from: str | None = None
    mission_hash: str = ""
    actions_run: tuple[str, ...] = ()
    active_step: ActiveStep | None = None
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict)
    items_processed: int = 0
    requests: int = 0
    retries: int = 0
    invalid: int = 0
    errors: tuple[RunError, ...] = ()
    errors_total: int = 0
    stores: Mapping[str, StoreTotals] = field(default_factory=dict)
    owner: Owner | None = None
    duration_ms: int | None = None
    scheduled_for: datetime | None = None
    reqon_version: str = ""
    resumes_without_progress: int = 0
    file_name: str = ""
    unknown: Mapping[str, Value] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Value]:
        """The record as a JSON object with the documented keys, absent where there is no value; secrets redacted."""
        return to_dict(self)


def as_seen(record: ExecutionRecord, position: Mapping[str, Value]) -> ExecutionRecord:
    """What a record that says `running` shows to readers: where its journal says that the run is.

    `position` holds the fields of the journal's newest progress or checkpoint entry: `a`, stage and action as in
    `0/Load`, and maybe `i`, the index, `item`, its preview, and `totals`. It knows better than the record, its picture
    of a moment earlier; while a request hangs, of a long one.
    """
    step = record.active_step
    if action := str(position.get("a", "")).partition("/")[2]:
        known = step if step and step.action == action else ActiveStep(action=action)
        index = position.get("i", known.index)
        item = position.get("item", known.item if index == known.index else None)
        step = ActiveStep(action=action, step=known.step, index=index, item=item)
    record = replace(record, active_step=step)
    return _with_totals(record, position["totals"]) if "totals" in position else record


def _with_totals(record: ExecutionRecord, totals: Mapping[str, Value]) -> ExecutionRecord:
    in_loops, stored, fetched = totals["i"]
    requests, retries, invalid = totals["c"]
    stores = dict(record.stores)
    for name, (added, updated, unchanged, deleted) in totals["s"].items():
        known = stores.get(name, StoreTotals())
        count = known.count
        if count is not None:
            count += added - known.added - (deleted - known.deleted)
        stores[name] = StoreTotals(count=count, added=added, updated=updated, unchanged=unchanged, deleted=deleted)
    return replace(
        record,
        items_processed=in_loops + stored or fetched,
        requests=max(record.requests, requests),
        retries=max(record.retries, retries),
        invalid=invalid,
        stores=stores,
    )


def as_interrupted(record: ExecutionRecord, position: Mapping[str, Value]) -> ExecutionRecord:
    """What a running record is when its owner is dead; `position` as in `as_seen`."""
    return replace(as_seen(record, position), status=ExecutionStatus.INTERRUPTED)


# --- the JSON form ---------------------------------------------------------------------------------------------------

MAX_BYTES = 1024 * 1024
_LONGEST_MESSAGE = 1000


class NewerRecordError(StateError):
    """A newer major version wrote the record in a form that this one doesn't know. It is left as it is."""

    slug = "newer-state"


def is_newer(record: ExecutionRecord) -> bool:
    """Whether a newer major version wrote it: it may be shown, not resumed nor changed."""
    return _major(record.reqon_version) > _major(__version__)


def to_json(record: ExecutionRecord) -> bytes:
    """The record's file: one JSON object, pretty-printed, newline at the end, at most 1 MiB."""
    shown = to_dict(record)
    data = encode(shown, pretty=True) + b"\n"
    if len(data) > MAX_BYTES:
        for slim in (_cut_errors, _cut_previews, _cut_unknown):
            slim(shown, record)
            data = encode(shown, pretty=True) + b"\n"
            if len(data) <= MAX_BYTES:
                break
    return data


def to_dict(record: ExecutionRecord) -> dict[str, Value]:
    """The record as a JSON object with the documented keys, absent where there is no value; secrets redacted."""
    shown: dict[str, Value] = {"executionId": record.execution_id, "mission": record.mission}
    shown["startedAt"] = rfc3339(record.started_at)
    if record.completed_at:
        shown["completedAt"] = rfc3339(record.completed_at)
    shown |= {"status": record.status.value, "trigger": record.trigger.value, "attempt": record.attempt}
    if record.resumed_from:
        shown["resumedFrom"] = record.resumed_from
    if record.mission_hash:
        shown["missionHash"] = record.mission_hash
    shown["actionsRun"] = list(record.actions_run)
    if step := record.active_step:
        item = SECRETS.redact_value(step.item)
        text = _step(step.step)
        shown["activeStep"] = _known(action=step.action, step=text, index=step.index, item=item)
    if record.checkpoints:
        shown["checkpoints"] = {name: _checkpoint_to_dict(c) for name, c in record.checkpoints.items()}
    shown |= {
        "itemsProcessed": record.items_processed,
        "requests": record.requests,
        "retries": record.retries,
        "invalid": record.invalid,
        "errors": [_error_to_dict(e) for e in record.errors[:MAX_ERRORS]],
        "errorsTotal": max(record.errors_total, len(record.errors)),
        "stores": {name: _totals_to_dict(t) for name, t in record.stores.items()},
    }
    if owner := record.owner:
        shown["owner"] = {"host": owner.host, "pid": owner.pid, "instance": owner.instance}
    if record.duration_ms is not None:
        shown["durationMs"] = record.duration_ms
    if record.scheduled_for:
        shown["scheduledFor"] = rfc3339(record.scheduled_for)
    if record.reqon_version:
        shown["reqonVersion"] = record.reqon_version
    if record.resumes_without_progress:
        shown["resumesWithoutProgress"] = record.resumes_without_progress
    for key, value in record.unknown.items():
        shown.setdefault(key, value)
    return shown


def from_json(data: bytes, *, file_name: str = "") -> ExecutionRecord:
    """The record that a file holds.

    Raises:
        DamagedFileError: it isn't one: not JSON, a key missing, a value of the wrong type.
        NewerRecordError: a newer major version wrote it and it cannot be understood.
    """
    try:
        value = decode(data, depth=OWN_DEPTH)
    except JsonError as error:
        raise DamagedFileError(f"is no execution record: {error.message}") from error
    return from_dict(value, file_name=file_name)


def from_dict(value: Value, *, file_name: str = "") -> ExecutionRecord:
    """The record that a JSON object describes; see `from_json`."""
    try:
        return _from_fields(_Fields(value), file_name)
    except ValueError as error:
        if isinstance(value, dict) and _major(value.get("reqonVersion")) > _major(__version__):
            raise NewerRecordError(f"was written by Reqon {value['reqonVersion']}") from error
        raise DamagedFileError(f"is no execution record: {error}") from error


class _Fields:
    """Takes typed members out of a JSON object; `rest` is what nobody took. Raises ValueError naming the member."""

    def __init__(self, value: Value, place: str = "$") -> None:
        if not isinstance(value, dict):
            raise ValueError(f"expected an object at {place}")  # noqa: TRY004  # a fault of the text
        self.rest: dict[str, Value] = dict(value)
        self._place = place

    def any(self, key: str) -> Value:
        return self.rest.pop(key, None)

    def _typed(self, key: str, kind: type[_T], word: str) -> _T | None:
        value = self.rest.pop(key, None)
        if value is None:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(f"expected {word} at {self._place}.{key}")
        return value

    def text(self, key: str) -> str | None:
        return self._typed(key, str, "a text")

    def number(self, key: str) -> int | None:
        return self._typed(key, int, "an integer")

    def array(self, key: str) -> list[Value]:
        return self._typed(key, list, "an array") or []

    def fields(self, key: str) -> "_Fields | None":
        value = self._typed(key, dict, "an object")
        return None if value is None else _Fields(value, f"{self._place}.{key}")

    def members(self, key: str) -> "dict[str, _Fields]":
        value = self._typed(key, dict, "an object") or {}
        return {name: _Fields(inner, f"{self._place}.{key}.{name}") for name, inner in value.items()}

    def instant(self, key: str) -> datetime | None:
        text = self.text(key)
        try:
            return None if text is None else parse_rfc3339(text)
        except (ValueError, OverflowError):
            raise ValueError(f"expected an instant at {self._place}.{key}") from None

    def needed(self, value: _T | None, key: str) -> _T:
        if value is None:
            raise ValueError(f"{self._place}.{key} is missing")
        return value


def _from_fields(f: _Fields, file_name: str) -> ExecutionRecord:
    execution_id = f.needed(f.text("executionId"), "executionId")
    if not is_execution_id(execution_id):
        raise ValueError("$.executionId is no execution id")
    started_at = f.needed(f.instant("startedAt"), "startedAt")
    mission = f.needed(f.text("mission"), "mission")
    status = ExecutionStatus(f.needed(f.text("status"), "status"))
    active, owner = f.fields("activeStep"), f.fields("owner")
    return ExecutionRecord(
        execution_id=execution_id,
        mission=mission,
        started_at=started_at,
        status=status,
        completed_at=f.instant("completedAt"),
        trigger=Trigger(f.text("trigger") or "manual"),
        attempt=_or(f.number("attempt"), 1),
        resumed_from=f.text("resumedFrom"),
        mission_hash=f.text("missionHash") or "",
        actions_run=tuple(_texts(f.array("actionsRun"))),
        active_step=_active_step(active) if active else None,
        checkpoints={name: _checkpoint(c, started_at) for name, c in f.members("checkpoints").items()},
        items_processed=_or(f.number("itemsProcessed"), 0),
        requests=_or(f.number("requests"), 0),
        retries=_or(f.number("retries"), 0),
        invalid=_or(f.number("invalid"), 0),
        errors=(errors := tuple(_run_error(e, n, started_at) for n, e in enumerate(f.array("errors")))),
        errors_total=_or(f.number("errorsTotal"), len(errors)),
        stores={name: _totals(t) for name, t in f.members("stores").items()},
        owner=_owner(owner) if owner else None,
        duration_ms=f.number("durationMs"),
        scheduled_for=f.instant("scheduledFor"),
        reqon_version=f.text("reqonVersion") or "",
        resumes_without_progress=_or(f.number("resumesWithoutProgress"), 0),
        file_name=file_name,
        unknown=f.rest,
    )


def _active_step(f: _Fields) -> ActiveStep:
    action = f.needed(f.text("action"), "action")
    return ActiveStep(action=action, step=f.text("step"), index=f.number("index"), item=f.any("item"))


def _checkpoint(f: _Fields, started_at: datetime) -> Checkpoint:
    return Checkpoint(
        page=f.number("page"),
        cursor=f.any("cursor"),
        index=f.number("index"),
        items_processed=_or(f.number("itemsProcessed"), 0),
        total=f.number("total"),
        at=f.instant("at") or started_at,
    )


def _run_error(value: Value, number: int, started_at: datetime) -> RunError:
    if isinstance(value, str):
        value = {"message": value}
    f = _Fields(value, f"$.errors[{number}]")
    return RunError(
        action=f.text("action"),
        step=f.text("step"),
        message=f.needed(f.text("message"), "message"),
        type=f.text("type") or "internal",
        at=f.instant("at") or started_at,
        location=f.text("location"),
        item=f.any("item"),
        status=f.number("status"),
        hint=f.text("hint"),
    )


def _totals(f: _Fields) -> StoreTotals:
    # A store that cannot tell how many changed leaves the number out.
    return StoreTotals(
        count=f.number("count"),
        added=_or(f.number("added"), 0),
        updated=f.number("updated"),
        unchanged=f.number("unchanged"),
        deleted=_or(f.number("deleted"), 0),
    )


def _owner(f: _Fields) -> Owner:
    return Owner(host=f.text("host") or "", pid=_or(f.number("pid"), 0), instance=f.text("instance") or "")


def _checkpoint_to_dict(c: Checkpoint) -> dict[str, Value]:
    return _known(
        page=c.page, cursor=c.cursor, index=c.index, itemsProcessed=c.items_processed, total=c.total, at=rfc3339(c.at)
    )


def _error_to_dict(e: RunError) -> dict[str, Value]:
    return _known(
        action=e.action,
        step=_step(e.step),
        message=SECRETS.redact(e.message),
        type=e.type,
        at=rfc3339(e.at),
        location=e.location,
        item=SECRETS.redact_value(e.item),
        status=e.status,
        hint=SECRETS.redact(e.hint) if e.hint else None,
    )


def _step(text: str | None) -> str | None:
    return SECRETS.redact_source(text) if text else text


def _totals_to_dict(t: StoreTotals) -> dict[str, Value]:
    return _known(count=t.count, added=t.added, updated=t.updated, unchanged=t.unchanged, deleted=t.deleted)


def _known(**members: Value) -> dict[str, Value]:
    return {key: value for key, value in members.items() if value is not None}


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _texts(values: list[Value]) -> list[str]:
    if not all(isinstance(v, str) for v in values):
        raise ValueError("expected texts at $.actionsRun")
    return values


def _major(version: Value) -> int:
    head = version.partition(".")[0] if isinstance(version, str) else ""
    return int(head) if head.isdecimal() and len(head) < 9 else 0


# What a record gives up, in this order, to stay below its limit. The journal keeps what a resume needs.


def _cut_errors(shown: dict[str, Value], _: ExecutionRecord) -> None:
    for error in shown["errors"]:
        error.pop("item", None)
        for key in ("message", "hint"):
            if len(error.get(key, "")) > _LONGEST_MESSAGE:
                error[key] = error[key][:_LONGEST_MESSAGE] + "…"


def _cut_previews(shown: dict[str, Value], record: ExecutionRecord) -> None:
    shown.get("activeStep", {}).pop("item", None)
    for name in record.checkpoints:
        shown["checkpoints"][name].pop("cursor", None)


def _cut_unknown(shown: dict[str, Value], record: ExecutionRecord) -> None:
    for key in record.unknown:
        shown.pop(key, None)
