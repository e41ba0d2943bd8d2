"""Mission texts: each file read and parsed once per load."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from reqon.diagnostics import Diagnostic, Source, Span
from reqon.lang import nodes
from reqon.lang.folders import refuse_no_file
from reqon.lang.parser import parse

MAX_BYTES = 1024 * 1024

_DECLARED = re.compile(r"\b(?:source|store|schema|transform|action|let)\s+`?([A-Za-z_][A-Za-z0-9_]*)")


# The component schemas of the OpenAPI document that an import names, whose file lies in a folder.
Components: TypeAlias = Callable[[nodes.ImportDef, Path], Mapping[str, nodes.SchemaDef]]


@dataclass(frozen=True, slots=True)
class Text:
    """One file's text, tree and findings."""

    path: Path
    source: Source
    tree: nodes.SourceFile
    diagnostics: tuple[Diagnostic, ...]

    @property
    def missions(self) -> list[nodes.MissionDef]:
        return [item for item in self.tree.items if isinstance(item, nodes.MissionDef)]


class Texts:
    """Reads files; never raises for one that can't be read, but says so in its findings.

    `components` looks into OpenAPI documents; None: nobody does.
    """

    def __init__(self, components: Components | None = None) -> None:
        self.components = components
        self._read: dict[tuple[str, bool], Text] = {}
        self._given: dict[str, Source] = {}
        self._declared: set[str] | None = None

    def give(self, path: Path, source: Source) -> None:
        """Let a path have this text, whatever is on the disk."""
        self._given[os.path.realpath(path)] = source

    def read(self, path: Path, *, part: bool = False) -> Text:
        """The text of a file. In a `part` of a mission folder some clauses are errors."""
        real = os.path.realpath(path)
        known = self._read.get((real, part))
        if known is None:
            known = self._read[real, part] = self._parsed(path, real, part=part)
            self._declared = None
        return known

    def mentions(self, name: str) -> bool:
        """Whether some text looks as if it declared this name, even where it can't be read."""
        if self._declared is None:
            self._declared = {name for text in self._read.values() for name in _DECLARED.findall(text.source.text)}
        return name in self._declared

    def _parsed(self, path: Path, real: str, *, part: bool) -> Text:
        source = self._given.get(real)
        if source is None:
            source, problem = _source(path)
            if problem is not None:
                span = Span(source, 0, 0)
                return Text(path, source, nodes.SourceFile(items=(), span=span), (problem,))
        tree, diagnostics = parse(source, part=part)
        return Text(path, source, tree, tuple(diagnostics))


def _source(path: Path) -> tuple[Source, Diagnostic | None]:
    name = str(path)
    try:
        refuse_no_file(path)
        # One byte more than allowed is enough to see that a file is too large; a device may have no size at all.
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        message = f"'{name}' cannot be read: {error.strerror or error}"
        return Source(name, ""), Diagnostic("not-readable", message)
    return decoded(name, data)


def decoded(name: str, data: bytes) -> tuple[Source, Diagnostic | None]:
    """The text that a file's bytes mean; an empty one and a finding, if they mean none."""
    nothing = Source(name, "")
    if len(data) > MAX_BYTES:
        message = f"'{name}' is larger than {MAX_BYTES} bytes, the limit of a mission file"
        return nothing, Diagnostic("syntax", message, Span(nothing, 0, 0), "move parts of it to other files")
    try:
        return Source(name, data.decode("utf-8-sig")), None
    except UnicodeDecodeError as error:
        return nothing, _not_text(name, error)


def _not_text(name: str, error: UnicodeDecodeError) -> Diagnostic:
    """Where the first byte stands that is no text; the line is shown with what cannot be read replaced."""
    good, rest = error.object[: error.start].decode(), error.object[error.start :]
    shown = Source(name, good + rest.decode("utf-8", "replace"))
    message = f"'{name}' is not UTF-8 text: byte {rest[0]:#04x} is none of it"
    return Diagnostic("bad-character", message, Span(shown, len(good), len(good) + 1), "save it as UTF-8")
