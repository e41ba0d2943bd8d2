"""What a dry run knows: made-up answers, and what follows from them; all else is unknown (spec/runtime.md 18)."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from reqon.errors import ReqonError
from reqon.http.pagination import find_items
from reqon.lang import nodes
from reqon.lang.operators import PagedResult, StoreHandle
from reqon.lang.walk import walk
from reqon.runtime.plan import Plan
from reqon.runtime.steps.storing import key_text, mode_of
from reqon.stores.memory import MemoryStore
from reqon.values import Record, Value


class _Unknown:
    """A value that only a run would know."""

    def __repr__(self) -> str:
        return "unknown"


UNKNOWN: Final = _Unknown()


@dataclass(slots=True)
class Overlay:
    """What local stores would hold: copies of what they hold, and in them what the walk certainly writes.

    Attributes:
        peek: gives the copy of a store; None: nobody knows what is in it.
        uncertain: how many blocks around may not run; what they write is unknown.
    """

    peek: Callable[[str], MemoryStore | None]
    uncertain: int = 0
    _known: dict[str, MemoryStore | None] = field(default_factory=dict)

    def of(self, name: str) -> MemoryStore | None:
        if name not in self._known:
            self._known[name] = self.peek(name)
        return self._known[name]

    def written(self, name: str) -> MemoryStore | None:
        """The copy that a step is about to write into; None, and unknown from now on, if it may not come to that."""
        if self.uncertain:
            self._known[name] = None
        return self.of(name)

    def lose(self, *names: str) -> None:
        """Nobody knows any more what these hold."""
        self._known.update(dict.fromkeys(names))


@dataclass(slots=True)
class Supposed:
    """What is known at one place of the walk.

    Attributes:
        names: variables whose value is known.
        response: with the record behind it; None where it is unknown.
        current: the current item, in a tuple; None where there is none or it is unknown.
        invented: an answer was made up.
    """

    plan: Plan
    overlay: Overlay
    names: dict[str, Value] = field(default_factory=dict)
    response: tuple[Value, Mapping[str, Value]] | None = None
    current: tuple[Value] | None = None
    invented: bool = False

    def value(self, node: nodes.Node, current: tuple[Value] | None = None) -> Any:
        """The value of an expression; UNKNOWN where it hangs on what only a run would find out."""
        known = {**self.plan.lets, **self.names}
        item = self.current if current is None else current
        copies = {name: self.overlay.of(name) for name in self._named(node, self.plan.program.stores)}
        stores = {name: StoreHandle(name, copy) for name, copy in copies.items() if copy is not None}
        try:
            return self.plan.evaluate(
                node,  # type: ignore[arg-type]
                known,
                response=self.response,
                current=item,
                stores=stores,
            )
        except ReqonError:
            return UNKNOWN

    def _named(self, node: nodes.Node, among: Collection[str]) -> set[str]:
        return {one.name for one in walk(node) if isinstance(one, nodes.Name) and one.name in among}

    def made_up(self, node: nodes.Node) -> bool:
        """Whether a value may hang on an answer that was made up; not what is written, or lies in a store."""
        return self.invented and bool(self._named(node, {"response", *self.names}))

    def bind(self, name: str, value: Any) -> None:
        """A variable has this value from now on."""
        self.names.pop(name, None)
        if value is not UNKNOWN:
            self.names[name] = value

    def answer(self, status: int, body: Value, *, paged: bool) -> None:
        """`response` is this answer; that of a paged request is one page."""
        if paged and isinstance(body, dict):
            items, _ = find_items(body)
            body = PagedResult(body, items)
        self.response = (body, {"code": status, "headers": {}})
        self.invented = True

    def becomes(self, value: Any) -> None:
        """`response` is this value."""
        self.response = None if value is UNKNOWN else (value, {})

    @contextmanager
    def block(self) -> Iterator[None]:
        """What is bound inside goes with the block; `response` stays."""
        names, current = dict(self.names), self.current
        try:
            yield
        finally:
            self.names, self.current = names, current

    @contextmanager
    def perhaps(self) -> Iterator[None]:
        """A block of which nobody knows whether it runs: what it makes of `response` is unknown afterwards."""
        before = self.response
        self.overlay.uncertain += 1
        with self.block():
            yield
        self.overlay.uncertain -= 1
        changed = self.response is not before
        self.response = None if changed else before

    # --- steps that write ---

    def store(self, step: nodes.StoreStep) -> None:
        """Put records into the copy of a store."""
        name = step.store.text
        copy = self.overlay.written(name)
        if copy is None:
            return
        key = next((option.value for option in step.options if option.key == "key"), None)
        try:
            for number, record in enumerate(self._records(step.value)):
                own = record.get("id") if key is None else self.value(key, (record,))
                generated = key is None and (own is None or own == "")
                copy.put(f"auto_{copy.count()}_{number}" if generated else key_text(own), record, mode_of(step))
        except (ReqonError, TypeError):
            self.overlay.lose(name)  # unknown, or the run would fail here

    def _records(self, node: nodes.Expression) -> list[Record]:
        """Raises TypeError where they are unknown, or no records."""
        value = self.value(node)
        if isinstance(value, PagedResult):
            value = value.items_
        elif isinstance(value, StoreHandle):
            value = value.records()
        records = [value] if isinstance(value, dict) else list(value)
        if any(not isinstance(record, dict) for record in records):
            raise TypeError
        return records

    def delete(self, step: nodes.Delete) -> None:
        """Take a record out of the copy of a store."""
        copy = self.overlay.written(step.store.text)
        try:
            if copy is not None:
                copy.delete(key_text(self.value(step.key)))
        except ReqonError:
            self.overlay.lose(step.store.text)

    def clear(self, step: nodes.Clear) -> None:
        """Empty the copy of a store."""
        copy = self.overlay.written(step.store.text)
        if copy is not None:
            copy.clear()

    # --- steps that ask ---

    def items(self, step: nodes.For) -> list[Value] | None:
        """The items that a loop would go through; None where they are unknown."""
        collection = self.value(step.collection)
        if isinstance(collection, PagedResult):
            collection = collection.items_
        elif isinstance(collection, StoreHandle):
            collection = collection.records()
        if not isinstance(collection, Sequence) or isinstance(collection, str):
            return [] if collection is None else None
        kept: list[Value] = []
        for item in collection:
            with self.block():
                self.names[step.variable.text] = item
                holds = [self.value(condition, (item,)) for condition in step.conditions]
            if any(value is UNKNOWN for value in holds):
                return None
            if all(holds):
                kept.append(item)
        return kept

    def mapped(self, step: nodes.Map) -> Any:
        """What a `map` step builds."""
        source = self.value(step.value)
        if source is UNKNOWN or step.mapping is None:
            return source
        return self.value(step.mapping, (source,))

    def applied(self, step: nodes.Apply) -> Any:
        """What an `apply` step builds."""
        if self.value(step.value) is UNKNOWN:
            return UNKNOWN
        transform = self.plan.program.transforms[step.transform.text]
        arms = tuple(
            nodes.MatchExpressionArm(
                pattern=nodes.Wildcard(span=v.span)
                if v.schema is None
                else nodes.NamePattern(name=v.schema, span=v.span),
                guard=v.guard,
                value=v.mapping,
                span=v.span,
            )
            for v in transform.variants
        )
        found = self.value(nodes.MatchExpression(subject=step.value, arms=arms, span=step.span))
        return UNKNOWN if found is None else found  # no variant: the run would fail here

    def violated(self, step: nodes.Validate) -> int | None:
        """How many constraints do not hold; None where that is unknown."""
        target: Any
        if step.target is not None:
            target = self.value(step.target)
        else:
            target = UNKNOWN if self.response is None else self.response[0]
        if target is UNKNOWN:
            return None
        count = 0
        for assume in step.constraints:
            if assume.constraints:
                applies = self.value(assume.condition, (target,))
                if applies is UNKNOWN:
                    return None
                if not applies:
                    continue
            tests = [self.value(test, (target,)) for test in assume.constraints or (assume.condition,)]
            if any(test is UNKNOWN for test in tests):
                return None
            count += sum(not test for test in tests)
        return count

    def arm(self, step: nodes.MatchStep) -> tuple[int, Mapping[str, Value]] | None:
        """Which arm a match takes and what its pattern binds: -1 for none; None where that is unknown."""
        subject = step.subject
        if subject is not None and self.value(subject) is UNKNOWN:
            return None
        arms = tuple(self._numbered(number, arm) for number, arm in enumerate(step.arms))
        if not arms:
            return None
        asked = nodes.MatchExpression(subject=subject, arms=arms, span=step.span)
        found = self.value(asked)
        if found is UNKNOWN:
            return None
        if found is None:
            return -1, {}
        number = found.pop("arm")
        return number, found

    def _numbered(self, number: int, arm: nodes.Arm) -> nodes.MatchExpressionArm:
        """The arm with its number, and what it binds, as its value."""
        span = arm.span
        entries = [nodes.Entry(key="arm", value=nodes.Literal_(value=number, span=span), key_span=span, span=span)]
        for node in walk(arm.pattern):
            if isinstance(node, nodes.NamePattern) and node.name.text not in self.plan.schemas:
                name = node.name.text
                bound = nodes.Name(name=name, span=span)
                entries.append(nodes.Entry(key=name, value=bound, key_span=span, span=span))
        value = nodes.ObjectLiteral(entries=tuple(entries), span=span)
        return nodes.MatchExpressionArm(pattern=arm.pattern, guard=arm.guard, value=value, span=span)
