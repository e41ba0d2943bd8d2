"""Compressed answers: opened right in any pieces, never more than a step at a time."""

import gzip
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reqon.http.coding import STEP, decoder
from reqon.http.transport import TransportError

CODINGS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress}


def opened(coding: str, data: bytes, piece: int) -> list[bytes]:
    opening = decoder(coding)
    out = [step for at in range(0, len(data), piece) for step in opening.feed(data[at : at + piece])]
    opening.finish()
    return out


@pytest.mark.parametrize("coding", CODINGS)
@given(content=st.binary(max_size=2000), times=st.integers(1, 200), piece=st.integers(1, 700))
def test_what_was_packed_comes_out_in_whatever_pieces_it_comes_in(
    coding: str, content: bytes, times: int, piece: int
) -> None:
    assert b"".join(opened(coding, CODINGS[coding](content * times), piece)) == content * times


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_opens_in_small_steps(coding: str) -> None:
    """N1"""
    packed = CODINGS[coding](b"\0" * (8 * 1024 * 1024))
    opening = decoder(coding)
    steps = [len(step) for step in opening.feed(packed)]
    assert sum(steps) == 8 * 1024 * 1024 and max(steps) <= 2 * STEP


@pytest.mark.parametrize("coding", CODINGS)
def test_a_cut_stream_is_an_error_wherever_it_is_cut(coding: str) -> None:
    """N1"""
    packed = CODINGS[coding](b'{"id": 12, "name": "Anna"}')
    for end in range(1, len(packed)):
        with pytest.raises(TransportError) as caught:
            opened(coding, packed[:end], 7)
        assert caught.value.kind in ("network", "parse"), end
