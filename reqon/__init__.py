"""Reqon: keep your own copy of other people's data right.

    from reqon import execute

The names below are loaded when they are first used, so that `import reqon` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from reqon.__about__ import __version__ as __version__

if TYPE_CHECKING:
    from reqon.api import (
        ExecutionOptions,
        ExecutionResult,
        StoreResult,
        clear_sync_checkpoint,
        clear_sync_checkpoints,
        execute,
        from_file,
        from_path,
        get_execution_history,
        get_execution_state,
        parse,
        register_function,
        register_store_adapter,
        set_state_store,
    )
    from reqon.blocking import (
        clear_sync_checkpoint_sync,
        clear_sync_checkpoints_sync,
        execute_sync,
        from_file_sync,
        from_path_sync,
        get_execution_history_sync,
        get_execution_state_sync,
    )
    from reqon.callbacks import ErrorReport, Progress, ProgressCallbacks
    from reqon.errors import (
        AbortError,
        AuthenticationError,
        CircuitBreakerError,
        ConfigurationError,
        EvaluatorError,
        ExtensionError,
        FetchError,
        LexerError,
        NoMatchError,
        NoVariantError,
        PaginationError,
        ParallelError,
        ParseError,
        RateLimitError,
        RateLimitTimeoutError,
        ReqonError,
        ReqonRuntimeError,
        ResponseValidationError,
        RetryExhaustedError,
        SemanticError,
        SpecError,
        StateError,
        StepError,
        StoreError,
        UnsupportedOperationError,
        ValidationError,
        WebhookTimeoutError,
    )
    from reqon.runner import AlreadyRunningError, ResumeRefusedError
    from reqon.state.records import ExecutionRecord, ExecutionStatus, RunError
    from reqon.webhooks.server import WebhookServer

__all__ = [
    "AbortError",
    "AlreadyRunningError",
    "AuthenticationError",
    "CircuitBreakerError",
    "ConfigurationError",
    "ErrorReport",
    "EvaluatorError",
    "ExecutionOptions",
    "ExecutionRecord",
    "ExecutionResult",
    "ExecutionStatus",
    "ExtensionError",
    "FetchError",
    "LexerError",
    "NoMatchError",
    "NoVariantError",
    "PaginationError",
    "ParallelError",
    "ParseError",
    "Progress",
    "ProgressCallbacks",
    "RateLimitError",
    "RateLimitTimeoutError",
    "ReqonError",
    "ReqonRuntimeError",
    "ResponseValidationError",
    "ResumeRefusedError",
    "RetryExhaustedError",
    "RunError",
    "SemanticError",
    "SpecError",
    "StateError",
    "StepError",
    "StoreError",
    "StoreResult",
    "UnsupportedOperationError",
    "ValidationError",
    "WebhookServer",
    "WebhookTimeoutError",
    "clear_sync_checkpoint",
    "clear_sync_checkpoint_sync",
    "clear_sync_checkpoints",
    "clear_sync_checkpoints_sync",
    "execute",
    "execute_sync",
    "from_file",
    "from_file_sync",
    "from_path",
    "from_path_sync",
    "get_execution_history",
    "get_execution_history_sync",
    "get_execution_state",
    "get_execution_state_sync",
    "parse",
    "register_function",
    "register_store_adapter",
    "set_state_store",
]

_ELSEWHERE = {
    "AlreadyRunningError": "reqon.runner",
    "ErrorReport": "reqon.callbacks",
    "ExecutionRecord": "reqon.state.records",
    "ExecutionStatus": "reqon.state.records",
    "Progress": "reqon.callbacks",
    "ProgressCallbacks": "reqon.callbacks",
    "ResumeRefusedError": "reqon.runner",
    "RunError": "reqon.state.records",
    "WebhookServer": "reqon.webhooks.server",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'reqon' has no attribute '{name}'")
    found = globals()[name] = getattr(import_module(_home(name)), name)
    return found


def _home(name: str) -> str:
    if name.endswith("_sync"):
        return "reqon.blocking"
    return _ELSEWHERE.get(name) or ("reqon.errors" if name.endswith("Error") else "reqon.api")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
