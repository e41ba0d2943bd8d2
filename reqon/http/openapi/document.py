"""One document, checked and kept in pieces, so that a large one costs only what is looked at (spec/runtime.md 10.1).

The compiled form is one run of bytes: a line that names it, a line of JSON that says where each piece lies, and the
pieces, as JSON. It is what is kept in memory and, for documents that take time to read, beside them on the disk.
"""

import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final
from zlib import crc32

from reqon.errors import ReqonError, SpecError
from reqon.http.openapi.pointers import MissingError, pointer_of, tokens_of, walk_to
from reqon.http.openapi.swagger import METHODS, MOVED, converted
from reqon.values import Record, Value, convert, decode, encode

MAGIC: Final = b"reqon-openapi 1\n"

_VERSIONS = re.compile(r"3\.[01](?:\.|$)")
_IN_PIECES = ("paths", "webhooks")
_METHODS = frozenset(METHODS)


class Document:
    """A document that was compiled. What is asked for is decoded once and then shared: never change it.

    Attributes:
        location: an absolute path or URL, for messages and for what is relative to it.
        version: `3.0` or `3.1`; empty for a document that holds only parts of one.
        operations: operationId -> (method, path).
        count: how many operations there are, those without an id included.
        elsewhere: paths whose item is a `$ref`.
    """

    __slots__ = (
        "_anchors", "_data", "_decoded", "_pieces", "count", "elsewhere", "is_swagger", "location", "operations",
        "version",
    )  # fmt: skip

    def __init__(self, location: str, data: bytes) -> None:
        """Open a compiled form.

        Raises:
            SpecError: it is damaged.
        """
        start = data.index(b"\n", len(MAGIC)) + 1
        head: Any = decode(data[len(MAGIC) : start])
        if crc32(memoryview(data)[start:]) != head["crc"]:
            raise SpecError(f"the compiled form of {location} is damaged")
        self.location = location
        self.version: str = head["version"]
        self.is_swagger: bool = head["swagger"]
        self.count: int = head["count"]
        self.elsewhere: list[str] = head["elsewhere"]
        self.operations: dict[str, tuple[str, str]] = convert(head["operations"], dict[str, tuple[str, str]])
        self._pieces: dict[str, tuple[int, int]] = {
            name: (start + at, size) for name, (at, size) in head["pieces"].items()
        }
        self._data = data
        self._decoded: dict[str, Value] = {}
        self._anchors: dict[str, str | None] | None = None

    def __repr__(self) -> str:
        return f"Document({self.location})"

    @property
    def data(self) -> bytes:
        """The compiled form."""
        return self._data

    def at(self, pointer: str) -> Value:
        """The value at a JSON pointer.

        Raises:
            MissingError: there is none.
        """
        tokens = tokens_of(pointer)
        if self.is_swagger and tokens and tokens[0] in MOVED:
            tokens = ["components", MOVED[tokens[0]], *tokens[1:]]
        for length in range(min(len(tokens), 3), -1, -1):
            name = pointer_of(tokens[:length])
            if name in self._pieces:
                return walk_to(self._piece(name), tokens[length:])
        return self._joined(tokens)

    def anchor(self, name: str) -> str | None:
        """The pointer of the schema that an `$anchor` or `$dynamicAnchor` gives this name; None where there is none.

        Of several of one name nobody can tell which is meant: then there is none.
        """
        if not name or name.startswith("/"):
            return None
        if self._anchors is None:
            self._anchors = self._named()
        return self._anchors.get(name)

    def _named(self) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        stack: list[tuple[str, Value]] = [("", self.at(""))]
        while stack:
            pointer, value = stack.pop()
            if isinstance(value, dict):
                for keyword in ("$anchor", "$dynamicAnchor"):
                    if isinstance(name := value.get(keyword), str):
                        found[name] = None if name in found else pointer
                stack += [(pointer + pointer_of([key]), inner) for key, inner in value.items()]
            elif isinstance(value, list):
                stack += [(pointer + pointer_of([number]), inner) for number, inner in enumerate(value)]
        return found

    def has(self, pointer: str) -> bool:
        """Whether there is anything at a pointer."""
        try:
            self.at(pointer)
        except MissingError:
            return False
        return True

    def names(self, pointer: str) -> list[str]:
        """The keys of an object that is kept in pieces, such as `/components/schemas`."""
        start = pointer + "/"
        found = (tokens_of(name)[-1] for name in self._pieces if name.startswith(start))
        return list(found)

    def _piece(self, name: str) -> Value:
        known = self._decoded.get(name, self)
        if known is not self:
            return known
        at, size = self._pieces[name]
        value = self._decoded[name] = decode(self._data[at : at + size])
        return value

    def _joined(self, tokens: list[str]) -> Value:
        """An object that was taken to pieces, put together."""
        start = pointer_of(tokens) + "/"
        out: Record = {}
        for name in self._pieces:
            if name.startswith(start) or start == "/":
                below = tokens_of(name)[len(tokens) :]
                place = out
                for token in below[:-1]:
                    place = place.setdefault(token, {})
                place[below[-1]] = self._piece(name)
        if not out:
            raise MissingError(tokens[-1] if tokens else "")
        return out


def digest_of(data: bytes) -> str:
    """What tells the text of one document from another."""
    return blake2b(data, digest_size=16).hexdigest()


def same_text(compiled: bytes, digest: str) -> bool:
    """Whether a compiled form is of the text with this digest, and of this release's making."""
    if not compiled.startswith(MAGIC):
        return False
    end = compiled.find(b"\n", len(MAGIC))
    return f'"digest":"{digest}"'.encode() in compiled[len(MAGIC) : min(end, len(MAGIC) + 200)]


