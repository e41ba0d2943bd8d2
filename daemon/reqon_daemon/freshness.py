"""How old a mission's last success may become before somebody must look: the dead man's limit (spec/daemon.md 4, 6)."""

from datetime import datetime, timedelta

from reqon_daemon.slots import Schedule

# Where to look for the longest gap: every slot for a while, then the gaps around points two and twelve hours apart.
_SLOTS = 120
_NEAR = (timedelta(hours=2), timedelta(days=9))
_FAR = (timedelta(hours=12), timedelta(days=35))
_BACK = timedelta(days=400)


def freshness_limit(
    schedule: Schedule | None, *, fresh_within_seconds: float | None, usual_seconds: float | None, now: datetime
) -> float | None:
    """The limit in seconds: `freshWithin`, else twice the schedule's longest gap and the usual duration together.

    None: nothing watches a mission that has no schedule, or that runs only once.
    """
    if fresh_within_seconds is not None:
        return fresh_within_seconds
    gap = longest_gap(schedule, now) if schedule is not None else None
    return None if gap is None else 2 * (gap.total_seconds() + (usual_seconds or 0.0))


def longest_gap(schedule: Schedule, now: datetime) -> timedelta | None:
    """The longest time between two due times that follow each other, as far as five weeks show it; None: there is none.

    A gap that is longer than five weeks is found whole.
    """
    if schedule.interval is not None:
        return schedule.interval
    longest: timedelta | None = None
    due = schedule.next_after(now)
    for _ in range(_SLOTS):
        following = schedule.next_after(due) if due is not None else None
        if due is None or following is None:
            break
        longest = max(longest or timedelta(0), following - due)
        due = following
    for step, until in (_NEAR, _FAR):
        at = now
        while at < now + until:
            before, after = schedule.latest_between(at - _BACK, at), schedule.next_after(at)
            if after is None:
                break
            if before is not None:
                longest = max(longest or timedelta(0), after - before)
            at = max(at + step, after)
    return longest
