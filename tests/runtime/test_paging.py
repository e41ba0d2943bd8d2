"""Items of many pages: the same sequence whether they are in memory, in the journal, or in both."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reqon.runtime import paging
from reqon.runtime.paging import JournaledItems, Pages
from reqon.state.backend import BodyRef
from reqon.values import decode, encode


class Bodies:
    """As much of a journal as pages need: bodies by reference."""

    def __init__(self) -> None:
        self.data = b""

    def add(self, body: bytes) -> BodyRef:
        ref = BodyRef(len(self.data), len(body))
        self.data += body
        return ref

    def read_body(self, ref: BodyRef) -> bytes:
        return self.data[ref.offset : ref.offset + ref.length]


PAGES = st.lists(st.lists(st.integers(), max_size=5), min_size=1, max_size=8)


@given(PAGES, st.integers(0, 9), st.booleans())
def test_items_are_the_same_wherever_their_pages_are(
    pages: list[list[int]], journal_takes: int, enveloped: bool
) -> None:
    """The journal takes some pages and no more, as past its cap; envelopes and bare lists alike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paging, "KEEP_BYTES", 0)
        bodies = Bodies()
        whole = Pages(bodies, "0/A:0")  # type: ignore[arg-type]  # as much of a journal as pages need
        for number, items in enumerate(pages):
            body: Any = {"data": items, "page": number} if enveloped else items
            raw = encode(body)
            ref = bodies.add(raw) if number < journal_takes else None
            decoded = decode(raw)
            found = decoded["data"] if enveloped else decoded
            whole.add(decoded, found, ("data",) if enveloped else (), size=len(raw), ref=ref)
        response = whole.result(None)
    everything = [item for items in pages for item in items]
    listed = response["data"] if enveloped else response
    assert list(listed) == everything
    assert len(listed) == len(everything)
    assert [listed[i] for i in range(-len(everything), len(everything))] == everything * 2
    assert listed[1:4] == everything[1:4]
    assert listed[::2] == everything[::2]
    if enveloped:
        assert isinstance(response, Mapping)
        assert response["page"] == len(pages) - 1


def test_an_index_outside_is_an_index_error() -> None:
    bodies = Bodies()
    items = JournaledItems(bodies, "0/A:0")  # type: ignore[arg-type]  # as above
    items.add(bodies.add(b"[1,2]"), (), 2)
    with pytest.raises(IndexError):
        items[2]
