"""What an item writes before its place is in the journal (spec/state.md 5).

A resume goes on at a place, with the stores as they were there, and does the item in work again. A request notes the
place before it leaves. Where an item may write first, the place is noted before that, or the write would be part of it
and be done twice.
"""

from collections.abc import Collection, Iterator, Sequence

from reqon.lang import flow, nodes
from reqon.lang.walk import walk

_WRITES = (nodes.StoreStep, nodes.Delete, nodes.Clear, nodes.Queue)
_REQUESTS = (nodes.Fetch, nodes.CallStep, nodes.Wait)
_CALLS = (nodes.Run, nodes.Jump, nodes.Extension)  # which may write and ask, in whatever order
_NESTING = (nodes.For, nodes.MatchStep, nodes.Validate)


def first_writes(steps: Sequence[nodes.Step]) -> Iterator[nodes.Step]:
    """The steps of an action before which its place is to be noted: writes in loops and arms with requests behind."""
    for step in steps:
        if isinstance(step, nodes.For):
            if not step.parallel:
                yield from _unnoted(step.body, asks_later=False)
        elif isinstance(step, _NESTING):
            yield from _unnoted([step], asks_later=False, in_action=True)


def _unnoted(
    steps: Sequence[nodes.Step], *, asks_later: bool, noted: bool = False, in_action: bool = False
) -> Iterator[nodes.Step]:
    for index, step in enumerate(steps):
        later = asks_later or any(isinstance(s, _REQUESTS + _CALLS) for s in flow.steps_in(steps[index + 1 :]))
        if isinstance(step, _REQUESTS):
            noted = noted or not in_action  # there a request notes its step, whose begin is before what was written
        elif isinstance(step, _CALLS) or (later and isinstance(step, _WRITES)):
            if not noted:
                yield step
            noted = True
        elif isinstance(step, nodes.For) and in_action:
            yield from first_writes([step])  # it notes the places of its own items
        elif isinstance(step, _NESTING):
            later = later or (isinstance(step, nodes.For) and asks(step.body))
            for body in _bodies(step):
                yield from _unnoted(body, asks_later=later, noted=noted, in_action=in_action)


def hangs_on_the_world(step: nodes.MatchStep, stores: Collection[str]) -> bool:
    """Whether a match may decide otherwise in a resume, though an arm of it is where that goes on."""
    if not any(asks(body) or any(isinstance(s, nodes.For) for s in flow.steps_in(body)) for body in _bodies(step)):
        return False
    below = {id(node) for body in _bodies(step) for inner in body for node in walk(inner)}
    return any(
        isinstance(node, nodes.Call) or (isinstance(node, nodes.Name) and node.name in stores)
        for node in walk(step)
        if id(node) not in below
    )


def asks(steps: Sequence[nodes.Step]) -> bool:
    """Whether a list sends requests or calls what may."""
    return any(isinstance(step, _REQUESTS + _CALLS) for step in flow.steps_in(steps))


def has_rounds_as_places(body: Sequence[nodes.Step], stores: Collection[str]) -> bool:
    """Whether a resume may go on inside a loop's item, in the round of an inner loop that was in work.

    The item is gone through again up to there, so nothing on the way may write, or see what the rounds have written.
    """
    return _touched(body, stores, before=False) is not None


def _touched(steps: Sequence[nodes.Step], stores: Collection[str], *, before: bool) -> bool | None:
    """Whether stores have been looked at or written to behind these steps; None: a loop with requests comes after."""
    touched: bool | None = before
    for step in steps:
        if not isinstance(step, _NESTING) or not _has_asking_loop(step):
            touched = touched or _touches(step, stores)
            continue
        if isinstance(step, nodes.For):
            if touched or any(_unnoted(step.body, asks_later=False)):
                return None
            touched = _touched(step.body, stores, before=False)
        else:
            seen = bool(touched) or _touches(step, stores, inside=False)
            behind = [_touched(body, stores, before=seen) for body in _bodies(step)]
            touched = None if None in behind else seen or any(behind)
        if touched is None:
            return None
    return touched


def _has_asking_loop(step: nodes.Step) -> bool:
    return any(isinstance(inner, nodes.For) and asks(inner.body) for inner in flow.steps_in([step]))


def _touches(step: nodes.Step, stores: Collection[str], *, inside: bool = True) -> bool:
    """Whether a step, or what is `inside` it, writes or names a store."""
    below = {id(node) for body in _bodies(step) for s in body for node in walk(s)} if not inside else frozenset[int]()
    return any(
        isinstance(node, _WRITES + _CALLS) or (isinstance(node, nodes.Name) and node.name in stores)
        for node in walk(step)
        if id(node) not in below
    )


def _bodies(step: nodes.Step) -> Iterator[Sequence[nodes.Step]]:
    if isinstance(step, nodes.For):
        yield step.body
    elif isinstance(step, nodes.MatchStep):
        for arm in (*step.arms, *step.catch):
            yield flow.steps_of(arm.body)
    elif isinstance(step, nodes.Validate) and step.otherwise is not None:
        yield flow.steps_of(step.otherwise)
