"""Syntax tree to the canonical text of `reqon fmt`: comments stay, and what it prints it prints again as it is.

A brace list stays on one line if it was written so and fits; one that was opened, or holds a comment, has a line for
each item. One blank line between items stays. Comments inside an expression move to the line before it.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence

from reqon.diagnostics import Source
from reqon.lang import nodes
from reqon.lang.canonical import canonical, embrace
from reqon.lang.layout import INDENT, Layout
from reqon.lang.lexer import lex, number
from reqon.lang.walk import children

__all__ = ["canonical", "to_text"]

_NUMBER = re.compile(r"[0-9][0-9_]*(?:\.[0-9_]+)?(?:[eE][+-]?[0-9_]+)?")


def to_text(tree: nodes.SourceFile) -> str:
    """The text of a file in canonical form. Its comments are those of the source that its spans name."""
    return _Printer(tree.span.source).file(tree)


class _Printer(Layout):
    """Prints one file. Offsets are those of its source; a tree made by hand has none, and opens what usually is."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        lexed = lex(source)
        self._origin = source
        self._tokens = lexed.tokens
        self._comments = lexed.comments
        self._token_starts = [token.start for token in lexed.tokens]
        self._comment_starts = [comment.start for comment in lexed.comments]
        self._printed = [False] * len(lexed.comments)
        self._breaks: dict[int, bool] = {}

    # --- what the source tells ---------------------------------------------------------------------------------------

    def _is_written(self, node: nodes.Node) -> bool:
        return node.span.source is self._origin and node.span.end > node.span.start

    def number(self, node: nodes.Literal_ | nodes.DurationLiteral, value: float) -> str:
        """As it was written, if it was."""
        if self._is_written(node):
            written = _NUMBER.match(self._origin.text, node.span.start)
            if written and number(written[0]) == value:
                return written[0]
        return repr(value)

    def is_bare(self, node: nodes.Run) -> bool:
        written = self._is_written(node) and self._tokens[self._token(node.span.start)].kind == "run"
        return super().is_bare(node) and not written

    def _ignored(self, node: nodes.IgnoredBlock) -> str:
        if not self._is_written(node):
            return super()._ignored(node)
        for index in self._pending(node.span.start, node.span.end):
            self._printed[index] = True
        return node.span.text.replace("\r\n", "\n")

    def _token(self, offset: int) -> int:
        """The index of the first token at or after an offset."""
        return min(bisect_left(self._token_starts, offset), len(self._tokens) - 1)

    def _is_open(self, items: Sequence[nodes.Node]) -> bool:
        """Whether a list has a line for each item: its first one began a line, or a comment stands in it."""
        if not items:
            return False
        if not self._is_written(items[0]):
            return isinstance(items[0], _OPENED)
        start, end = self._inside(items)
        return self._tokens[self._token(start)].breaks or self._has_comment(start, end)

    def _inside(self, items: Sequence[nodes.Node]) -> tuple[int, int]:
        """Where the brace before some items ends, and where the one behind them begins."""
        if not self._is_written(items[0]):
            return 0, 0
        first, behind = self._token(items[0].span.start), self._token(items[-1].span.end)
        # The place of an expression does not include the parentheses around it.
        while self._tokens[first - 1].kind == "(":
            first -= 1
        while self._tokens[behind].kind in (",", ")"):
            behind += 1
        return self._tokens[first - 1].end, self._tokens[behind].start

    def breaks(self, node: nodes.Node) -> bool:
        known = self._breaks.get(id(node))
        if known is None:
            lists = [items for items in _lists(node) if items]
            known = any(map(self._is_open, lists)) or any(map(self.breaks, children(node)))
            self._breaks[id(node)] = known
        return known

    def _has_comment(self, start: int, end: int) -> bool:
        return bisect_left(self._comment_starts, start) < bisect_left(self._comment_starts, end)

    def _pending(self, start: int, end: int) -> list[int]:
        """The indices of the comments between two offsets that are not printed yet."""
        first, last = bisect_left(self._comment_starts, start), bisect_left(self._comment_starts, end)
        return [index for index in range(first, last) if not self._printed[index]]

    def _comment(self, index: int) -> str:
        self._printed[index] = True
        comment = self._comments[index]
        lines = self._origin.text[comment.start : comment.end].replace("\r\n", "\n").split("\n")
        return "\n".join(line.rstrip() for line in lines)

    def _blank_before(self, offset: int) -> bool:
        """Whether an empty line stands before what begins at an offset."""
        text, at = self._origin.text, offset
        while at > 0 and text[at - 1] in " \t\r\n":
            at -= 1
        return text.count("\n", at, offset) > 1

    def _follows(self, start: int, index: int) -> bool:
        """Whether a comment stands on the line of an offset before it."""
        return "\n" not in self._origin.text[start : self._comments[index].start]

    # --- lists -------------------------------------------------------------------------------------------------------

    def file(self, tree: nodes.SourceFile) -> str:
        """All of a file."""
        lines = self._lines(tree.items, 0, (-1, len(self._origin.text) + 1), "")
        return "\n".join([*lines, ""])

    def braced(
        self, items: Sequence[nodes.Node], depth: int, used: int, *, comma: str = ",", wide: bool = False
    ) -> str:
        if not items:
            return "{}"
        if not wide and not self._is_open(items) and not any(map(self.breaks, items)):
            text = embrace(self.texts(items))
            if self.fits(text, used):
                return text
        start, end = self._inside(items)
        head = "{"
        for index in self._pending(start, items[0].span.start):
            if self._follows(start, index):
                head += f" {self._comment(index)}"
        return "\n".join([head, *self._lines(items, depth + 1, (start, end), comma), f"{INDENT * depth}}}"])

    def _lines(self, items: Sequence[nodes.Node], depth: int, place: tuple[int, int], comma: str) -> list[str]:
        """An open list's lines: its items and the comments among them. `place`: where the list begins and ends."""
        pad = INDENT * depth
        lines: list[str] = []
        start, large = place[0], False
        for item in items:
            written = self._is_written(item)
            above = self._above(lines, start, item.span.start)
            text = self.item(item, depth, len(pad))
            blank = written and self._blank_before(item.span.start)
            # Comments that no list inside the item has printed.
            within = [self._comment(i) for i in self._pending(item.span.start, item.span.end)] if written else []
            above += [(blank and not n, comment) for n, comment in enumerate(within)]
            above.append((blank and not within, text + (comma if item is not items[-1] else "")))
            was_large, large = large, isinstance(item, _LARGE) and "\n" in text
            above[0] = (above[0][0] or large or was_large, above[0][1])
            _append(lines, above, pad)
            start = item.span.end
        _append(lines, self._above(lines, start, place[1]), pad)
        return lines

    def _above(self, lines: list[str], start: int, end: int) -> list[tuple[bool, str]]:
        """The comments between two items, and whether a blank line goes before each. Some join the line above."""
        own: list[tuple[bool, str]] = []
        for index in self._pending(max(start, 0), end):
            if lines and not own and self._follows(start, index):
                lines[-1] += f" {self._comment(index)}"
            else:
                own.append((self._blank_before(self._comments[index].start), self._comment(index)))
        return own


