"""The record's JSON form."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reqon.files import DamagedFileError
from reqon.secrets import SECRETS
from reqon.state.records import (
    MAX_BYTES,
    ActiveStep,
    Checkpoint,
    ExecutionStatus,
    NewerRecordError,
    RunError,
    StoreTotals,
    as_interrupted,
    as_seen,
    from_dict,
    from_json,
    to_dict,
    to_json,
)
from reqon.values import decode, encode
from tests.support.state_contract import T0, a_full_record, a_record
from tests.support.values import JSON_VALUES, deep

SEED = """{
"executionId": "exec_abc123",
"mission": "CustomerSync",
"startedAt": "2024-01-20T09:00:00Z",
"completedAt": "2024-01-20T09:02:30Z",
"status": "completed",
"actionsRun": ["FetchCustomers", "TransformCustomers"],
"errors": [],
"stores": {"customers": {"count": 1523, "added": 42, "updated": 18}}
}"""


def test_the_documented_record_is_read() -> None:
    record = from_json(SEED.encode(), file_name="CustomerSync-2024-01-20T09-00-00")
    assert record.execution_id == "exec_abc123"
    assert record.completed_at is not None
    assert record.completed_at - record.started_at == timedelta(seconds=150)
    assert record.actions_run == ("FetchCustomers", "TransformCustomers")
    assert record.stores["customers"].added == 42
    assert record.stores["customers"].unchanged is None
    assert record.attempt == 1
    shown, seed = to_dict(record), json.loads(SEED)
    assert [shown[key] for key in ("executionId", "mission", "status", "actionsRun", "errors")] == [
        seed[key] for key in ("executionId", "mission", "status", "actionsRun", "errors")
    ]
    assert shown["stores"]["customers"] == {**seed["stores"]["customers"], "deleted": 0}


def test_a_full_record_comes_back() -> None:
    record = a_full_record()
    assert from_json(to_json(record)) == record
    assert from_dict(to_dict(record)) == record


@settings(max_examples=150)
@given(value=JSON_VALUES, unknown=JSON_VALUES)
def test_what_was_decoded_comes_back_from_inside_a_record(value: object, unknown: object) -> None:
    """D9, for records."""
    value, unknown = decode(encode(value)), decode(encode(unknown))
    checkpoint = Checkpoint(items_processed=1, at=T0, cursor=value)
    record = a_record(checkpoints={"A": checkpoint}, unknown={"later": unknown} if unknown is not None else {})
    again = from_json(to_json(record))
    assert again == record
    assert encode(again.checkpoints["A"].cursor) == encode(value)


def test_the_deepest_value_fits_into_a_record() -> None:
    """D9, for records."""
    record = a_record(
        checkpoints={"A": Checkpoint(items_processed=1, at=T0, cursor=deep(250))}, unknown={"x": deep(250)}
    )
    assert from_json(to_json(record)) == record


def test_a_record_keeps_below_its_size_and_counts_all_errors() -> None:
    errors = tuple(RunError(message="x" * 50_000, type="http", at=T0, item="y" * 1000) for _ in range(300))
    record = a_record(errors=errors, errors_total=5000)
    data = to_json(record)
    assert len(data) <= MAX_BYTES
    again = from_json(data)
    assert len(again.errors) == 100
    assert again.errors_total == 5000
    assert again.errors[0].message.endswith("…")


def test_what_nobody_needs_goes_first_when_a_record_is_too_large() -> None:
    cursors = {f"A{n}": Checkpoint(items_processed=n, at=T0, cursor="c" * 40_000) for n in range(30)}
    record = a_record(checkpoints=cursors, unknown={"later": "u" * 10})
    again = from_json(to_json(record))
    assert again.unknown == {"later": "u" * 10}
    assert set(again.checkpoints) == set(cursors)
    assert len(to_json(a_record(unknown={"later": "u" * 2_000_000}))) < 1000


def test_a_secret_never_enters_a_record() -> None:
    """K1, for records."""
    SECRETS.add("hunter-2-hunter")
    step = ActiveStep(action="Load", item={"key": "hunter-2-hunter"})
    error = RunError(
        message="token hunter-2-hunter", type="http", at=T0, item="hunter-2-hunter", hint="hunter-2-hunter"
    )
    assert b"hunter" not in to_json(a_record(active_step=step, errors=(error,)))


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"mission": 5}, r"\$\.mission"),
        ({"mission": None}, r"\$\.mission"),
        ({"executionId": "../../etc"}, r"\$\.executionId"),
        ({"startedAt": "yesterday"}, r"\$\.startedAt"),
        ({"startedAt": "2024-01-20T09:00:00"}, r"\$\.startedAt"),
        ({"status": "odd"}, "odd"),
        ({"attempt": "2"}, r"\$\.attempt"),
        ({"attempt": True}, r"\$\.attempt"),
        ({"errors": {}}, r"\$\.errors"),
        ({"errors": [7]}, r"\$\.errors\[0\]"),
        ({"actionsRun": [1]}, r"\$\.actionsRun"),
        ({"stores": {"a": 1}}, r"\$\.stores\.a"),
        ({"checkpoints": {"a": {"index": "x"}}}, r"\$\.checkpoints\.a\.index"),
        ({"activeStep": {"index": 1}}, r"\$\.activeStep\.action"),
    ],
)
def test_a_wrong_type_is_named_with_its_place(change: dict[str, object], place: str) -> None:
    """D8, for records."""
    with pytest.raises(DamagedFileError, match=place):
        from_dict(json.loads(SEED) | change)


def test_a_newer_form_is_no_damage() -> None:
    """D10."""
    with pytest.raises(NewerRecordError):
        from_dict(json.loads(SEED) | {"reqonVersion": "2.0.0", "status": "dreaming"})
    assert from_dict(json.loads(SEED) | {"reqonVersion": "2.0.0"}).reqon_version == "2.0.0"


@given(st.dictionaries(st.text(max_size=8), JSON_VALUES, max_size=5))
def test_any_object_is_a_record_or_damage(value: dict[str, object]) -> None:
    """D8, for records."""
    for candidate in (value, json.loads(SEED) | value):
        try:
            from_dict(candidate)
        except (DamagedFileError, NewerRecordError):
            continue


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ({}, ActiveStep(action="Load", step="for", index=3, item={"id": 3})),
        ({"a": "0/Load", "i": 3}, ActiveStep(action="Load", step="for", index=3, item={"id": 3})),
        ({"a": "0/Load", "i": 9}, ActiveStep(action="Load", step="for", index=9)),
        ({"a": "1/Next", "i": 0, "item": "x"}, ActiveStep(action="Next", index=0, item="x")),
    ],
)
def test_the_journal_knows_better_where_a_dead_run_was(position: dict[str, object], expected: ActiveStep) -> None:
    record = a_record(active_step=ActiveStep(action="Load", step="for", index=3, item={"id": 3}))
    shown = as_interrupted(record, position)
    assert shown == replace(record, status=ExecutionStatus.INTERRUPTED, active_step=expected)


def test_the_journal_knows_better_what_a_run_has_done() -> None:
    stores = {
        "rows": StoreTotals(count=10, added=4, updated=2, unchanged=0, deleted=1),
        "far": StoreTotals(updated=None),
    }
    record = a_record(items_processed=6, requests=9, stores=stores)
    totals = {"i": [20, 3, 50], "c": [8, 1, 2], "s": {"rows": [14, 2, 5, 3], "far": [7, None, None, 0]}}
    shown = as_seen(record, {"a": "0/Load", "i": 20, "totals": totals})
    assert shown.status is record.status
    assert shown.active_step == ActiveStep(action="Load", index=20)
    assert (shown.items_processed, shown.requests, shown.retries, shown.invalid) == (23, 9, 1, 2)
    assert shown.stores == {
        "rows": StoreTotals(count=18, added=14, updated=2, unchanged=5, deleted=3),
        "far": StoreTotals(added=7, updated=None, unchanged=None),
    }
