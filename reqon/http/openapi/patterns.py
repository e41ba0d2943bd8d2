"""Regular expressions of documents: which engine may run them (spec/reliability.md 6). Nothing here can run away.

Most run on an engine whose time grows with the text alone. Those that look around or back get one that stops after so
many steps back. What neither takes is not checked.
"""

import logging
from enum import Enum
from functools import lru_cache
from typing import Any, Final

log = logging.getLogger("reqon")

MAX_CHARACTERS: Final = 10_000  # a longer text is not looked at: patterns are for ids and codes, not for documents
_MAX_STEPS_BACK: Final = 100_000
_MAX_COMPILED_BYTES: Final = 1024 * 1024


class Engine(Enum):
    """What may run a pattern."""

    LINEAR = 0
    LIMITED = 1


def options_of(engine: Engine) -> Any:
    """The validator's options for an engine."""
    from jsonschema_rs import FancyRegexOptions, RegexOptions  # noqa: PLC0415  # only for those who validate

    if engine is Engine.LINEAR:
        return RegexOptions(size_limit=_MAX_COMPILED_BYTES)
    return FancyRegexOptions(backtrack_limit=_MAX_STEPS_BACK, size_limit=_MAX_COMPILED_BYTES)


@lru_cache(maxsize=4096)
def engine_of(pattern: str) -> Engine | None:
    """The engine for a pattern; None, told once, when there is none."""
    from jsonschema_rs import Draft202012Validator, ValidationError  # noqa: PLC0415

    for engine in Engine:
        try:
            Draft202012Validator({"pattern": pattern}, pattern_options=options_of(engine), offline=True)
        except (ValidationError, ValueError):
            continue
        return engine
    log.warning("the pattern %r of a specification cannot be run here: it is not checked", pattern[:200])
    return None
