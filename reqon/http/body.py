"""Bodies: a value to bytes, an answer's bytes to a value (spec/runtime.md 2.5 and 2.6)."""

import codecs
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

from reqon.errors import FetchError, UnsupportedOperationError
from reqon.http.paths import text_of
from reqon.values import JsonError, Value, decode, encode

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"
_LINES = frozenset(("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"))
_TEXTS = frozenset(("application/xml", "application/javascript", "application/yaml", "application/x-yaml"))
_BOM = b"\xef\xbb\xbf"
# Ways to write text, no charsets: slow with long ones, or half a character comes out.
_NO_CHARSETS = frozenset(("idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"))
_SHOWN = 60  # characters that a message shows of what a server named


class MediaType(NamedTuple):
    """A Content-Type: how its bodies are read, and in which charset. `reading`: json, lines, form, text, none."""

    name: str
    reading: str
    charset: str


@lru_cache(maxsize=128)
def media_type(content_type: str | None) -> MediaType:
    """What a Content-Type header means; without one, JSON."""
    if content_type is None:
        return MediaType("", "json", "utf-8")
    name, _, rest = content_type.partition(";")
    name = name.strip().lower()
    charset = "utf-8"
    for parameter in rest.split(";"):
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "charset" and value:
            charset = value.strip().strip("\"'").lower()
    if name in ("", _JSON) or name.endswith("+json"):
        return MediaType(name, "json", charset)
    if name in _LINES:
        return MediaType(name, "lines", charset)
    if name == _FORM:
        return MediaType(name, "form", charset)
    if name.startswith("text/") or name in _TEXTS or name.endswith("+xml"):
        return MediaType(name, "text", charset)
    return MediaType(name, "none", charset)


def encode_body(value: Value, content_type: str | None) -> tuple[bytes, str | None]:
    """The bytes of a body, and the Content-Type to add when the request has none of its own.

    Raises:
        UnsupportedOperationError: the value has no form in this content type.
    """
    name = media_type(content_type).name if content_type is not None else ""
    if name in ("", _JSON) or name.endswith("+json"):
        try:
            return encode(value), None if content_type is not None else _JSON
        except JsonError as error:
            raise _unsupported(f"this body cannot be sent as JSON: {error.message}") from error
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace"), None
    if name == _FORM and isinstance(value, dict):
        return urlencode(list(_form_fields(value))).encode("ascii"), None
    raise _unsupported(
        f"a body of this kind cannot be sent as {name}", hint="send a string, or leave Content-Type out to send JSON"
    )


def _unsupported(message: str, hint: str | None = None) -> UnsupportedOperationError:
    error = UnsupportedOperationError(message, hint=hint)
    error.operation = "body"
    return error


def _form_fields(fields: dict[str, Value]) -> "list[tuple[str, str]]":
    pairs: list[tuple[str, str]] = []
    for name, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                text = text_of(one)
                pairs.append((name, encode(one).decode() if text is None else text))
    return pairs


def decode_body(raw: bytes, content_type: str | None) -> tuple[Value, bool]:
    """The value of an answer's body, and whether it was read as JSON. Empty is null.

    Raises:
        FetchError: kind parse: not what the type says, or undecodable; unsupported_content: a type we don't read.
    """
    if not raw:
        return None, False
    kind = media_type(content_type)
    if kind.reading == "json":
        return _json(raw, kind), True
    if kind.reading == "none":
        raise FetchError(
            f"the answer is {kind.name[:_SHOWN]}, which has no value here",
            kind="unsupported_content",
            hint="ask for JSON or text with an Accept header, if the API offers it",
        )
    text = _text(raw, kind.charset)
    if kind.reading == "lines":
        try:
            # Not splitlines: U+2028 and others that Python breaks lines at may stand in a JSON text.
            return [decode(line) for line in text.split("\n") if line and not line.isspace()], True
        except JsonError as error:
            raise FetchError(_unreadable("a line of the answer", error), kind="parse") from error
    if kind.reading == "form":
        return dict(parse_qsl(text, keep_blank_values=True)), False
    if text.lstrip()[:1] in ("{", "["):
        try:
            return decode(text), True
        except JsonError:
            return text, False
    return text, False


def _json(raw: bytes, kind: MediaType) -> Value:
    try:
        if kind.charset in ("utf-8", "utf8", "us-ascii"):
            return decode(raw[3:] if raw.startswith(_BOM) else raw)
        return decode(_text(raw, kind.charset))
    except JsonError as error:
        hint = "the answer looks like HTML; is `base` the API's own address?" if raw.lstrip()[:1] == b"<" else None
        raise FetchError(_unreadable("the answer", error), kind="parse", hint=hint) from error


def _unreadable(what: str, error: JsonError) -> str:
    says = error.message
    return f"{what} is {says}" if says.startswith("not JSON") else f"{what} cannot be read: {says}"


def _text(raw: bytes, charset: str) -> str:
    try:
        if charset in ("utf-8", "utf8"):
            return raw.decode("utf-8-sig")
        return codecs.decode(raw, codecs.lookup(charset).name) if is_charset(charset) else _refuse(charset)
    except UnicodeError as error:
        where = f": byte {error.start} cannot be decoded" if isinstance(error, UnicodeDecodeError) else ""
        raise FetchError(f"the answer is not {charset[:_SHOWN]}{where}", kind="parse") from error


def _refuse(charset: str) -> str:
    raise FetchError(f"the answer's charset '{charset[:_SHOWN]}' is unknown", kind="parse")


@lru_cache(maxsize=64)
def is_charset(charset: str) -> bool:
    """Python's codecs include compressors and others that make no text of bytes."""
    try:
        codec = codecs.lookup(charset)
    except (LookupError, ValueError):
        return False
    return codec._is_text_encoding and codec.name not in _NO_CHARSETS  # noqa: SLF001
