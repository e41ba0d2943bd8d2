"""`store`, `delete`, `clear` and `queue`: what a mission does to its stores (spec/language.md 7.6, 7.10)."""

import ast
import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from reqon.clock import rfc3339
from reqon.diagnostics import Diagnostic
from reqon.errors import ConfigurationError, StoreError
from reqon.events import DeadLettered
from reqon.http.failures import is_retryable
from reqon.lang import nodes
from reqon.lang.compiler import Scope
from reqon.lang.forms import elements
from reqon.lang.operators import Backed, ErrorResponse, PagedResult, StoreHandle, described
from reqon.lang.operators import text as text_of
from reqon.runtime.codegen import Code, expression, load
from reqon.runtime.frame import Frame
from reqon.runtime.paging import complete_origin, items_of
from reqon.runtime.steps.emit import Emitter, Place
from reqon.secrets import SECRETS
from reqon.state.ids import derived_key
from reqon.stores.base import LocalStore, WriteMode
from reqon.stores.memory import MemoryStore, Pages
from reqon.values import Record, Value

BATCH = 1000
_DICTS = frozenset((dict, Backed))  # what a record usually is
_OPERATIONS = {WriteMode.REPLACE: "set", WriteMode.UPDATE: "update", WriteMode.MERGE: "upsert"}
Key: TypeAlias = Callable[[Record, int], str]  # of a record, and its number in its list


def emit_store(e: Emitter, step: nodes.StoreStep, scope: Scope, code: Code, place: Place) -> Scope:
    value = e.temporary(step.value, e.value(step.value, scope), code, "value")
    mode = e.constant(mode_of(step), "mode")
    options = {o.key: o.value for o in step.options}
    key = options.get("key")
    store = _store(e, step.store.text, step, through=e.caught)
    record, number = e.unit.local("record"), e.unit.local("number")
    within = scope.with_current(load(record))
    made: ast.expr
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
            "KEY if type(KEY := RECORD.get('id')) is str and 0 < len(KEY) <= 256"
            " else own_key(f, KEY, PATH, INDICES, NUMBER)",
            step,
            KEY=e.unit.local("key"),
            RECORD=record,
            own_key=e.constant(own_key, "own_key"),
            PATH=ast.Constant(place.path, lineno=1, col_offset=0),
            INDICES=e.indices(place, step),
            NUMBER=number,
        )
    inner = code.child()
    holes: dict[str, Any] = {
        "VALUE": value,
        "RECORD": record,
        "NUMBER": number,
        "DICTS": e.constant(_DICTS, "dicts"),
        "KEY": made,
        "STORE": store,
        "MODE": mode,
        "store_other": e.constant(store_other, "store_other"),
        "EACH": ast.Constant(step.each, lineno=1, col_offset=0),
        "PARTIAL": ast.Constant(_flag(options.get("partial")), lineno=1, col_offset=0),
    }
    long_way = "store_other(f, VALUE, lambda RECORD, NUMBER: KEY, STORE, MODE, EACH, PARTIAL)"
    if not place.in_loop:
        holes["store_all"] = e.constant(store_all, "store_all")
        body = "await store_all(f, VALUE, lambda RECORD, NUMBER: KEY, STORE, MODE, EACH, PARTIAL)"
    elif step.each or "partial" in options or e.watched:
        body = long_way  # which also remembers the key, for whoever listens
    else:
        # The usual record of a loop body goes straight to the store; everything else takes the long way.
        numbered = "" if isinstance(key, nodes.Node) else "    NUMBER = 0\n"
        body = f"if type(RECORD := VALUE) in DICTS:\n{numbered}    STORE.put(KEY, RECORD, MODE)\nelse:\n    {long_way}"
    inner.add(body, step, **holes)
    if e.caught:
        inner.add("STORE.flush()", step, STORE=store)
    e.effect(step, code, inner, place)
    return scope


def mode_of(step: nodes.StoreStep) -> WriteMode:
    """What a store step does to a record that is there."""
    written = {o.key: o.value for o in step.options}
    upsert, partial = _flag(written.get("upsert")), _flag(written.get("partial"))
    if partial is False:
        return WriteMode.REPLACE
    if partial:
        return WriteMode.UPDATE if upsert is False else WriteMode.MERGE
    return WriteMode.MERGE if upsert else WriteMode.REPLACE


