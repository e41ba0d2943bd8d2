"""The bytes of a document to its value: JSON or YAML by content, within limits (spec/runtime.md 10.1)."""

import re
from typing import Any, Final

from reqon.errors import SpecError
from reqon.values import MAX_DEPTH, JsonError, Value, decode

MAX_BYTES: Final = 64 * 1024 * 1024
MAX_NODES: Final = 1_000_000

_BOM = b"\xef\xbb\xbf"
_JSON_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:0x[0-9a-fA-F]+|0o[0-7]+|[0-9]+|(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)")
_NUMERIC = frozenset("0123456789-+.")
# YAML 1.2's core schema, as OpenAPI asks for: `no` is a text (a country), `012` a number.
_WORDS: Final[dict[str, Value]] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset((f"{_TAG}str", f"{_TAG}timestamp", f"{_TAG}binary", "!"))
_PLAIN_TAGS = frozenset((f"{_TAG}int", f"{_TAG}float", f"{_TAG}bool", f"{_TAG}null"))
_CONTAINER_TAGS = frozenset((None, "!", f"{_TAG}map", f"{_TAG}seq"))
_MAX_DIGITS = 400


def read_document(data: bytes, name: str) -> Value:
    """The value of a JSON or YAML text; YAML's aliases share what they stand for.

    Raises:
        SpecError: neither of the two, more than 64 MiB or 1,000,000 nodes (aliases count as what they stand for),
            nested deeper than 250 levels, a tag or key that JSON has no form for.
    """
    if len(data) > MAX_BYTES:
        raise SpecError(f"{name} has {len(data)} bytes; the limit of a specification is {MAX_BYTES}")
    text = data.removeprefix(_BOM)
    if text.lstrip()[:1] in (b"{", b"["):
        _refuse_many_nodes(text, name)
        try:
            return decode(text)
        except JsonError as error:
            problem = error
        try:
            return _yaml(data, name)  # YAML may begin with a brace too
        except SpecError:
            says = problem.message
            told = f"{name} is {says}" if says.startswith("not JSON") else f"{name} cannot be read: {says}"
            raise SpecError(told, hint="is it the document itself?") from problem
    return _yaml(data, name)


def _refuse_many_nodes(text: bytes, name: str) -> None:
    # Each value but the first follows a comma or opens something; texts are left out only when there may be too many.
    if text.count(b",") + text.count(b"{") + text.count(b"[") >= MAX_NODES:
        bare = _JSON_TEXT.sub(b"", text)
        if bare.count(b",") + bare.count(b"{") + bare.count(b"[") >= MAX_NODES:
            raise _too_many(name)


def _too_many(name: str) -> SpecError:
    return SpecError(f"{name} has more than {MAX_NODES:,} nodes, the limit of a specification")


def _yaml(data: bytes, name: str) -> Value:
    import yaml  # noqa: PLC0415  # only for those who use such a document

    try:
        from yaml import CSafeLoader as Loader  # noqa: PLC0415
    except ImportError:  # a PyYAML without libyaml: ten times slower
        from yaml import SafeLoader as Loader  # type: ignore[assignment]  # noqa: PLC0415
    loader: Any = Loader(data)
    try:
        return _Builder(loader, name).document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        raise SpecError(f"{name} is no YAML{place}: {problem}", hint="is it the document itself?") from error
    finally:
        loader.dispose()


