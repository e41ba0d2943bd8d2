"""Which events become log lines, of which level (spec/runtime.md 15.3). No logging library is imported."""

import logging

from reqon.events import (
    BreakerChanged,
    DataRefused,
    DataStored,
    DataValidated,
    Event,
    FetchCompleted,
    FetchFailed,
    FetchRetried,
    MissionCompleted,
    MissionFailed,
    MissionPaused,
    MissionStarted,
    Noticed,
    RateLimitHit,
    RateLimitResumed,
    RateLimitWaiting,
    StageEnded,
    StageStarted,
    SyncCheckpointMoved,
    event_kinds,
)

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_INFO = (
    MissionStarted,
    MissionCompleted,
    MissionPaused,
    StageStarted,
    StageEnded,
    FetchCompleted,
    DataStored,
    SyncCheckpointMoved,
)
_WARNING = (FetchRetried, RateLimitHit, RateLimitWaiting, RateLimitResumed, BreakerChanged, DataRefused)
_ALWAYS_ERRORS = frozenset(("bad_path", "bad_header", "origin_blocked"))


def level_of(event: Event) -> str:
    """The level of an event's line (spec/runtime.md 15.3)."""
    if isinstance(event, Noticed):
        return event.level
    if isinstance(event, MissionFailed):
        return "error"
    if isinstance(event, FetchFailed):
        return "debug" if event.delivered and event.kind not in _ALWAYS_ERRORS else "error"
    if isinstance(event, DataValidated):
        return "debug" if event.valid else "warning"
    if isinstance(event, _INFO):
        return "info"
    return "warning" if isinstance(event, _WARNING) else "debug"


def kinds_shown(least: int) -> list[type[Event]]:
    """The events that make a line of this level or above: nobody listens to others, so that they are never built."""
    kinds: list[type[Event]] = [*(kind for classes in event_kinds().values() for kind in classes), Noticed]
    return [kind for kind in kinds if least <= logging.DEBUG or not _at_most_debug(kind)]


def _at_most_debug(kind: type[Event]) -> bool:
    return not issubclass(kind, (*_INFO, *_WARNING, Noticed, MissionFailed, FetchFailed))
