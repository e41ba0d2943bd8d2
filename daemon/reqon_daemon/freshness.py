"""How old a mission's last success may become before somebody must look: the dead man's limit (spec/daemon.md 4, 6)."""

from datetime import datetime

from reqon_daemon.slots import Schedule


def freshness_limit(
    schedule: Schedule | None, *, fresh_within_seconds: float | None, usual_seconds: float | None, now: datetime
) -> float | None:
    """The limit in seconds: `freshWithin`, else twice the schedule's longest gap and the usual duration together.

    None: nothing watches a mission that has no schedule, or that runs only once.
    """
    if fresh_within_seconds is not None:
        return fresh_within_seconds
    gap = schedule.longest_gap(now) if schedule is not None else None
    return None if gap is None else 2 * (gap.total_seconds() + (usual_seconds or 0.0))
