"""What a run was asked for: flags, `REQON_…` variables, `reqon.toml` beside the missions, defaults (spec/daemon.md 1).

The service reads all four. A command line without variables and without a file needs only the first and the last, and
is spared its import.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reqon.cli.durations import age, pair, seconds, size
from reqon.cli.services import service

FILE_NAME = "reqon.toml"


class Asked(NamedTuple):
    """The options of a run that is no daemon's. Seconds and bytes; None where an option is off."""

    auth: Path | None = None
    env: Path | None = None
    store_config: Path | None = None
    output: Path | None = None
    state_dir: Path = Path(".vague-data")
    state_store: str | None = None
    state_retention: float | None = None
    no_oas_cache: bool = False
    journal_max: int | None = None
    shutdown_grace: float = 25.0
    mission: tuple[str, ...] = ()
    set: Mapping[str, str] = {}
    dry_run: bool = False
    keep_going: bool = False
    verbose: bool = False
    quiet: bool = False
    webhook: bool = False
    webhook_host: str | None = None
    webhook_port: int | None = None
    webhook_url: str | None = None


def effective(flags: Mapping[str, Any], paths: Sequence[Path]) -> Asked:
    """The options in force. `flags` are those of the command line, None and False where they were not given.

    Raises:
        ConfigurationError: a value that cannot be, or a key of the file that is no option.
    """
    if _asked_elsewhere(paths):
        settings = service("settings")({**flags, "paths": tuple(paths)})
        return Asked(**{name: getattr(settings, name) for name in Asked._fields})
    given = {name: flags[name] for name in Asked._fields if was_given(flags.get(name))}
    return Asked(**{name: _value(name, value) for name, value in given.items()})


def was_given(value: Any) -> bool:
    """Whether a flag stood on the command line, by its value: 0 is one."""
    return value is not None and value is not False and value != []


def _asked_elsewhere(paths: Sequence[Path]) -> bool:
    if any(name.startswith("REQON_") for name in os.environ):
        return True
    return any(((path if path.is_dir() else path.parent) / FILE_NAME).is_file() for path in paths)


def _value(name: str, given: Any) -> Any:
    match name:
        case "state_retention":
            return age("--state-retention", given)
        case "shutdown_grace":
            return seconds("--shutdown-grace", given)
        case "journal_max":
            return size("--journal-max", given)
        case "mission":
            return tuple(given)
        case "set":
            return dict(pair("--set", one) for one in given)
    return given
