"""Signed calls: an HMAC over the body as it came, with or without a time stamp (spec/runtime.md 12.2, 12.3)."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from reqon.clock import parse_rfc3339
from reqon.secrets import SECRETS
from reqon.values import Value

ALGORITHMS = ("sha256", "sha1", "sha512")
ENCODINGS = ("hex", "base64")
_MILLISECONDS_FROM = 1e11


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """How the calls of one endpoint are signed.

    A header may hold several parts, separated by commas (`t=1717000000,v1=5f3c…`): with a `prefix` the parts that begin
    with it are signatures, and if it is the stamp's header too, the stamp is its part `t=`.
    """

    secret: str = field(repr=False)
    header: str
    algorithm: str = "sha256"
    encoding: str = "hex"
    prefix: str = ""
    timestamp_header: str | None = None
    tolerance_seconds: float = 300.0

    def kept(self, variable: str) -> dict[str, Value]:
        """All of it but the secret, which the environment variable of this name holds."""
        return {
            "secretFrom": variable,
            "header": self.header,
            "algorithm": self.algorithm,
            "encoding": self.encoding,
            "prefix": self.prefix,
            "timestampHeader": self.timestamp_header,
            "tolerance": self.tolerance_seconds,
        }

    @classmethod
    def known(cls, kept: Mapping[str, Any], environment: Mapping[str, str]) -> Self | None:
        """What was `kept`, where the variable is set here too."""
        secret = environment.get(kept["secretFrom"])
        if not secret:
            return None
        SECRETS.add(secret)
        return cls(
            secret=secret,
            header=kept["header"],
            algorithm=kept["algorithm"],
            encoding=kept["encoding"],
            prefix=kept["prefix"],
            timestamp_header=kept["timestampHeader"],
            tolerance_seconds=kept["tolerance"],
        )

    def problem(self, headers: Mapping[str, str], body: bytes, now: datetime) -> str | None:
        """Why a call is not to be trusted; None if it is. `headers` have lower-case names."""
        given = self._given(headers)
        if not given:
            return "no signature"
        signed = body
        if self.timestamp_header is not None:
            text = self._stamp(headers)
            stamp = _instant(text)
            if stamp is None:
                return "no time stamp"
            if abs((now - stamp).total_seconds()) > self.tolerance_seconds:
                return "the time stamp is too old, or in the future"
            signed = text.encode() + b"." + body
        right = self._encoded(hmac.digest(self.secret.encode(), signed, self.algorithm))
        # All are compared, whichever is right: the time it takes says nothing.
        matches = [hmac.compare_digest(self._comparable(one), right) for one in given]
        return None if any(matches) else "wrong signature"

    def identity(self, headers: Mapping[str, str]) -> str | None:
        """What only a repeated call has in common with another; None where signatures hold no time stamp."""
        if self.timestamp_header is None:
            return None
        told = "\n".join([self._stamp(headers), *self._given(headers)])
        return f"signature:{hashlib.sha256(told.encode()).hexdigest()}"

    def _given(self, headers: Mapping[str, str]) -> list[str]:
        value = headers.get(self.header.lower(), "").strip()
        if not self.prefix:
            return [value] if value else []
        parts = [part.strip() for part in value.split(",")][:16]
        return [part[len(self.prefix) :] for part in parts if part.startswith(self.prefix)]

    def _stamp(self, headers: Mapping[str, str]) -> str:
        assert self.timestamp_header is not None
        value = headers.get(self.timestamp_header.lower(), "").strip()
        for part in value.split(","):
            if part.strip().startswith("t="):
                return part.strip()[2:]
        return value

    def _encoded(self, digest: bytes) -> bytes:
        return digest.hex().encode() if self.encoding == "hex" else base64.b64encode(digest)

    def _comparable(self, given: str) -> bytes:
        text = given.lower() if self.encoding == "hex" else given
        return text.encode("utf-8", "backslashreplace")


def _instant(text: str) -> datetime | None:
    """The time that a stamp names: seconds or milliseconds since 1970, or RFC 3339."""
    try:
        number = float(text)
    except ValueError:
        try:
            return parse_rfc3339(text)
        except ValueError:
            return None
    try:
        return datetime.fromtimestamp(number / 1000 if abs(number) >= _MILLISECONDS_FROM else number, UTC)
    except (OverflowError, OSError, ValueError):
        return None
