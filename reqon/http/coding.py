"""Content codings: compressed bodies, opened in small steps so that none can grow past its limit."""

import zlib
from collections.abc import Iterator

from reqon.http.transport import TransportError

STEP = 64 * 1024
ACCEPTED = "gzip, deflate"


class Decoder:
    """Opens one layer of gzip or deflate, at most `STEP` bytes at a time.

    Raises:
        TransportError: kind unsupported_content for any other coding, or two of them.
    """

    def __init__(self, coding: str) -> None:
        self._coding = coding.strip().lower()
        if self._coding not in ("gzip", "x-gzip", "deflate"):
            raise TransportError(
                f"the answer's Content-Encoding '{coding[:60]}' is not one of {ACCEPTED}",
                kind="unsupported_content",
                sent=True,
            )
        self._inflate = zlib.decompressobj(31 if self._coding != "deflate" else 15)
        self._began = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The opened bytes of the next piece, in steps.

        Raises:
            TransportError: kind parse: the data is no such stream.
        """
        try:
            yield from self._steps(data)
        except zlib.error as error:
            raise TransportError(f"the answer is not valid {self._coding}: {error}", kind="parse", sent=True) from error

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
        """Check that the stream came to its end.

        Raises:
            TransportError: kind network: it was cut.
        """
        if self._began and not self._inflate.eof:
            raise TransportError(f"the answer's {self._coding} data ends too early", kind="network", sent=True)
