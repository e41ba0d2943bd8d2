"""`reqon why M`: what is known of a mission, from the running daemon, or from its ledger and the records alone.

Both give one record of the same shape; `explain.py` makes sentences of it.
"""

from collections.abc import Mapping

from reqon.clock import SYSTEM, Clock
from reqon.diagnostics import did_you_mean
from reqon.errors import ConfigurationError, ReqonError
from reqon.state.choice import StateStores
from reqon.state.records import ExecutionRecord, ExecutionStatus, to_dict
from reqon.values import Record, decode, encode
from reqon_daemon.control import call
from reqon_daemon.explain import sentences
from reqon_daemon.ledger import Ledger, Standing
from reqon_daemon.shown import DECISIONS_SHOWN, decision_shown, pause_shown, retry_shown, standing_shown

_FROM_RECORD = (
    "executionId",
    "status",
    "trigger",
    "startedAt",
    "completedAt",
    "durationMs",
    "itemsProcessed",
    "attempt",
)


def why(stores: StateStores, mission: str, *, clock: Clock = SYSTEM) -> tuple[Record, list[str]]:
    """The record for machines, and the lines for people.

    Raises:
        ConfigurationError: nobody has ever heard of the mission.
    """
    try:
        known = call(stores.directory.path, "why", mission=mission)
        known["daemon"] = True
    except ReqonError as error:
        if error.diagnostics[0].code != "no-daemon":
            raise
        known = _without_daemon(stores, mission, clock)
    answer: Record = decode(encode({**known, "last": _last(stores, mission)}))
    succeeded = _last(stores, mission, ExecutionStatus.COMPLETED)
    if succeeded is not None:  # the ledger knows of the daemon's runs only
        answer["lastSuccess"] = max(answer["lastSuccess"] or "", succeeded["completedAt"])
    return answer, sentences(answer, clock.now(), str(stores.directory.path))


def _last(stores: StateStores, mission: str, status: ExecutionStatus | None = None) -> Record | None:
    found = next(iter(stores.list(mission, limit=1, status=status)), None)
    return None if found is None else _record(found)


def _record(found: ExecutionRecord) -> Record:
    whole = to_dict(found)
    shown: Record = {name: whole.get(name) for name in _FROM_RECORD}
    errors = whole.get("errors") or []
    return {**shown, "activeStep": whole.get("activeStep"), "error": errors[0] if errors else None}


def _without_daemon(stores: StateStores, mission: str, clock: Clock) -> Record:
    """What the ledger has. A mission that only ever ran by hand is known by its records."""
    ledger = Ledger(stores.directory, clock=clock)
    standing = ledger.standing(mission)
    if standing is None and _last(stores, mission) is None:
        raise _unknown(mission, ledger.standings(), stores)
    decisions = ledger.decisions(mission)[-DECISIONS_SHOWN:]
    pause = standing.pause if standing else None
    over = pause is None or (pause.until is not None and pause.until <= clock.now())
    return {
        "mission": mission,
        "daemon": False,
        "state": "no daemon",
        "pause": None if pause is None or over else pause_shown(pause),
        "retry": retry_shown(standing.retry) if standing and standing.retry else None,
        "unscheduled": standing.unscheduled if standing else None,
        **standing_shown(standing),
        "decisions": [decision_shown(decision) for decision in reversed(decisions)],
    }


def _unknown(mission: str, standings: Mapping[str, Standing], stores: StateStores) -> ConfigurationError:
    names = {*standings, *(record.mission for record in stores.latest())}
    return ConfigurationError(
        f"no mission '{mission}' is known in {stores.directory.path}",
        code="unknown-mission",
        hint=did_you_mean(mission, tuple(names), "known missions"),
    )
