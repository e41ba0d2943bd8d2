"""What `reqon why` says of a mission, in sentences that fit on one screen. Reads nothing, asks nobody."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from reqon.clock import parse_rfc3339
from reqon.diagnostics import escape_controls
from reqon.secrets import SECRETS
from reqon.values import Record

_OUTCOMES = {
    "fired": "ran",
    "caught_up": "caught up",
    "skipped_overlap": "skipped",
    "skipped_paused": "skipped",
    "coalesced": "joined",
    "missed": "missed",
}
_ENDS = {
    "success": "succeeded",
    "completed": "succeeded",
    "failure": "failed",
    "failed": "failed",
    "interrupted": "was interrupted",
    "cancelled": "was cancelled",
    "running": "is running",
}
_STEPS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def sentences(known: Record, now: datetime, directory: str) -> list[str]:
    """The lines, redacted; `known` is the answer of `why.py`, its instants RFC 3339 texts."""
    lines = [*_what_it_does(known, now, directory), *_what_it_will_do(known, now), *_what_it_did(known, now)]
    lines += _what_is_wrong_with_it(known)
    decided = list(_decisions(known))
    lines += ["", "Due times, the newest first:", *decided] if decided else []
    return [escape_controls(SECRETS.redact(line)) for line in lines]


# --- now --------------------------------------------------------------------------------------------------------------


def _what_it_does(known: Record, now: datetime, directory: str) -> Iterator[str]:
    name, state = known["mission"], known["state"]
    running = known.get("running") or []
    for run in running:
        yield f"{name} runs since {_when(run['startedAt'], now)}{_because(run)}."
    if known.get("queued"):
        places = "for its other run" if running else "for a free place: as many run as --max-running allows"
        yield f"{name} is due and waits {places}."
    if not known["daemon"]:
        yield f"No daemon works with {directory}; this is what its ledger and records say."
    if state == "removed":
        yield f"{name} is not loaded any more: its file is gone."
    elif not running and not known.get("queued") and known["daemon"] and not known.get("pause"):
        yield f"{name} rests."
    yield from _waits(known, now)
    if pause := known.get("pause"):
        until = f"until {_when(pause['until'], now)}" if pause["until"] else "until somebody unpauses it"
        reason = f" ({pause['reason']})" if pause["reason"] else ""
        yield f"It is paused since {_when(pause['since'], now)}, {until}{reason}: its due times are skipped."


def _because(run: Record) -> str:
    execution = f" ({run['executionId']})" if run.get("executionId") else ""
    if run.get("scheduledFor"):
        again = f", attempt {run['attempt']}" if run.get("attempt", 1) > 1 else ""
        return f", for its due time {_instant(run['scheduledFor'])}{again}{execution}"
    word = {"manual": ", because somebody asked", "resume": ", to go on with what was cut off"}.get(run["trigger"], "")
    return word + execution


def _waits(known: Record, now: datetime) -> Iterator[str]:
    if wait := known.get("waitsFor"):
        reason = f" ({wait['reason']})" if wait.get("reason") else ""
        yield f"It waits for {wait['for']} of {wait['source']}, until {_when(wait['until'], now)}{reason}."
    for breaker in known.get("breakers") or []:
        since = _when(breaker["since"], now)
        yield f"No requests go to {breaker['source']} since {since}: {breaker['failures']} in a row failed."


# --- next and last ----------------------------------------------------------------------------------------------------


def _what_it_will_do(known: Record, now: datetime) -> Iterator[str]:
    if retry := known.get("retry"):
        start = f"at {_when(retry['due'], now)}" if known["daemon"] else "when a daemon starts"
        yield f"The failed run is tried again {start}, attempt {retry['attempt']}."
    if not known["daemon"]:
        if gone := known.get("unscheduled"):
            yield f"Its file went away {_when(gone, now)}."
        return
    if known.get("schedule"):
        zone = f", {known['timezone']}" if known.get("timezone") else ""
        due = f"the next time is {_when(known['nextDue'], now)}" if known.get("nextDue") else "it never comes again"
        yield f"Schedule: {known['schedule']}{zone}; {due}."
    elif known["state"] != "removed":
        yield "It has no schedule: it runs when it is triggered."


def _what_it_did(known: Record, now: datetime) -> Iterator[str]:
    last = None if _has_run_unrecorded_since(known) else known.get("last")
    if last is not None and last["status"] != "running":
        yield from _last_run(last, now)
    elif last is None and known.get("lastRun"):
        took = _took(known.get("lastDurationSeconds"))
        yield f"Its last run began {_when(known['lastRun'], now)} and {_ends(known['lastOutcome'])}{took}."
    elif last is not None and not known.get("running"):
        yield f"An execution is recorded as running: {last['executionId']}, since {_when(last['startedAt'], now)}."
    elif last is None:
        yield "It has never run here."
    if (failures := known.get("consecutiveFailures") or 0) > 1:
        yield f"That was failure number {failures} in a row."
    if last is None or last["status"] != "completed":
        if success := known.get("lastSuccess"):
            yield f"It last succeeded {_when(success, now)}."
        elif last is not None or known.get("lastRun"):
            yield "It has never succeeded here."


def _has_run_unrecorded_since(known: Record) -> bool:
    """Whether a later run than the last that is recorded left no record: the disk was full, say."""
    last, began = known.get("last"), known.get("lastRun")
    if last is None or not began or known.get("lastExecution") or known.get("running"):
        return False
    return parse_rfc3339(began) > parse_rfc3339(last["startedAt"])


def _last_run(last: Record, now: datetime) -> Iterator[str]:
    took = _took(last["durationMs"] / 1000 if last.get("durationMs") is not None else None)
    items = f", {last['itemsProcessed']:,} items" if last.get("itemsProcessed") else ""
    began = f"Its last run began {_when(last['startedAt'], now)} and {_ends(last['status'])}{took}{items}"
    yield f"{began} ({last['executionId']})."
    if error := last.get("error"):
        place = f"{error['location']}: " if error.get("location") else ""
        yield f"  {place}{error['message']}"
        if error.get("hint"):
            yield f"  hint: {error['hint']}"
    if (step := last.get("activeStep")) and last["status"] != "completed":
        item = f", item {step['index']}" if step.get("index") is not None else ""
        yield f"  It stopped in {step['action']}{item}; a resume goes on there."


def _what_is_wrong_with_it(known: Record) -> Iterator[str]:
    if findings := known.get("broken"):
        yield "Its file has a mistake, so the last good version is in service:"
        yield from (f"  {line}" for line in str(findings[0]).splitlines())


# --- due times --------------------------------------------------------------------------------------------------------


def _decisions(known: Record) -> Iterator[str]:
    for one in known.get("decisions") or []:
        many = f" ({one['count']} times since {_instant(one['firstDue'])})" if one["count"] > 1 else ""
        execution = f", {one['executionId']}" if one.get("executionId") else ""
        outcome = _OUTCOMES.get(one["outcome"], one["outcome"])
        yield f"  {_instant(one['due'])}  {outcome:<9}  {one['reason']}{many}{execution}"


# --- words ------------------------------------------------------------------------------------------------------------


def _ends(outcome: Any) -> str:
    return _ENDS.get(str(outcome), "ended")


def _took(seconds: float | None) -> str:
    return "" if seconds is None else f" after {seconds:.1f} s" if seconds < 60 else f" after {_span(seconds)}"


def _instant(text: str) -> str:
    return f"{parse_rfc3339(text).astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def _when(text: str, now: datetime) -> str:
    """The instant, and how far away that is."""
    seconds = (parse_rfc3339(text) - now).total_seconds()
    if abs(seconds) < 1:
        return f"{_instant(text)} (now)"
    return f"{_instant(text)} ({f'in {_span(seconds)}' if seconds > 0 else f'{_span(-seconds)} ago'})"


def _span(seconds: float) -> str:
    for length, word in _STEPS:
        if seconds >= length or length == 1:
            number = round(seconds / length)
            return f"{number} {word}{'s' if number != 1 else ''}"
    raise AssertionError