def _append(lines: list[str], found: Sequence[tuple[bool, str]], pad: str) -> None:
    for blank, text in found:
        if blank and lines:
            lines.append("")
        lines.append(pad + text)


def _lists(node: nodes.Node) -> list[Sequence[nodes.Node]]:
    """The brace lists that belong to a construct itself."""
    if isinstance(node, nodes.ActionDef):
        return [sorted((*node.options, *node.steps), key=lambda part: part.span.start)]
    if isinstance(node, nodes.TransformDef) and len(node.variants) == 1 and node.variants[0].guard is None:
        return []
    return [getattr(node, name) for name in _LISTS.get(type(node), ())]


_LISTS: dict[type[nodes.Node], tuple[str, ...]] = {
    nodes.ObjectLiteral: ("entries",),
    nodes.ObjectPattern: ("entries",),
    nodes.MatchExpression: ("arms",),
    nodes.ObjectType: ("fields",),
    nodes.Since: ("options",),
    nodes.Fetch: ("options",),
    nodes.CallStep: ("options",),
    nodes.For: ("body",),
    nodes.Validate: ("constraints",),
    nodes.Assume: ("constraints",),
    nodes.StoreStep: ("options",),
    nodes.Block: ("steps",),
    nodes.MatchStep: ("arms", "catch"),
    nodes.Wait: ("options",),
    nodes.Retry: ("options",),
    nodes.Queue: ("options",),
    nodes.Jump: ("options",),
    nodes.Extension: ("options",),
    nodes.SchemaDef: ("fields", "refinements"),
    nodes.Refinement: ("fields",),
    nodes.TransformDef: ("variants",),
    nodes.SourceDef: ("options",),
    nodes.Schedule: ("options",),
    nodes.MissionDef: ("clauses",),
}
# Items whose lists are open in a tree that nobody wrote; items with blank lines around them if they have several lines.
_OPENED = nodes.Step | nodes.Clause | nodes.Arm | nodes.Variant | nodes.Refinement
_LARGE = nodes.MissionDef | nodes.ActionDef | nodes.TransformDef | nodes.SchemaDef