def operation_of(step: nodes.StoreStep) -> str:
    """What a store step does, in the word of its event."""
    return _OPERATIONS[mode_of(step)]


def _flag(node: object) -> bool | None:
    """`true` or `false` as written; None where it is not."""
    if node is None:
        return None
    if isinstance(node, nodes.Literal_) and isinstance(node.value, bool):
        return node.value
    assert isinstance(node, nodes.Node)
    raise ConfigurationError(
        "", Diagnostic("bad-option-value", "upsert and partial are true or false", node.span, "write upsert: true")
    )


def emit_delete(e: Emitter, step: nodes.Delete, scope: Scope, code: Code, place: Place) -> Scope:
    inner = code.child()
    inner.add(
        "STORE.delete(key_text(KEY))",
        step,
        STORE=_store(e, step.store.text, step, through=e.caught),
        key_text=e.constant(key_text, "key_text"),
        KEY=e.value(step.key, scope),
    )
    e.effect(step, code, inner, place)
    return scope


def emit_clear(e: Emitter, step: nodes.Clear, scope: Scope, code: Code, place: Place) -> Scope:
    inner = code.child()
    inner.add("STORE.clear()", step, STORE=_store(e, step.store.text, step, through=e.caught))
    e.effect(step, code, inner, place)
    return scope


def emit_queue(e: Emitter, step: nodes.Queue, scope: Scope, code: Code, place: Place) -> Scope:
    """`queue`: an item set aside. As a whole arm it leaves as `skip` does; the arm's emitter sees to that."""
    options = {o.key: o.value for o in step.options}
    item, key = options.get("item"), options.get("key")
    none = ast.Constant(None, lineno=1, col_offset=0)
    matched = scope.current if scope.current is not None else none
    around = load(place.item) if place.item is not None else none
    given = e.value(item, scope) if isinstance(item, nodes.Node) else none  # type: ignore[arg-type]
    record = e.unit.local("record")
    made: ast.expr = none
    if isinstance(key, nodes.Node):
        key_scope = scope.with_current(load(record)) if item is not None else scope
        made = expression("lambda RECORD: VALUE", key, RECORD=record, VALUE=e.value(key, key_scope))  # type: ignore[arg-type]
    inner = code.child()
    inner.add(
        "set_aside(f, STORE, ITEM, KEY, MATCHED, AROUND, PATH, INDICES)",
        step,
        set_aside=e.constant(set_aside, "set_aside"),
        STORE=none
        if step.store is None and "dlq" not in e.program.stores
        else _store(e, step.store.text if step.store else "dlq", step, through=True),
        ITEM=given,
        KEY=made,
        MATCHED=matched,
        AROUND=around,
        PATH=ast.Constant(place.path, lineno=1, col_offset=0),
        INDICES=e.indices(place, step),
    )
    e.effect(step, code, inner, place)
    e.note_flow("queue", step, code)
    return scope


def _store(e: Emitter, name: str, node: nodes.Node, *, through: bool = False) -> ast.expr:
    template = "f.x.stores[NAME].through" if through else "f.x.stores[NAME].store"
    return expression(template, node, NAME=ast.Constant(name, lineno=1, col_offset=0))


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


def own_key(f: Frame, found: Value, path: str, indices: tuple[int, ...], number: int) -> str:
    """A record's `id`, else a key made of execution, step, rounds of loops and its number in the list that is written.

    So a repeated step overwrites.
    """
    if found is not None and found != "" and not isinstance(found, list | dict):
        return key_text(found)
    return derived_key("auto_", f.x.record.execution_id, f"{f.origin}:{path}", f.index, *indices, number)


def store_other(
    f: Frame,
    value: Value,
    key: Key,
    store: LocalStore,
    mode: WriteMode,
    each: bool,
    partial: bool | None,
) -> None:
    """Write a list, a paged result, a store, or one record.

    Raises:
        StoreError: anything else, or an element that is no object.
    """
    records = as_records(value, each, f.response)
    f.x.written_key = _put(store, [records] if isinstance(records, dict) else records, 0, key, mode, partial)


