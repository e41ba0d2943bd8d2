"""What a journal may forget: whatever a resume does not need."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reqon.runtime.resume import KeptBack
from reqon.state.backend import JournalEntry
from reqon.state.compaction import is_behind, superseded


@st.composite
def histories(draw: st.DrawFn) -> list[JournalEntry]:
    """Entries as a run leaves them: changes by rising numbers, and now and then what was written."""
    entries = []
    taken = {"a": 0, "b": 0}
    done = {"a": 0, "b": 0}
    refused: dict[str, set[int]] = {"a": set(), "b": set()}
    for store, kept in draw(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=30)):
        if kept:
            count = draw(st.integers(1, 4))
            changes: list[Any] = [[taken[store] + n, "set", f"k{n}", {"n": n}] for n in range(1, count + 1)]
            taken[store] += count
            entries.append(JournalEntry("kept", {"store": store, "changes": changes}, None))
        elif taken[store] > done[store]:
            before, done[store] = done[store], draw(st.integers(done[store] + 1, taken[store]))
            new = draw(st.sets(st.integers(before + 1, done[store]), max_size=2))
            # What was refused before may have been taken since, by a resume.
            refused[store] = {n for n in refused[store] if draw(st.booleans())} | new
            fields = {"store": store, "done": done[store], "but": sorted(refused[store])}
            entries.append(JournalEntry("written", fields, None))
    return entries


def folded(entries: list[JournalEntry]) -> dict[str, tuple[list[int], int]]:
    found: dict[str, KeptBack] = {}
    for entry in entries:
        found.setdefault(entry.fields["store"], KeptBack()).take(entry)
    return {store: (sorted(kept.changes), kept.last) for store, kept in found.items()}


@given(histories())
def test_a_resume_finds_the_same_changes_after_a_compaction(entries: list[JournalEntry]) -> None:
    dropped = set(superseded(enumerate(entries), {}))
    left = [entry for number, entry in enumerate(entries) if number not in dropped]
    known = {store: state for store, state in folded(entries).items() if state != ([], 0)}
    assert folded(left) == known


def test_what_was_written_goes_and_what_was_not_stays() -> None:
    def kept(*numbers: int) -> JournalEntry:
        return JournalEntry("kept", {"store": "s", "changes": [[n, "set", str(n), {}] for n in numbers]}, None)

    def written(done: int, *but: int) -> JournalEntry:
        return JournalEntry("written", {"store": "s", "done": done, "but": list(but)}, None)

    history = [kept(1, 2), written(1), kept(3), written(3, 2), kept(4)]
    assert list(superseded(enumerate(history), {})) == [1, 2]


ROUND = (9, 4711)  # of how many, and the checksum of their list: both do not matter here


@pytest.mark.parametrize(
    ("kept", "place", "behind"),
    [
        # An item of the outermost loop is done when the loop is at a later one, or says so.
        ({"i": 1}, {"i": 2}, True),
        ({"i": 2}, {"i": 1}, False),
        ({"i": 3}, {"i": 1, "done": [3, 5]}, True),
        ({"i": 4}, {"i": 1, "done": [3, 5]}, False),
        # In the item that is in work: rounds before that of the same inner loop.
        ({"i": 1, "in": [("0", 1)]}, {"i": 1, "in": [("0", 3, *ROUND)]}, True),
        ({"i": 1, "in": [("0", 3)]}, {"i": 1, "in": [("0", 3, *ROUND)]}, False),
        ({"i": 1, "in": [("0", 4)]}, {"i": 1, "in": [("0", 3, *ROUND)]}, False),
        # What came before that loop is needed to get there again; so are loops that are over.
        ({"i": 1}, {"i": 1, "in": [("0", 3, *ROUND)]}, False),
        ({"i": 1, "in": [("0", 1)]}, {"i": 1}, False),
        ({"i": 1, "in": [("0", 1)]}, {"i": 1, "in": [("1", 3, *ROUND)]}, False),
        # Loops in loops.
        ({"i": 1, "in": [("0", 1), ("00", 7)]}, {"i": 1, "in": [("0", 2, *ROUND)]}, True),
        (
            {"i": 1, "in": [("0", 2), ("00", 5)]},
            {"i": 1, "in": [("0", 2, *ROUND), ("00", 6, *ROUND)]},
            True,
        ),
        (
            {"i": 1, "in": [("0", 2), ("00", 6)]},
            {"i": 1, "in": [("0", 2, *ROUND), ("00", 6, *ROUND)]},
            False,
        ),
        (
            {"i": 1, "in": [("0", 3), ("00", 1)]},
            {"i": 1, "in": [("0", 2, *ROUND), ("00", 6, *ROUND)]},
            False,
        ),
        (
            {"i": 1, "in": [("0", 2), ("01", 1)]},
            {"i": 1, "in": [("0", 2, *ROUND), ("00", 6, *ROUND)]},
            False,
        ),
        ({"i": 1, "in": [("0", 2)]}, {"i": 1, "in": [("0", 2, *ROUND), ("00", 6, *ROUND)]}, False),
    ],
)
def test_what_belongs_to_a_place_that_is_done(kept: dict[str, Any], place: dict[str, Any], behind: bool) -> None:
    assert is_behind(kept, place) is behind

    def dropped(**said: Any) -> list[int]:
        reply = JournalEntry("reply", {"a": "A", "p": "1", **kept}, None)
        there = JournalEntry("progress", {"a": "A", "p": "1", **place, **said}, None)
        return list(superseded(enumerate([reply, there, reply]), {"s": 6}))

    assert dropped() == dropped(n={"s": 6}) == ([0] if behind else [])
    # A place that relies on lines which are not safe yet ends nothing; nor does one of another loop.
    assert dropped(n={"s": 7}) == dropped(p="2") == []
