"""What the ledger holds of a mission, as commands answer it: JSON-ready, in the names of spec/state.md."""

from reqon.values import Record
from reqon_daemon.ledger import Decision, Pause, PendingRetry, Standing

DECISIONS_SHOWN = 10


def decision_shown(decision: Decision) -> Record:
    return {
        "due": decision.due,
        "firstDue": decision.first_due,
        "count": decision.count,
        "outcome": decision.outcome.value,
        "reason": decision.reason,
        "decidedAt": decision.decided_at,
        "executionId": decision.execution_id,
        "ended": decision.ended,
    }


def pause_shown(pause: Pause) -> Record:
    return {"since": pause.since, "until": pause.until, "reason": pause.reason}


def retry_shown(retry: PendingRetry) -> Record:
    return {"executionId": retry.execution_id, "attempt": retry.attempt, "due": retry.due}


def standing_shown(standing: Standing | None) -> Record:
    """How its runs went; None and 0 where nothing is known."""
    return {
        "registered": standing.registered if standing else None,
        "lastRun": standing.last_run if standing else None,
        "lastSuccess": standing.last_success if standing else None,
        "lastOutcome": standing.last_outcome if standing else None,
        "lastExecution": standing.last_execution if standing else None,
        "lastDurationSeconds": standing.last_duration_seconds if standing else None,
        "consecutiveFailures": standing.consecutive_failures if standing else 0,
    }
