"""Missions that a command line names."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from reqon.diagnostics import did_you_mean
from reqon.errors import ConfigurationError

if TYPE_CHECKING:
    from reqon.lang.program import MissionProgram


def named(missions: "Iterable[MissionProgram]", names: Sequence[str]) -> "list[MissionProgram]":
    """The missions of these names, in the order of the names; without names all of them.

    Raises:
        ConfigurationError: there is no such mission.
    """
    if not names:
        return list(missions)
    by_name = {mission.name: mission for mission in missions}
    refuse_unknown(names, list(by_name))
    return [by_name[name] for name in names]


def refuse_unknown(names: Iterable[str], known: Sequence[str]) -> None:
    """Refuse names that no mission has.

    Raises:
        ConfigurationError: names the first of them, and the one that may have been meant.
    """
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"there is no mission '{name}'", code="unknown-mission", hint=did_you_mean(name, known, "missions")
            )
