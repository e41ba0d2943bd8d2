"""What `$ref` means: where it leads, and where it must not (spec/runtime.md 10.1)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from reqon.errors import SpecError
from reqon.http.addresses import origin_of
from reqon.http.openapi.document import Document
from reqon.http.openapi.pointers import MissingError, pointer_of, tokens_of
from reqon.values import Record, Value

_MAX_HOPS = 100

OpenDocument = Callable[[str], Document]  # a document that belongs to the specification, by its location


class Found(NamedTuple):
    """A value and where it stands: its document, and the JSON pointer in it."""

    document: Document
    pointer: str
    value: Value

    @property
    def place(self) -> str:
        """The place as messages show it."""
        return f"{shown(self.document.location)}#{self.pointer}"

    def below(self, *tokens: object) -> "Found":
        """A part of the value; None as its value where there is none."""
        value = self.value
        for token in tokens:
            if isinstance(value, dict) and isinstance(token, str):
                value = value.get(token)
            elif isinstance(value, list) and isinstance(token, int) and token < len(value):
                value = value[token]
            else:
                value = None
        return Found(self.document, self.pointer + pointer_of(tokens), value)


class References:
    """The documents of one specification, opened when a `$ref` leads to them."""

    def __init__(self, root: Document, open_document: OpenDocument) -> None:
        self.root = root
        self.documents: dict[str, Document] = {root.location: root}
        self._open = open_document
        self._is_url = is_url(root.location)
        if self._is_url:
            self._origin = origin_of(urldefrag(root.location).url.partition("?")[0])
        else:
            self._tree = os.path.realpath(Path(root.location).parent)

    def resolved(self, found: Found) -> Found:
        """What a value is once its `$ref`s are followed. Other keys beside a `$ref` in 3.1 win over its target's.

        Raises:
            SpecError: a target is missing, lies outside, or the references go in a circle.
        """
        hops = 0
        beside: Record = {}
        while isinstance(found.value, dict) and (written := reference_in(found)) is not None:
            keyword, ref = written
            if found.document.version == "3.1":
                beside = {**{k: v for k, v in found.value.items() if k != keyword}, **beside}
            hops += 1
            if hops > _MAX_HOPS:
                raise SpecError(f"{found.place}: '$ref' goes in a circle")
            found = self.target(ref, found)
        if beside and isinstance(found.value, dict):
            return found._replace(value={**found.value, **beside})
        return found

    def target(self, ref: str, found: Found) -> Found:
        """Where one `$ref` leads; what stands there may be a `$ref` again.

        Raises:
            SpecError: nowhere, or where it must not.
        """
        address, fragment = urldefrag(ref)
        document = self._document(address, found, ref) if address else found.document
        try:
            name = unquote(fragment)
            pointer = pointer_of(tokens_of(document.anchor(name) or name))
            return Found(document, pointer, document.at(pointer))
        except MissingError as missing:
            hint = "references are JSON pointers, such as '#/components/schemas/Bin', or the name of one $anchor"
            problem = f"'$ref: {ref}' leads nowhere: there is no '{missing.args[0]}'"
            raise SpecError(f"{found.place}: {problem}", hint=None if fragment.startswith("/") else hint) from None

    def _document(self, address: str, found: Found, ref: str) -> Document:
        location = self._inside(address, found, ref)
        known = self.documents.get(location)
        if known is None:
            try:
                known = self.documents[location] = self._open(location)
            except SpecError as error:
                raise SpecError(f"{found.place}: '$ref: {ref}' cannot be read: {error.message}") from error
        return known

    def _inside(self, address: str, found: Found, ref: str) -> str:
        """The location of another document of this specification.

        A file may refer to files in its own directory tree, a document from a URL to others of its origin.
        """
        if self._is_url:
            location = urljoin(found.document.location, address)
            try:
                allowed = origin_of(location.partition("?")[0]) == self._origin
            except ValueError:
                allowed = False
            if not allowed:
                raise self._outside(found, ref, "a specification from a URL may refer to its own origin only")
            return location
        if is_url(address) or urlsplit(address).scheme or address.startswith("/") or "\\" in address:
            raise self._outside(found, ref, "a specification in a file may refer to relative paths only")
        location = os.path.realpath(Path(found.document.location).parent / unquote(address))
        if os.path.commonpath((location, self._tree)) != self._tree:
            raise self._outside(found, ref, f"it may refer to files below {self._tree} only")
        return location

    def _outside(self, found: Found, ref: str, rule: str) -> SpecError:
        return SpecError(f"{found.place}: '$ref: {ref}' is not followed", hint=rule)


def reference_in(found: Found) -> tuple[str, str] | None:
    """The keyword that makes an object a reference, and where it leads.

    A `$dynamicRef` leads to the one `$dynamicAnchor` of its name: what callers of a schema may put in its place is not
    looked at.
    """
    for keyword in ("$ref", "$dynamicRef") if found.document.version == "3.1" else ("$ref",):
        if isinstance(ref := found.value.get(keyword), str):
            return keyword, ref
    return None


def shown(location: str) -> str:
    """A location for messages: without the query of a URL, which may hold a token."""
    return location.partition("?")[0] if is_url(location) else location


def is_url(location: str) -> bool:
    """Whether a location is a URL, not a path."""
    return location[:8].lower().startswith(("http://", "https://"))
