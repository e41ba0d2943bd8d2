"""The state that commands look at: its directory, and the stores that hold executions."""

import os
from pathlib import Path

from reqon.cli import show
from reqon.cli.environment import environment, state_directory
from reqon.state.choice import StateStores
from reqon.state.directory import StateDirectory


def state_stores(state_dir: Path | None, state_store: str | None) -> StateStores:
    """All stores of a state directory, or the one that was named; warnings go to stderr. Makes nothing."""
    variables = environment()
    directory = StateDirectory(state_directory(state_dir, variables), warn=show.warning)
    only = state_store or os.environ.get("REQON_STATE_STORE") or None
    return StateStores(directory, only=only, environment=variables)
