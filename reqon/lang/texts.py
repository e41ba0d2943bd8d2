"""Mission texts: each file read and parsed once per load."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from reqon.diagnostics import Diagnostic, Source, Span
from reqon.lang import nodes
from reqon.lang.parser import parse

MAX_BYTES = 1024 * 1024

_DECLARED = re.compile(r"\b(?:source|store|schema|transform|action|let)\s+`?([A-Za-z_][A-Za-z0-9_]*)")


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
    """Reads files; never raises for one that can't be read, but says so in its findings."""

    def __init__(self) -> None:
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
    nothing = Source(name, "")
    try:
        if path.stat().st_size > MAX_BYTES:
            message = f"'{name}' is larger than {MAX_BYTES} bytes, the limit of a mission file"
            return nothing, Diagnostic("syntax", message, None, "move parts of it to other files")
        data = path.read_bytes()
    except OSError as error:
        return nothing, Diagnostic("not-readable", f"'{name}' cannot be read: {error.strerror or error}")
    try:
        return Source(name, data.decode("utf-8-sig")), None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"'{name}' is not UTF-8 text: byte {error.start} in line {line}"
        return nothing, Diagnostic("bad-character", message, None, "save it as UTF-8")
