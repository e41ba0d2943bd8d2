"""`store`, `delete`, `clear` and `queue`: what a mission does to its stores (spec/language.md 7.6, 7.10)."""

import ast
import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from reqon.clock import rfc3339
from reqon.diagnostics import Diagnostic
from reqon.errors import ConfigurationError, FetchError, StoreError
from reqon.events import DeadLettered
from reqon.lang import nodes
from reqon.lang.compiler import Scope
from reqon.lang.operators import PagedResult, StoreHandle, described
from reqon.lang.operators import text as text_of
from reqon.runtime.codegen import Code, expression, load
from reqon.runtime.frame import Frame
from reqon.runtime.steps.emit import Emitter, Place
from reqon.secrets import SECRETS
from reqon.state.ids import derived_key
from reqon.stores.base import LocalStore, WriteMode
from reqon.values import Record, Value

BATCH = 1000
_MISSING_KEY = "the key of a record"


def emit_store(e: Emitter, step: nodes.StoreStep, scope: Scope, code: Code, place: Place) -> Scope:
    value = e.temporary(step.value, e.value(step.value, scope), code, "value")
    mode = e.constant(_mode(step), "mode")
    options = {o.key: o.value for o in step.options}
    key = options.get("key")
    store = _store(e, step.store.text, step)
    record = e.unit.local("record")
    within = scope.with_current(load(record))
    if isinstance(key, nodes.Node):
        made = expression(
            "KEY if type(KEY := VALUE) is str and 0 < len(KEY) <= 256 else key_text(KEY)",
            key,
            KEY=e.unit.local("key"),
            VALUE=e.value(key, within),  # type: ignore[arg-type]
            key_text=e.constant(key_text, "key_text"),
        )
    else:
        made = expression(
            "KEY if type(KEY := RECORD.get('id')) is str and 0 < len(KEY) <= 256 else own_key(f, RECORD, KEY, PATH, INDICES)",
            step,
            KEY=e.unit.local("key"),
            RECORD=record,
            own_key=e.constant(own_key, "own_key"),
            PATH=ast.Constant(f"{e.action.name.text}:{place.path}", lineno=1, col_offset=0),
            INDICES=e.indices(place, step),
        )
    inner = code.child()
    holes: dict[str, Any] = {
        "VALUE": value,
        "RECORD": record,
        "KEY": made,
        "STORE": store,
        "MODE": mode,
        "store_other": e.constant(store_other, "store_other"),
        "EACH": ast.Constant(step.each, lineno=1, col_offset=0),
    }
    if place.in_loop:
        # The usual record of a loop body goes straight to the store; everything else takes the long way.
        body = "if type(RECORD := VALUE) is dict:\n    STORE.put(KEY, RECORD, MODE)\nelse:\n    store_other(f, VALUE, lambda RECORD: KEY, STORE, MODE, EACH)"
        if step.each:
            body = "store_other(f, VALUE, lambda RECORD: KEY, STORE, MODE, EACH)"
    else:
        holes["store_all"] = e.constant(store_all, "store_all")
        body = "await store_all(f, VALUE, lambda RECORD: KEY, STORE, MODE, EACH)"
    inner.add(body, step, **holes)
    e.effect(step, code, inner, place)
    return scope


def _mode(step: nodes.StoreStep) -> WriteMode:
    written = {o.key: o.value for o in step.options}
    flags: dict[str, bool | None] = {}
    for name in ("upsert", "partial"):
        node = written.get(name)
        if node is not None and not (isinstance(node, nodes.Literal_) and isinstance(node.value, bool)):
            raise ConfigurationError(
                "", Diagnostic("bad-option-value", f"{name} must be true or false", step.span, f"write {name}: true")
            )
        flags[name] = node.value if isinstance(node, nodes.Literal_) else None
    if flags["partial"] is False:
        return WriteMode.REPLACE
    if flags["partial"]:
        return WriteMode.UPDATE if flags["upsert"] is False else WriteMode.MERGE
    return WriteMode.MERGE if flags["upsert"] else WriteMode.REPLACE


