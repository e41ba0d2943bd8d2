"""Content codings: compressed bodies, opened in small steps so that none can grow past its limit."""

import zlib
from collections.abc import Iterator
from typing import Any, Protocol

from reqon.http.transport import TransportError

STEP = 64 * 1024
ACCEPTED = "gzip, deflate, br"


class Decoder(Protocol):
    """Opens one layer of a content coding, about `STEP` bytes at a time."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The opened bytes of the next piece, in steps.

        Raises:
            TransportError: kind parse: the data is no such stream.
        """

    def finish(self) -> None:
        """Check that the stream came to its end.

        Raises:
            TransportError: kind network: it was cut.
        """


def decoder(coding: str) -> Decoder:
    """What opens a body of this coding.

    Raises:
        TransportError: kind unsupported_content: any other coding than those we accept, or two of them.
    """
    name = coding.strip().lower()
    if name in ("gzip", "x-gzip", "deflate"):
        return Zlib(name)
    if name == "br":
        return Brotli()
    raise TransportError(
        f"the answer's Content-Encoding '{coding[:60]}' is not one of {ACCEPTED}",
        kind="unsupported_content",
        sent=True,
    )


class Zlib:
    """gzip and deflate."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._inflate = zlib.decompressobj(31 if coding != "deflate" else 15)
        self._began = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        try:
            yield from self._steps(data)
        except zlib.error as error:
            raise _invalid(self._coding, error) from error

    def _steps(self, data: bytes) -> Iterator[bytes]:
        if not self._began and data:
            self._began = True
            # Some servers send deflate without the zlib wrapper that RFC 9110 asks for.
            if self._coding == "deflate" and (data[0] & 0x0F) != 8:
                self._inflate = zlib.decompressobj(-15)
        opened = b""
        while data or len(opened) == STEP:  # a full step may leave more inside, with no input left to show for it
            if self._inflate.eof:
                if not data.strip(b"\0") or self._coding == "deflate":
                    return
                self._inflate = zlib.decompressobj(31)  # gzip files may follow each other
            opened = self._inflate.decompress(data, STEP)
            if opened:
                yield opened
            data = self._inflate.unconsumed_tail or self._inflate.unused_data

    def finish(self) -> None:
        if self._began and not self._inflate.eof:
            raise _cut(self._coding)


class Brotli:
    """br."""

    def __init__(self) -> None:
        import brotli  # noqa: PLC0415  # few servers use it

        self._error: type[Exception] = brotli.error
        self._inflate: Any = brotli.Decompressor()
        self._began = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        if not data:
            return
        if self._inflate.is_finished():
            raise _invalid("br", "bytes behind its end")
        self._began = True
        try:
            # What the library cannot take at once it keeps; it is asked on with nothing until it takes more.
            while True:
                opened = self._inflate.process(data, output_buffer_limit=STEP)
                if opened:
                    yield opened
                if self._inflate.is_finished() or (not opened and self._inflate.can_accept_more_data()):
                    return
                data = b""
        except self._error as error:
            raise _invalid("br", error) from error

    def finish(self) -> None:
        if self._began and not self._inflate.is_finished():
            raise _cut("br")


def _invalid(coding: str, error: object) -> TransportError:
    return TransportError(f"the answer is not valid {coding}: {error}", kind="parse", sent=True)


def _cut(coding: str) -> TransportError:
    return TransportError(f"the answer's {coding} data ends too early", kind="network", sent=True)
