"""The variables that missions see: the process's own, and what `.env` files add (spec/runtime.md 3.2)."""

import os
from collections.abc import Mapping
from pathlib import Path

from reqon.errors import ConfigurationError


def environment(file: Path | None = None) -> Mapping[str, str]:
    """`.env`, then `.env.local`, or the given file alone, fill what the process has not set; it is never overridden.

    Raises:
        ConfigurationError: the given file cannot be read.
    """
    if file is not None and not file.is_file():
        raise ConfigurationError(f"--env {file} is no file that can be read", hint="check the path")
    files = [file] if file is not None else [p for p in (Path(".env"), Path(".env.local")) if p.is_file()]
    if not files:
        return os.environ
    from dotenv import dotenv_values  # noqa: PLC0415  # only where there is such a file

    found: dict[str, str] = {}
    for one in files:
        try:
            values = dotenv_values(one, interpolate=True)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{one} cannot be read: {error}") from error
        found |= {name: value for name, value in values.items() if value is not None}
    return {**found, **os.environ}


def state_directory(given: Path | None, variables: Mapping[str, str] = os.environ) -> Path:
    """`--state-dir`, else `REQON_STATE_DIR`, else `.vague-data` here."""
    return given or Path(variables.get("REQON_STATE_DIR") or ".vague-data")