def emit_delete(e: Emitter, step: nodes.Delete, scope: Scope, code: Code, place: Place) -> Scope:
    inner = code.child()
    inner.add(
        "STORE.delete(key_text(KEY))",
        step,
        STORE=_store(e, step.store.text, step),
        key_text=e.constant(key_text, "key_text"),
        KEY=e.value(step.key, scope),
    )
    e.effect(step, code, inner, place)
    return scope


def emit_clear(e: Emitter, step: nodes.Clear, scope: Scope, code: Code, place: Place) -> Scope:
    inner = code.child()
    inner.add("STORE.clear()", step, STORE=_store(e, step.store.text, step))
    e.effect(step, code, inner, place)
    return scope


def emit_queue(e: Emitter, step: nodes.Queue, scope: Scope, code: Code, place: Place) -> Scope:
    """`queue`: an item set aside. As a whole arm it leaves as `skip` does; the arm's emitter sees to that."""
    options = {o.key: o.value for o in step.options}
    item, key = options.get("item"), options.get("key")
    none = ast.Constant(None, lineno=1, col_offset=0)
    matched = scope.current if scope.current is not None else none
    given = e.value(item, scope) if isinstance(item, nodes.Node) else none  # type: ignore[arg-type]
    record = e.unit.local("record")
    made: ast.expr = none
    if isinstance(key, nodes.Node):
        key_scope = scope.with_current(load(record)) if item is not None else scope
        made = expression("lambda RECORD: VALUE", key, RECORD=record, VALUE=e.value(key, key_scope))  # type: ignore[arg-type]
    inner = code.child()
    inner.add(
        "set_aside(f, STORE, ITEM, KEY, MATCHED, PATH, INDICES)",
        step,
        set_aside=e.constant(set_aside, "set_aside"),
        STORE=none
        if step.store is None and "dlq" not in e.program.stores
        else _store(e, step.store.text if step.store else "dlq", step),
        ITEM=given,
        KEY=made,
        MATCHED=matched,
        PATH=ast.Constant(f"{e.action.name.text}:{place.path}", lineno=1, col_offset=0),
        INDICES=e.indices(place, step),
    )
    e.effect(step, code, inner, place)
    return scope


def _store(e: Emitter, name: str, node: nodes.Node) -> ast.expr:
    return expression("f.x.stores[NAME].store", node, NAME=ast.Constant(name, lineno=1, col_offset=0))


# --- what the code calls ---------------------------------------------------------------------------------------------


def key_text(key: Value) -> str:
    """A key as text: strings as they are, integral numbers without a fraction, booleans as words.

    Raises:
        StoreError: null, a list, an object, an empty text, or longer than 1024 bytes.
    """
    if isinstance(key, str):
        text = key
    elif isinstance(key, bool | int | float):
        text = text_of(key)
    elif key is None:
        raise StoreError("the key is null", hint="every record needs a key; `.id ?? …` gives another one")
    else:
        raise StoreError(f"a key must be a text, number or boolean, not {described(key)}")
    if not text:
        raise StoreError("the key is an empty text")
    if len(text) > 256 and len(text.encode()) > 1024:
        raise StoreError(f"the key has {len(text.encode())} bytes, the limit is 1024")
    return text


def own_key(f: Frame, record: Record, found: Value, path: str, indices: tuple[int, ...]) -> str:
    """The record's `id`, else a key made of execution, step and loop indices: a repeated step overwrites."""
    if found is not None and found != "" and not isinstance(found, list | dict):
        return key_text(found)
    return derived_key("auto_", f.x.record.execution_id, path, f.index, *indices)


