"""What a dry run knows: made-up answers, and what follows from them; all else is unknown (spec/runtime.md 18)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from reqon.errors import ReqonError
from reqon.http.pagination import find_items
from reqon.lang import nodes
from reqon.lang.operators import PagedResult
from reqon.lang.walk import walk
from reqon.runtime.plan import Plan
from reqon.values import Value


class _Unknown:
    """A value that only a run would know."""

    def __repr__(self) -> str:
        return "unknown"


UNKNOWN: Final = _Unknown()


@dataclass(slots=True)
class Supposed:
    """What is known at one place of the walk.

    Attributes:
        names: variables whose value is known.
        response: with the record behind it; None where it is unknown.
        current: the current item, in a tuple; None where there is none or it is unknown.
    """

    plan: Plan
    names: dict[str, Value] = field(default_factory=dict)
    response: tuple[Value, Mapping[str, Value]] | None = None
    current: tuple[Value] | None = None

    def value(self, node: nodes.Node, current: tuple[Value] | None = None) -> Any:
        """The value of an expression; UNKNOWN where it hangs on what only a run would find out."""
        known = {**self.plan.lets, **self.names}
        item = self.current if current is None else current
        try:
            return self.plan.evaluate(node, known, response=self.response, current=item)  # type: ignore[arg-type]
        except ReqonError:
            return UNKNOWN

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
        with self.block():
            yield
        changed = self.response is not before
        self.response = None if changed else before

    # --- steps that ask ---

    def items(self, step: nodes.For) -> list[Value] | None:
        """The items that a loop would go through; None where they are unknown."""
        collection = self.value(step.collection)
        if isinstance(collection, PagedResult):
            collection = collection.items_
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
