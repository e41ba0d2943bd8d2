"""The table of events, spec/runtime.md 15.2, against the classes: every type, every field, every kind of value."""

import re
from datetime import UTC, datetime
from types import UnionType
from typing import Any, get_args, get_type_hints

import pytest

from reqon.events import Event, event_kinds

TABLE = """
mission.start | stageCount i, isResume b, resumeFromStage? i, trigger s, metadata? object
mission.complete | success b, stagesCompleted i, stagesFailed i, stagesSkipped i, errorCount i
mission.failed | error s, errorType s, failedStage? s, stagesCompleted i, errorCount i
mission.paused | reason s, stageIndex i, stepIndex i
stage.start | stageIndex i, stageName s, totalStages i, isParallel b, parallelActions? [s]
stage.complete | stageIndex i, stageName s, success b, error? s, itemsProcessed? i
action.start | actionName s, stageIndex i, attempt i
action.complete | actionName s, success b, error? s, itemsProcessed i
step.start | actionName s, stepIndex i, stepType s, stepPath s
step.complete | actionName s, stepIndex i, stepType s, stepPath s, success b, flow? s, error? s
fetch.start | source s, method s, path s, url s, isOAS b, operationId? s, hasPagination b, hasSince b
fetch.page | source s, method s, path s, page i, itemCount i, totalItems i, bytesReceived i, hasMore b
fetch.complete | source s, method s, path s, url s, statusCode i, status i, recordCount i, pagesFetched? i, \
bytesReceived i, attempts i, fromCache b
fetch.retry | source s, path s, attempt i, maxAttempts i, reason s, statusCode? i, waitMs i
fetch.error | source s, method s, path s, url s, statusCode? i, error s, kind s, retryable b, delivered b, attempts i
auth.refresh | source s, reason s, success b, error? s
data.transform | targetSchema? s, inputCount i, outputCount i, fieldsMapping i
data.validate | target s, passed b, valid b, warningCount i, errorCount i, rules [s], errors [s]
data.store | storeName s, store s, storeType s, operation s, itemCount i, count i, key? s, \
added i, updated i, unchanged i
data.queue | storeName s, key s, retryable? b
loop.start | variable s, collectionSize i, hasFilter b, concurrency i
loop.iteration | variable s, itemIndex i, totalItems i
loop.complete | variable s, totalItems i, itemsProcessed i, itemsSkipped i, itemsFailed i
match.attempt | schemas [s], hasDefault b
match.result | matchedSchema? s, isDefault b, flowDirective? s
webhook.register | registrationId s, path s, webhookUrl s, timeout i, expectedEvents i
webhook.event | registrationId s, eventIndex i, totalExpected i, filtered b
webhook.rejected | path s, status i, reason s
webhook.complete | registrationId s, eventsReceived i, timedOut b, storedTo? s
checkpoint.save | stageIndex i, stepIndex i, reason s, variableCount i, index? i, page? i
checkpoint.resume | stageIndex i, stepIndex i, originalExecutionId s, stagesSkipped i, reason? s
sync.checkpoint | checkpointKey s, lastSyncTime s, recordsFetched i, isIncremental b
ratelimit.hit | source s, endpoint? s, waitSeconds n, strategy s, remaining? i, resetAt? s
ratelimit.wait | source s, endpoint? s, waitSeconds n, strategy s, remaining? i, resetAt? s, elapsedSeconds n
ratelimit.resume | source s, endpoint? s, waitedSeconds n
circuitbreaker.state | source s, state s, previousState s, failures i, reason? s
"""
KINDS: dict[str, Any] = {
    "s": str,
    "i": int,
    "b": bool,
    "n": float,
    "[s]": tuple[str, ...],
    "object": dict[str, Any],
}


def rows() -> dict[str, dict[str, tuple[bool, Any]]]:
    """Type -> payload name -> whether it may be absent, and its kind of value."""
    out: dict[str, dict[str, tuple[bool, Any]]] = {}
    for line in filter(None, TABLE.splitlines()):
        name, payload = line.split(" | ")
        fields = re.findall(r"(\w+)(\??) (\[s\]|\w+)", payload)
        out[name] = {field: (bool(mark), KINDS[kind]) for field, mark, kind in fields}
    return out


ROWS = rows()


def without_none(kind: Any) -> tuple[bool, Any]:
    if isinstance(kind, UnionType):
        (rest,) = [one for one in get_args(kind) if one is not type(None)]
        return True, rest
    return False, kind


def sample(kind: Any) -> Any:
    samples = {
        str: "x",
        int: 1,
        bool: True,
        float: 0.5,
        tuple[str, ...]: ("a",),
        datetime: datetime(2026, 1, 1, tzinfo=UTC),
    }
    return {"a": 1} if kind == dict[str, Any] else samples[kind]


def made(kind: type[Event], *, full: bool) -> Event:
    """An event of a class: all its fields, or only those that must be there."""
    hints = get_type_hints(kind)
    given = {}
    for name in kind.__struct_fields__:
        optional, value = without_none(hints[name])
        if full or not optional:
            given[name] = sample(value)
    return kind(**given)


def test_every_type_of_the_table_has_its_class_and_none_is_beside_it() -> None:
    assert set(event_kinds()) == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_an_event_has_exactly_the_payload_of_the_table(name: str) -> None:
    fields = ROWS[name]
    for kind in event_kinds()[name]:
        assert set(made(kind, full=True).payload()) == set(fields)
        assert set(made(kind, full=False).payload()) >= {
            field for field, (optional, _) in fields.items() if not optional
        }
        for field, value in made(kind, full=True).payload().items():
            wanted = fields[field][1]
            assert isinstance(
                value, list if wanted == tuple[str, ...] else dict if wanted == dict[str, Any] else wanted
            )


@pytest.mark.parametrize("name", ROWS)
def test_only_what_the_table_marks_may_be_absent(name: str) -> None:
    for kind in event_kinds()[name]:
        payload = made(kind, full=False).payload()
        maybe = {field for field, (optional, _) in ROWS[name].items() if optional}
        assert maybe.isdisjoint(payload)