class _Builder:
    """Values from the events of YAML's parser: what PyYAML's own constructor does, in a third of its time."""

    def __init__(self, loader: Any, name: str) -> None:
        from yaml import events  # noqa: PLC0415

        self._next = loader.get_event
        self._name = name
        self._nodes = 0
        self._events = events

    def document(self) -> Value:
        kinds = self._events
        self._next()  # the stream's start
        if isinstance(self._next(), kinds.StreamEndEvent):
            raise SpecError(f"{self._name} is empty")
        value = self._value()
        self._next()  # the document's end
        if not isinstance(event := self._next(), kinds.StreamEndEvent):
            raise self._at(event, "a second document begins here; a specification is one")
        return value

    def _value(self) -> Value:
        """The document's root, built with a stack of its own: nesting is a matter of limits, not of Python's stack."""
        kinds = self._events
        scalar_event, alias_event = kinds.ScalarEvent, kinds.AliasEvent
        mapping_start, sequence_start = kinds.MappingStartEvent, kinds.SequenceStartEvent
        take, resolved = self._next, self._scalar
        anchors: dict[str, tuple[Value, int, int] | None] = {}
        names: dict[str, str] = {}
        # A container being filled: the value, its waiting key (mappings), its anchor, its first node's number, the
        # deepest level below it, and what `<<` brought.
        stack: list[list[Any]] = []
        top: Any = None  # the mapping or list being filled
        is_map = False
        key: Any = _NO_KEY
        count = 0
        while True:
            event = take()
            kind = type(event)
            if kind is scalar_event:
                if is_map and key is _NO_KEY:
                    text = event.value
                    key = names.setdefault(text, text)
                    if event.anchor:
                        anchors[event.anchor] = (text, 1, 0)
                    if key == "<<" and event.implicit[0]:
                        key = _MERGE
                    if key in top:
                        raise self._at(event, f"the key '{text}' stands here twice")
                    continue
                value = resolved(event)
                count += 1
                if event.anchor:
                    anchors[event.anchor] = (value, 1, 0)
                height = 0
            elif kind is mapping_start or kind is sequence_start:
                if is_map and key is _NO_KEY:
                    raise self._at(event, "a key must be a text")
                if event.tag not in _CONTAINER_TAGS:
                    raise self._at(event, f"the tag '{event.tag}' is not allowed")
                if len(stack) >= MAX_DEPTH:
                    raise self._at(event, f"nested deeper than {MAX_DEPTH} levels")
                count += 1
                if event.anchor:
                    anchors[event.anchor] = None
                stack.append([top, is_map, key, event.anchor, count, 0])
                top, is_map, key = ({}, True, _NO_KEY) if kind is mapping_start else ([], False, _NO_KEY)
                continue
            elif kind is alias_event:
                known = anchors.get(event.anchor)
                if known is None:
                    raise self._at(event, f"the alias '{event.anchor}' stands inside of what it stands for")
                value, size, height = known
                count += size
                if len(stack) + height > MAX_DEPTH:
                    raise self._at(event, f"nested deeper than {MAX_DEPTH} levels")
                if is_map and key is _NO_KEY:
                    if not isinstance(value, str):
                        raise self._at(event, "a key must be a text")
                    key = value
                    continue
            else:  # the end of a mapping or sequence
                value = _merged(top) if is_map and _MERGE in top else top
                top, is_map, key, anchor, began, below = stack.pop()
                height = below + 1
                if anchor:
                    anchors[anchor] = (value, count - began + 1, height)
            if count > MAX_NODES:
                raise _too_many(self._name)
            if not stack:
                return value
            stack[-1][5] = max(stack[-1][5], height)
            if is_map:
                top[key] = value
                key = _NO_KEY
            else:
                top.append(value)

    def _scalar(self, event: Any) -> Value:
        text: str = event.value
        if event.implicit[0]:
            if text in _WORDS:
                return _WORDS[text]
            return self._number(text, event) if text[0] in _NUMERIC else text
        tag = event.tag
        if event.implicit[1] or tag is None or tag in _TEXT_TAGS:
            return text
        if tag in _PLAIN_TAGS:
            return _WORDS[text] if text in _WORDS else self._number(text, event)
        raise self._at(event, f"the tag '{tag}' is not allowed")

    def _number(self, text: str, event: Any) -> Value:
        if _NUMBER.fullmatch(text) is None:
            return text
        if len(text) > _MAX_DIGITS:
            raise self._at(event, f"a number has more than {_MAX_DIGITS} digits")
        bare = text.lstrip("+-")
        try:
            if bare.startswith("0x"):
                return int(text, 16)
            if bare.startswith("0o"):
                return int(text, 8)
            return int(text)
        except ValueError:
            number = float(text)
            if number - number != 0:
                raise self._at(event, "a number is too large") from None
            return number

    def _at(self, event: Any, problem: str) -> SpecError:
        mark = event.start_mark
        return SpecError(f"{self._name}, line {mark.line + 1}, column {mark.column + 1}: {problem}")


class _Key:
    """A key that no text is equal to."""


_NO_KEY = _Key()
_MERGE = _Key()


def _merged(top: dict[Any, Value]) -> dict[str, Value]:
    """A mapping with what `<<` brings beneath its own keys; of several mappings the first wins."""
    brought = top.pop(_MERGE)
    out: dict[str, Value] = {}
    for mapping in reversed(brought if isinstance(brought, list) else [brought]):
        if isinstance(mapping, dict):
            out |= mapping
    return out | top