def compiled(value: Value, *, digest: str, name: str, whole: bool) -> bytes:
    """The compiled form of a document's value. `whole`: it must be an OpenAPI document, and is checked.

    Raises:
        SpecError: with all its problems, each with its place.
    """
    swagger = isinstance(value, dict) and "swagger" in value and "openapi" not in value
    problems: list[tuple[str, str]] = []
    if isinstance(value, dict) and (whole or "openapi" in value or swagger):
        version = _version(value, problems)
        if swagger and not problems:
            original: Record = value
            value = converted(original, lambda ref: _within(original, ref))
        index = _index(value)
        if whole:
            problems += _missing(value)
            problems += index.problems
        cut = _cut(value)
    elif whole:
        raise problems_error(name, [("", "the document is no object with 'openapi', 'info' and 'paths'")])
    else:
        version, index, cut = "", _Index(), iter([("", value)])
    if problems and whole:
        raise problems_error(name, problems)
    pieces: dict[str, tuple[int, int]] = {}
    body: list[bytes] = []
    at = 0
    try:
        for pointer, part in cut:
            text = encode(part)
            pieces[pointer] = (at, len(text))
            body.append(text)
            at += len(text)
        whole_body = b"".join(body)
        head = {
            "digest": digest,
            "crc": crc32(whole_body),
            "version": version,
            "swagger": swagger,
            "count": index.count,
            "elsewhere": index.elsewhere,
            "operations": index.operations,
            "pieces": pieces,
        }
        return b"".join((MAGIC, encode(head), b"\n", whole_body))
    except ReqonError as error:
        raise SpecError(f"{name} cannot be used: {error.message}") from error


def _within(document: Record, ref: str) -> Value:
    if not ref.startswith("#"):
        return None
    try:
        return walk_to(document, tokens_of(ref[1:]))
    except MissingError:
        return None


def _cut(value: Record) -> Iterator[tuple[str, Value]]:
    """The pieces of a document, by pointer: each path, each component, and whatever else stands at the top."""
    for key, part in value.items():
        if key in _IN_PIECES and isinstance(part, dict) and part:
            for name, item in part.items():
                yield pointer_of((key, name)), item
        elif key == "components" and isinstance(part, dict) and part:
            for kind, entries in part.items():
                if isinstance(entries, dict) and entries:
                    for name, item in entries.items():
                        yield pointer_of((key, kind, name)), item
                else:
                    yield pointer_of((key, kind)), entries
        else:
            yield pointer_of((key,)), part


# --- checks ----------------------------------------------------------------------------------------------------------

_SHOWN_PROBLEMS = 20


def problems_error(name: str, problems: list[tuple[str, str]]) -> SpecError:
    """One error with all problems of a document; each names its place, a JSON pointer."""
    from reqon.diagnostics import Diagnostic  # noqa: PLC0415

    texts = [f"{name}{'#' + pointer if pointer else ''}: {problem}" for pointer, problem in problems]
    shown = [Diagnostic("spec", text) for text in texts[:_SHOWN_PROBLEMS]]
    if len(texts) > _SHOWN_PROBLEMS:
        shown.append(Diagnostic("spec", f"{name}: {len(texts) - _SHOWN_PROBLEMS} more problems of this kind"))
    error = SpecError("", *shown)
    error.spec, error.problems = name, tuple(texts)
    return error


def _version(value: Record, problems: list[tuple[str, str]]) -> str:
    written = value.get("openapi", value.get("swagger"))
    if written is None:
        problems.append(("", "'openapi' is missing: it says which version the document is, such as \"3.1.0\""))
        return ""
    text = str(written)
    if "openapi" in value and _VERSIONS.match(text):
        return text[:3]
    if "openapi" not in value and text in ("2.0", "2"):
        return "3.0"
    word = "openapi" if "openapi" in value else "swagger"
    problems.append((f"/{word}", f"version {text} is not known; 3.0, 3.1 and Swagger 2.0 are"))
    return ""


def _missing(value: Record) -> Iterator[tuple[str, str]]:
    info = value.get("info")
    for key in ("title", "version"):
        found = info.get(key) if isinstance(info, dict) else None
        if found is None:
            yield "/info", f"'{key}' is missing"
    if not isinstance(value.get("paths"), dict):
        yield ("/paths" if "paths" in value else ""), "'paths' is missing, or no object"


class _Index:
    """The operations of a document, and what is wrong with them."""

    def __init__(self) -> None:
        self.operations: dict[str, tuple[str, str]] = {}
        self.count = 0
        self.elsewhere: list[str] = []
        self.problems: list[tuple[str, str]] = []


def _index(value: Record) -> _Index:
    index = _Index()
    paths = value.get("paths")
    for path, item in paths.items() if isinstance(paths, dict) else ():
        place = pointer_of(("paths", path))
        if path.startswith("x-"):
            continue
        if not path.startswith("/"):
            index.problems.append((place, "a path begins with '/'"))
        if not isinstance(item, dict):
            index.problems.append((place, "a path's item is an object"))
            continue
        if "$ref" in item:
            index.elsewhere.append(path)
        for method, operation in operations_of(item):
            index.count += 1
            identity = operation.get("operationId")
            if isinstance(identity, str) and identity:
                first = index.operations.setdefault(identity, (method, path))
                if first != (method, path):
                    problem = f"operationId '{identity}' is that of {first[0].upper()} {first[1]} already"
                    index.problems.append((f"{place}/{method}", problem))
    return index


def operations_of(item: Record) -> Iterator[tuple[str, Record]]:
    """The operations of a path's item, by method."""
    for method, operation in item.items():
        if method in _METHODS and isinstance(operation, dict):
            yield method, operation
