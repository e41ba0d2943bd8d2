"""Which module writes which kind of step."""

from collections.abc import Mapping
from typing import Any

from reqon.lang import nodes
from reqon.runtime.steps.directives import emit_abort, emit_continue, emit_jump, emit_retry, emit_run, emit_skip
from reqon.runtime.steps.extension import emit_extension
from reqon.runtime.steps.fetch import emit_fetch
from reqon.runtime.steps.loop import emit_for
from reqon.runtime.steps.mapping import emit_apply, emit_let, emit_map
from reqon.runtime.steps.matching import emit_match
from reqon.runtime.steps.storing import emit_clear, emit_delete, emit_queue, emit_store
from reqon.runtime.steps.validation import emit_validate


def emit_call(*arguments: Any) -> Any:
    """Write a `call`. What it needs is loaded by those who have one."""
    from reqon.runtime.steps import call  # noqa: PLC0415

    return call.emit_call(*arguments)


def emit_wait(*arguments: Any) -> Any:
    """Write a `wait`, likewise."""
    from reqon.runtime.steps import wait  # noqa: PLC0415

    return wait.emit_wait(*arguments)


EMITTERS: Mapping[type[nodes.Node], Any] = {
    nodes.Fetch: emit_fetch,
    nodes.CallStep: emit_call,
    nodes.For: emit_for,
    nodes.Map: emit_map,
    nodes.Apply: emit_apply,
    nodes.Validate: emit_validate,
    nodes.StoreStep: emit_store,
    nodes.Delete: emit_delete,
    nodes.Clear: emit_clear,
    nodes.Queue: emit_queue,
    nodes.MatchStep: emit_match,
    nodes.Let: emit_let,
    nodes.Skip: emit_skip,
    nodes.Continue: emit_continue,
    nodes.Abort: emit_abort,
    nodes.Retry: emit_retry,
    nodes.Jump: emit_jump,
    nodes.Run: emit_run,
    nodes.Wait: emit_wait,
    nodes.Extension: emit_extension,
}
