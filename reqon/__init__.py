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
        register_auth_provider,
        register_function,
        register_pagination_strategy,
        register_step_handler,
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
    from reqon.callbacks import (
        CircuitBreakerCallbacks,
        ErrorReport,
        Progress,
        ProgressCallbacks,
        RateLimitCallbacks,
    )
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
    from reqon.events import Emitted
    from reqon.http.transport import FunctionTransport, RawAnswer, TransportError
    from reqon.instance import Reqon
    from reqon.lang.transforming import transform
    from reqon.observe.emitter import EventEmitter, create_emitter
    from reqon.observe.logger import StructuredLogger, create_structured_logger
    from reqon.observe.otlp import OTLPExporter
    from reqon.observe.outputs import (
        BufferOutput,
        ConsoleOutput,
        EventOutput,
        JsonLinesOutput,
        LogEntry,
        OTelLogOutput,
    )
    from reqon.observe.spans import SpanBuilder
    from reqon.observe.traces import OTelEventAdapter, create_otel_listener
    from reqon.runner import AlreadyRunningError, ResumeRefusedError
    from reqon.runtime.hooks import ActionOutcome, Hooks, StepMoment, StepOutcome
    from reqon.runtime.steps.extension import ExtensionStep, StepContext
    from reqon.state.records import ExecutionRecord, ExecutionStatus, RunError
    from reqon.stores.base import StoreAdapter, WriteCounts
    from reqon.stores.filters import StoreFilter
    from reqon.tracing import generate_span_id, generate_trace_id
    from reqon.webhooks.server import WebhookServer

__all__ = [
    "AbortError",
    "ActionOutcome",
    "AlreadyRunningError",
    "AuthenticationError",
    "BufferOutput",
    "CircuitBreakerCallbacks",
    "CircuitBreakerError",
    "ConfigurationError",
    "ConsoleOutput",
    "Emitted",
    "ErrorReport",
    "EvaluatorError",
    "EventEmitter",
    "EventOutput",
    "ExecutionOptions",
    "ExecutionRecord",
    "ExecutionResult",
    "ExecutionStatus",
    "ExtensionError",
    "ExtensionStep",
    "FetchError",
    "FunctionTransport",
    "Hooks",
    "JsonLinesOutput",
    "LexerError",
    "LogEntry",
    "NoMatchError",
    "NoVariantError",
    "OTLPExporter",
    "OTelEventAdapter",
    "OTelLogOutput",
    "PaginationError",
    "ParallelError",
    "ParseError",
    "Progress",
    "ProgressCallbacks",
    "RateLimitCallbacks",
    "RateLimitError",
    "RateLimitTimeoutError",
    "RawAnswer",
    "Reqon",
    "ReqonError",
    "ReqonRuntimeError",
    "ResponseValidationError",
    "ResumeRefusedError",
    "RetryExhaustedError",
    "RunError",
    "SemanticError",
    "SpanBuilder",
    "SpecError",
    "StateError",
    "StepContext",
    "StepError",
    "StepMoment",
    "StepOutcome",
    "StoreAdapter",
    "StoreError",
    "StoreFilter",
    "StoreResult",
    "StructuredLogger",
    "TransportError",
    "UnsupportedOperationError",
    "ValidationError",
    "WebhookServer",
    "WebhookTimeoutError",
    "WriteCounts",
    "clear_sync_checkpoint",
    "clear_sync_checkpoint_sync",
    "clear_sync_checkpoints",
    "clear_sync_checkpoints_sync",
    "create_emitter",
    "create_otel_listener",
    "create_structured_logger",
    "execute",
    "execute_sync",
    "from_file",
    "from_file_sync",
    "from_path",
    "from_path_sync",
    "generate_span_id",
    "generate_trace_id",
    "get_execution_history",
    "get_execution_history_sync",
    "get_execution_state",
    "get_execution_state_sync",
    "parse",
    "register_auth_provider",
    "register_function",
    "register_pagination_strategy",
    "register_step_handler",
    "register_store_adapter",
    "set_state_store",
    "transform",
]

_ELSEWHERE = {
    "ActionOutcome": "reqon.runtime.hooks",
    "AlreadyRunningError": "reqon.runner",
    "BufferOutput": "reqon.observe.outputs",
    "CircuitBreakerCallbacks": "reqon.callbacks",
    "ConsoleOutput": "reqon.observe.outputs",
    "Emitted": "reqon.events",
    "ErrorReport": "reqon.callbacks",
    "EventEmitter": "reqon.observe.emitter",
    "EventOutput": "reqon.observe.outputs",
    "ExecutionRecord": "reqon.state.records",
    "ExecutionStatus": "reqon.state.records",
    "ExtensionStep": "reqon.runtime.steps.extension",
    "FunctionTransport": "reqon.http.transport",
    "Hooks": "reqon.runtime.hooks",
    "JsonLinesOutput": "reqon.observe.outputs",
    "LogEntry": "reqon.observe.outputs",
    "OTLPExporter": "reqon.observe.otlp",
    "OTelEventAdapter": "reqon.observe.traces",
    "OTelLogOutput": "reqon.observe.outputs",
    "Progress": "reqon.callbacks",
    "ProgressCallbacks": "reqon.callbacks",
    "RateLimitCallbacks": "reqon.callbacks",
    "RawAnswer": "reqon.http.transport",
    "Reqon": "reqon.instance",
    "ResumeRefusedError": "reqon.runner",
    "RunError": "reqon.state.records",
    "WebhookServer": "reqon.webhooks.server",
    "SpanBuilder": "reqon.observe.spans",
    "StepContext": "reqon.runtime.steps.extension",
    "StepMoment": "reqon.runtime.hooks",
    "StepOutcome": "reqon.runtime.hooks",
    "StructuredLogger": "reqon.observe.logger",
    "TransportError": "reqon.http.transport",
    "create_emitter": "reqon.observe.emitter",
    "create_otel_listener": "reqon.observe.traces",
    "create_structured_logger": "reqon.observe.logger",
    "generate_span_id": "reqon.tracing",
    "generate_trace_id": "reqon.tracing",
    "transform": "reqon.lang.transforming",
    "StoreAdapter": "reqon.stores.base",
    "StoreFilter": "reqon.stores.filters",
    "WriteCounts": "reqon.stores.base",
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