async def store_all(
    f: Frame,
    value: Value,
    key: Key,
    store: LocalStore,
    mode: WriteMode,
    each: bool,
    partial: bool | None,
) -> None:
    """`store` outside of loops: a long list goes in batches, others run in between; its records count as items."""
    records = as_records(value, each, f.response)
    if isinstance(records, dict):
        f.x.written_key = _put(store, [records], 0, key, mode, partial)
        return
    total = len(records)
    plain = items_of(value) is not None  # of pages, as they came
    origin = complete_origin(value, f.x.journal) if isinstance(store, MemoryStore) else None
    for start in range(0, total, BATCH):
        batch = records[start : start + BATCH]
        _put(store, batch, start, key, mode, partial, plain=plain, origin=origin)
        f.x.stored_items += len(batch)
        if start + BATCH < total:
            store.flush()
            f.x.tell_progress(f.action, "store", start + len(batch), total)
            await asyncio.sleep(0)


def _put(
    store: LocalStore,
    records: Sequence[Record],
    first: int,
    key: Key,
    mode: WriteMode,
    partial: bool | None,
    *,
    plain: bool = False,
    origin: str | None = None,
) -> str | None:
    """Write a batch; `first` is the index of its first record. The store remembers a `partial` that is written.

    Answers the key where it is one record.

    `plain`: they are as JSON gave them; `origin` says where the journal has them.
    """
    batch = [(key(_object(record, number), number), record) for number, record in enumerate(records, first)]
    if plain and isinstance(store, MemoryStore):
        store.put_plain(batch, mode, pages=None if origin is None else Pages(origin, first))
    else:
        store.put_many(batch, mode)
    if partial is not None:
        for written, _ in batch:
            store.partial[written] = partial
    return batch[0][0] if len(batch) == 1 else None


def as_records(value: Value, each: bool, response: Value = None) -> Record | Sequence[Record]:
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
        hint=(
            f"the response is text, not JSON: {_begin(response)}"
            if isinstance(response, str)
            else "name the field that holds the records, as in response.data"
        ),
    )


def _begin(text: str) -> str:
    return repr(SECRETS.excerpt(text, 60) + "…" if len(text) > 60 else text)


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
    around: Value,
    path: str,
    indices: tuple[int, ...],
) -> None:
    """Write an item to a dead-letter store, or the failure itself when no item is given. On disk when it returns.

    `matched` is what the arm's match looked at, `around` the item of the innermost loop.
    """
    x = f.x
    if store is None:
        store = x.dead_letters().store
    given = elements(item)
    is_failure = given is None and item is None
    for number, one in enumerate([item] if given is None else list(given)):
        record = _failure(f, matched, around, store) if is_failure else one
        if not isinstance(record, dict):
            record = {"value": record}
        made = key(record) if key is not None else record.get("id")
        if made is None or made == "":
            made = derived_key("dlq_", x.record.execution_id, f"{f.origin}:{path}", f.index, *indices, number)
        text = key_text(made)
        if is_failure or record.get("id") is None:
            record = {"id": text, **{name: value for name, value in record.items() if name != "id"}}
        store.put(text, record, WriteMode.REPLACE)
        if x.wants(DeadLettered):
            retryable = record.get("retryable") if is_failure else None
            x.emit(DeadLettered(store_name=store.name, key=text, retryable=retryable), action=f.action)
    store.flush()


def _failure(f: Frame, matched: Value, around: Value, store: LocalStore) -> Record:
    """The failure record: what was in work, why it failed, where, and how often by now (spec/runtime.md 11)."""
    failure = f.failure if isinstance(matched, ErrorResponse) else None
    item = around if failure is not None else matched
    identity = item.get("id") if isinstance(item, dict) else None
    named = isinstance(identity, str | int | float) and identity != ""
    known = store.get(key_text(identity)) if named else None
    attempts = known.get("attemptCount", 0) if known else 0
    return {
        **({"id": key_text(identity)} if named else {}),
        "item": SECRETS.redact_value(item),
        "error": failure.message if failure else None,
        "code": failure.status_code if failure else None,
        "kind": failure.kind if failure else None,
        "request": f.request,
        "mission": f.x.record.mission,
        "action": f.action,
        "step": f.step,
        "executionId": f.x.record.execution_id,
        "queuedAt": rfc3339(f.x.now()),
        "attemptCount": (attempts if isinstance(attempts, int) else 0) + 1,
        "retryable": failure is not None and is_retryable(failure),
    }
