"""The blocking twins of the Python API, for scripts without an event loop (spec/state.md 9)."""

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, Unpack

from reqon.api import (
    ExecutionOptions,
    ExecutionResult,
    clear_sync_checkpoint,
    clear_sync_checkpoints,
    execute,
    from_file,
    from_path,
    get_execution_history,
    get_execution_state,
)
from reqon.lang.program import MissionProgram, Program
from reqon.state.records import ExecutionRecord, ExecutionStatus

T = TypeVar("T")


def execute_sync(source: str | Program | MissionProgram, **options: Unpack[ExecutionOptions]) -> ExecutionResult:
    """As `execute`, for scripts.

    Raises:
        As `execute`; RuntimeError: an event loop runs here, where it is awaited instead.
    """
    return _blocking(execute(source, **options))


def from_file_sync(path: Path | str, **options: Unpack[ExecutionOptions]) -> ExecutionResult:
    """As `from_file`, for scripts.

    Raises:
        As `from_file`; RuntimeError: an event loop runs here, where it is awaited instead.
    """
    return _blocking(from_file(path, **options))


def from_path_sync(path: Path | str, **options: Unpack[ExecutionOptions]) -> ExecutionResult:
    """As `from_path`, for scripts.

    Raises:
        As `from_path`; RuntimeError: an event loop runs here, where it is awaited instead.
    """
    return _blocking(from_path(path, **options))


def get_execution_state_sync(
    mission: str,
    execution_id: str | None = None,
    *,
    state_dir: Path | str | None = None,
    state_store: str | None = None,
) -> ExecutionRecord | None:
    """As `get_execution_state`, for scripts.

    Raises:
        As `get_execution_state`; RuntimeError: an event loop runs here, where it is awaited instead.
    """
    return _blocking(get_execution_state(mission, execution_id, state_dir=state_dir, state_store=state_store))


def get_execution_history_sync(
    mission: str | None = None,
    *,
    limit: int | None = 10,
    since: datetime | None = None,
    status: ExecutionStatus | str | None = None,
    state_dir: Path | str | None = None,
    state_store: str | None = None,
) -> list[ExecutionRecord]:
    """As `get_execution_history`, for scripts.

    Raises:
        As `get_execution_history`; RuntimeError: an event loop runs here, where it is awaited instead.
    """
    asked = get_execution_history(
        mission, limit=limit, since=since, status=status, state_dir=state_dir, state_store=state_store
    )
    return _blocking(asked)


def clear_sync_checkpoints_sync(*, state_dir: Path | str | None = None, state_store: str | None = None) -> int:
    """As `clear_sync_checkpoints`, for scripts.

    Raises:
        As `clear_sync_checkpoints`; RuntimeError: an event loop runs here, where it is awaited instead.
    """
    return _blocking(clear_sync_checkpoints(state_dir=state_dir, state_store=state_store))


def clear_sync_checkpoint_sync(
    key: str, *, state_dir: Path | str | None = None, state_store: str | None = None
) -> bool:
    """As `clear_sync_checkpoint`, for scripts.

    Raises:
        As `clear_sync_checkpoint`; RuntimeError: an event loop runs here, where it is awaited instead.
    """
    return _blocking(clear_sync_checkpoint(key, state_dir=state_dir, state_store=state_store))


def _blocking(work: Coroutine[Any, Any, T]) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    work.close()
    name = getattr(work, "__name__", "")
    raise RuntimeError(f"{name}_sync() was called where an event loop runs: write `await {name}(…)` there")
