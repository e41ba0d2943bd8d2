"""What must never be shown: one registry that every output goes through (spec/runtime.md 3.7)."""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"
_SHORTEST = 6

_SECRET_NAME = re.compile(r"(?i)(^|_)(token|secret|pass|password|passwd|pwd|key|apikey|credentials?|auth)($|_)")
_SECRET_HEADER = re.compile(
    r"(?i)^(authorization|proxy-authorization|cookie|set-cookie)$|token|secret|password|signature|api-?key"
)
_SECRET_PARAMETER = frozenset(
    ("key", "api_key", "apikey", "token", "access_token", "auth", "password", "secret", "sig", "signature", "code")
)
_HEX = re.compile("%[0-9A-F]{2}")
_QUERY_PAIR = re.compile(r"([?&])([^=&#\s]+)=([^&#\s\"'<>]*)")
_WRITTEN_PAIR = re.compile(r"([?&])([^=&#\s]+)=([^&#\s\"'<>{]+)")


def is_secret_variable(name: str) -> bool:
    """Whether the value of an environment variable of this name is treated as a secret."""
    return _SECRET_NAME.search(name) is not None


def _forms(value: str | None) -> set[str]:
    """How a secret may be written; nothing for one that is too short."""
    if not value or len(value) < _SHORTEST:
        return set()
    packed = base64.b64encode(value.encode()).decode(), base64.urlsafe_b64encode(value.encode()).decode()
    forms = {value, *packed, *(one.rstrip("=") for one in packed)}
    for url in (quote(value, safe=""), quote(value), quote_plus(value)):
        forms |= {url, _HEX.sub(lambda m: m[0].lower(), url)}
    for written in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        # Some APIs escape the slash as well.
        forms |= {written, written.replace("/", "\\/")}
    return forms | {ascii(value)[1:-1]}


class SecretRegistry:
    """The values that are written `***` wherever they turn up, plain, URL-encoded, base64 or JSON-escaped."""

    def __init__(self) -> None:
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._longest = 0
        self._headers: set[str] = set()
        self._parameters: set[str] = set(_SECRET_PARAMETER)

    def add(self, *values: str | None) -> None:
        """Know these from now on. Values below six characters would mask ordinary text and are left out."""
        forms = set().union(*map(_forms, values)) - self._forms
        if forms:
            self._forms |= forms
            self._compile()

    def forget(self, *values: str | None) -> None:
        """Hide these no longer: tokens that were replaced long ago, or a daemon's list would grow for ever."""
        forms = set().union(*map(_forms, values)) & self._forms
        if forms:
            self._forms -= forms
            self._compile()

    def snapshot(self) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        """All that is known now, for `restore`."""
        return frozenset(self._forms), frozenset(self._headers), frozenset(self._parameters)

    def restore(self, known: tuple[frozenset[str], frozenset[str], frozenset[str]]) -> None:
        """Know this and nothing else."""
        self._forms, self._headers, self._parameters = map(set, known)
        self._compile()

    def _compile(self) -> None:
        # Longest first: a secret that contains another one is masked as a whole.
        ordered = sorted(self._forms, key=len, reverse=True)
        self._longest = len(ordered[0]) if ordered else 0
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def add_header(self, name: str) -> None:
        """Hide this header's value, whatever it is."""
        self._headers.add(name.lower())

    def add_parameter(self, name: str) -> None:
        """Hide this query parameter's value, whatever it is."""
        self._parameters.add(name.lower())

    def redact(self, text: str) -> str:
        """The text with every known secret, and every telling query parameter, written `***`."""
        return self._redact(text, _QUERY_PAIR)

    def excerpt(self, text: str, longest: int) -> str:
        """The first `longest` characters of the redacted text: half a secret at the cut would be one, too."""
        return self.redact(text[: longest + self._longest])[:longest]

    def redact_source(self, text: str) -> str:
        """Redact a piece of a mission's text: `{placeholders}` of telling parameters stay, they have no value yet."""
        return self._redact(text, _WRITTEN_PAIR)

    def _redact(self, text: str, pairs: re.Pattern[str]) -> str:
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        if "=" in text and ("?" in text or "&" in text):
            text = pairs.sub(self._redact_pair, text)
        return text

    def _redact_pair(self, match: re.Match[str]) -> str:
        if match[2].lower() not in self._parameters:
            return match[0]
        return f"{match[1]}{match[2]}={MASK}"

    def redact_header(self, name: str, value: str) -> str:
        if name.lower() in self._headers or _SECRET_HEADER.search(name):
            return MASK
        return self.redact(value)

    def redact_parameter(self, name: str, value: Any) -> Any:
        """The value of a query parameter, masked where its name says that it is secret."""
        return MASK if value is not None and name.lower() in self._parameters else self.redact_value(value)

    def redact_value(self, value: Any) -> Any:
        """A copy of a JSON-like value, texts redacted at any depth. Other objects are shown by their redacted text."""
        if isinstance(value, str):
            return self.redact(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {self.redact(str(k)): self.redact_value(v) for k, v in value.items()}
        if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray):
            return [self.redact_value(v) for v in value]
        return self.redact(str(value))


# One for the process: an error built anywhere must be redacted before it is a text.
SECRETS = SecretRegistry()