def store_other(
    f: Frame, value: Value, key: Callable[[Record], str], store: LocalStore, mode: WriteMode, each: bool
) -> int:
    """Write a list, a paged result, a store, or one record; how many.

    Raises:
        StoreError: anything else, or an element that is no object.
    """
    records = as_records(value, each)
    if isinstance(records, dict):
        store.put(key(records), records, mode)
        return 1
    store.put_many([(key(_object(r, i)), r) for i, r in enumerate(records)], mode)
    return len(records)


async def store_all(
    f: Frame, value: Value, key: Callable[[Record], str], store: LocalStore, mode: WriteMode, each: bool
) -> None:
    """`store` outside of loops: a long list goes in batches, others run in between; its records count as items."""
    records = as_records(value, each)
    if isinstance(records, dict):
        store.put(key(records), records, mode)
        return
    total = len(records)
    for start in range(0, total, BATCH):
        batch = records[start : start + BATCH]
        store.put_many([(key(_object(r, start + i)), r) for i, r in enumerate(batch)], mode)
        f.x.stored_items += len(batch)
        if start + BATCH < total:
            store.flush()
            f.x.tell_progress(f.action, "store", start + len(batch), total)
            await asyncio.sleep(0)


def as_records(value: Value, each: bool) -> Record | Sequence[Record]:
    """What a `store` step writes: one object, or the records of a list.

    Raises:
        StoreError: null, a scalar; or, with `store each`, no list.
    """
    if isinstance(value, PagedResult):
        return value.items_
    if isinstance(value, StoreHandle):
        return list(value.store.records())
    if isinstance(value, dict) and not each:
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        return value
    wanted = "a list" if each else "an object or a list of objects"
    raise StoreError(
        f"store needs {wanted}, not {described(value)}",
        hint="name the field that holds the records, as in response.data",
    )


def _object(record: Value, index: int) -> Record:
    if not isinstance(record, dict):
        raise StoreError(
            f"element {index} is {described(record)}, not an object", hint="map each element to an object first"
        )
    return record


def set_aside(
    f: Frame,
    store: LocalStore | None,
    item: Value,
    key: Callable[[Record], Value] | None,
    matched: Value,
    path: str,
    indices: tuple[int, ...],
) -> None:
    """Write an item to a dead-letter store, or the failure itself when no item is given. On disk when it returns."""
    x = f.x
    if store is None:
        store = x.dead_letters().store
    for number, one in enumerate(item if isinstance(item, list) else [item]):
        record = one if one is not None else _failure(f, matched, store)
        if not isinstance(record, dict):
            record = {"value": record}
        made = key(record) if key is not None else record.get("id")
        if made is None or made == "":
            made = derived_key("dlq_", x.record.execution_id, path, f.index, *indices, number)
        text = key_text(made)
        store.put(text, record if "id" in record else {"id": text, **record}, WriteMode.REPLACE)
        if x.wants(DeadLettered):
            x.emit(DeadLettered(store_name=store.name, key=text), action=f.action)
    store.flush()


def _failure(f: Frame, matched: Value, store: LocalStore) -> Record:
    failure = f.failure
    loop = f.loop
    item = loop.current(f.index) if loop is not None and (failure is not None) else matched
    identity = item.get("id") if isinstance(item, dict) else None
    known = store.get(key_text(identity)) if isinstance(identity, str | int) and identity != "" else None
    attempts = known.get("attemptCount", 0) if known else 0
    record: Record = {} if identity is None else {"id": key_text(identity)}
    record |= {
        "item": SECRETS.redact_value(item) if failure is not None and item is matched else item,
        "error": failure.message if failure else None,
        "code": failure.status_code if failure else None,
        "kind": failure.kind if failure else None,
        "mission": f.x.record.mission,
        "action": f.action,
        "step": f.step,
        "executionId": f.x.record.execution_id,
        "queuedAt": rfc3339(f.x.now()),
        "attemptCount": (attempts if isinstance(attempts, int) else 0) + 1,
        "retryable": isinstance(failure, FetchError)
        and (
            failure.status_code in (408, 425, 429)
            or failure.status_code >= 500
            or failure.kind in ("timeout", "network")
        ),
    }
    return record
