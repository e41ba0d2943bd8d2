"""Text to tokens, each with its place (spec/language.md 1). Never raises: what is wrong becomes a diagnostic."""

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from reqon.diagnostics import Diagnostic, Source, Span

MAX_BYTES = 1024 * 1024
MAX_TOKENS = 200_000
MAX_STRING_BYTES = 64 * 1024
MAX_DIGITS = 400
MAX_DIAGNOSTICS = 500

RESERVED = frozenset(
    ["true", "false", "null", "if", "then", "else", "match", "not", "and", "or", "in", "is", "where"],
)
TIME_UNITS = {
    "ms": "ms",
    "millisecond": "milliseconds",
    "milliseconds": "milliseconds",
    "second": "seconds",
    "seconds": "seconds",
    "minute": "minutes",
    "minutes": "minutes",
    "hour": "hours",
    "hours": "hours",
    "day": "days",
    "days": "days",
    "week": "weeks",
    "weeks": "weeks",
}

# Kinds of tokens. A bare word and a punctuation mark are their own kind, so that rules read as they are written.
STRING, NUMBER, QUOTED, END = '"', "0", "`", ""


class Token(NamedTuple):
    """`value` is a string's text, a number, or a name without backticks; `breaks`: a line break stands before it."""

    kind: str
    value: Any
    start: int
    end: int
    breaks: bool


class Comment(NamedTuple):
    """A comment's place; `alone` when nothing but blanks stands before it on its line."""

    start: int
    end: int
    alone: bool


@dataclass(slots=True)
class Lexed:
    """The tokens, of which the last has kind END; `comments` in order; `complete` unless a limit cut the text off."""

    tokens: list[Token] = field(default_factory=list)
    comments: list[Comment] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    complete: bool = True


# Possessive blanks and the `end` alternative make every position match at once: no backtracking, linear time.
_TOKEN = re.compile(
    r"""[ \t\r]*+(?:
      (?P<word>[A-Za-z_][A-Za-z0-9_]*+)
    | (?P<mark>\.\.\.|\.\.|=>|->|==|!=|<=|>=|\?\?|/(?![/*])|[{}()\[\],:.=<>+\-*%!?|~])
    | (?P<line>\n[ \t\r\n]*+)
    | (?P<string>"[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+"|'[^'\\\n]*+(?:\\[^\n][^'\\\n]*+)*+')
    | (?P<number>[0-9][0-9_]*+(?:\.[0-9][0-9_]*+)?(?:[eE][+-]?[0-9][0-9_]*+)?(?P<tail>[A-Za-z_][A-Za-z0-9_]*+)?)
    | (?P<comment>(?://|\#)[^\n]*+|/\*(?s:.*?)(?:\*/|\Z))
    | (?P<quoted>`[^`\n]++`)
    | (?P<open>["'][^\n]*+)
    | (?P<end>\Z)
    | (?P<bad>[^ \t\r\nA-Za-z0-9_{}()\[\],:.=<>+\-*/%!?|~"'`\#]++|.)
    )""",
    re.VERBOSE,
)
_UNDERSCORES = re.compile(r"[0-9]+(?:_[0-9]+)*(?:\.[0-9]+(?:_[0-9]+)*)?(?:[eE][+-]?[0-9]+(?:_[0-9]+)*)?")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})(?:\\u([Dd][C-Fc-f][0-9A-Fa-f]{2}))?|(.))", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
# An unclosed string most likely ended before the brackets and commas that close its line.
_AFTER_OPEN_STRING = re.compile(r"(?:[ \t\r]+[\[\](){},\s]*|,\s*)\Z")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_HINTS = {
    ";": "a line break or a comma separates entries",
    "&": "write 'and'",
    "^": "use pow(x, y)",
    "\xa0": "this is a no-break space; use a plain one",
    "`": "close the name with a backtick on the same line",
} | dict.fromkeys("\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb", "use plain quotes: \" or '")


def lex(source: Source, start: int = 0, end: int | None = None) -> Lexed:
    """Tokens, comments and findings of a text, or of its characters `start` to `end`."""
    return _Lexer(source, start, len(source.text) if end is None else end).run()


class _Lexer:
    def __init__(self, source: Source, start: int, end: int) -> None:
        self.source = source
        self.start = start
        self.end = end
        self.lexed = Lexed()

    def run(self) -> Lexed:
        text, lexed = self.source.text, self.lexed
        if (size := self._size()) > MAX_BYTES:
            self._refuse(f"the text has {size:,} bytes, the limit is {MAX_BYTES:,} (1 MiB)", self.start)
            return lexed
        if not text.isascii() and (lone := _SURROGATE.search(text, self.start, self.end)):
            self._report("bad-character", "the text is not valid UTF-8", *lone.span())
            lexed.tokens.append(Token(END, None, self.end, self.end, True))
            lexed.complete = False
            return lexed
        begin = self.start + 1 if self.start == 0 and text.startswith("\ufeff") else self.start
        self._scan(begin)
        return lexed

    def _scan(self, begin: int) -> None:
        tokens, text, breaks = self.lexed.tokens, self.source.text, True
        add, make = tokens.append, Token
        for match in _TOKEN.finditer(text, begin, self.end):
            group = match.lastgroup
            if group == "line":
                breaks = True
                continue
            start, end = match.span(group)  # type: ignore[arg-type]  # some group always matched
            if group in ("word", "mark"):
                kind = text[start:end]
                add(make(kind, kind, start, end, breaks))
            elif group == "comment":
                breaks = self._comment(start, end, breaks)
                continue
            elif group == "string":
                add(make(STRING, self._string(text[start + 1 : end - 1], start, end), start, end, breaks))
            elif group == "number":
                self._number(match, breaks)
            elif group == "quoted":
                add(make(QUOTED, text[start + 1 : end - 1], start, end, breaks))
            elif group == "end":
                add(make(END, None, self.end, self.end, True))
                return
            elif group == "open":
                # The rest of the line is read again after the part that the string probably is.
                cut = _AFTER_OPEN_STRING.search(text, start + 1, end)
                stop = cut.start() if cut and cut.start() > start + 1 else end
                self._open_string(start, stop, breaks)
                if stop < end:
                    self._closers(stop, end)
            else:
                self._bad(start, end)
            breaks = breaks and group == "bad"
            if len(tokens) > MAX_TOKENS or len(self.lexed.diagnostics) > MAX_DIAGNOSTICS:
                self._stop(start)
                return

    def _size(self) -> int:
        """Bytes in UTF-8, or the number of characters when that alone says enough."""
        count = self.end - self.start
        if count > MAX_BYTES or count * 4 <= MAX_BYTES or self.source.text.isascii():
            return count
        return len(self.source.text[self.start : self.end].encode("utf-8", "surrogatepass"))

    def _stop(self, start: int) -> None:
        if len(self.lexed.tokens) > MAX_TOKENS:
            self._refuse(f"the text has more than {MAX_TOKENS:,} tokens", start)
        else:
            self._refuse(f"more than {MAX_DIAGNOSTICS} problems; the rest of the text was not read", start)

    def _refuse(self, message: str, start: int) -> None:
        self._report("syntax", message, start, start, "split the mission into several files")
        self.lexed.tokens.append(Token(END, None, start, start, True))
        self.lexed.complete = False

    def _report(self, code: str, message: str, start: int, end: int, hint: str | None = None) -> None:
        if len(self.lexed.diagnostics) > MAX_DIAGNOSTICS and code != "syntax":
            return
        self.lexed.diagnostics.append(Diagnostic(code, message, Span(self.source, start, end), hint))

    def _comment(self, start: int, end: int, breaks: bool) -> bool:
        text = self.source.text
        self.lexed.comments.append(Comment(start, end, breaks))
        if not text.startswith("/*", start):
            return breaks
        if end - start < 4 or not text.startswith("*/", end - 2):
            self._report("unterminated-comment", "comment is not closed", start, start + 2, "close it with */")
        return breaks or "\n" in text[start:end]

    def _string(self, body: str, start: int, end: int) -> str:
        if end - start > MAX_STRING_BYTES // 4 and len(body.encode()) > MAX_STRING_BYTES:
            self._report("syntax", f"string is longer than {MAX_STRING_BYTES // 1024} KiB", start, start + 1)
        if "\\" not in body:
            return body
        return _ESCAPE.sub(lambda match: self._escape(match, start + 1), body)

    def _escape(self, match: re.Match[str], offset: int) -> str:
        high, low, plain = match.groups()
        if high is None:
            if plain == "u":
                span = (offset + match.start(), offset + match.end())
                self._report("bad-character", "\\u needs four hexadecimal digits", *span, "for example \\u00e9")
            return _ESCAPES.get(plain, plain)
        first = int(high, 16)
        if not 0xD800 <= first <= 0xDFFF:
            # A low half that the pattern took along stands alone, after a character that is no high half.
            if low is None:
                return chr(first)
        elif low is not None and first < 0xDC00:
            return chr(0x10000 + ((first - 0xD800) << 10) + int(low, 16) - 0xDC00)
        span = (offset + match.start(), offset + match.end())
        self._report("bad-character", f"\\u{high if low is None else low} is half of a surrogate pair", *span)
        return "\ufffd"

    def _number(self, match: re.Match[str], breaks: bool) -> None:
        start, end = match.span("number")
        tail = match["tail"]
        if tail is not None:
            end -= len(tail)
        written = self.source.text[start:end]
        tokens = self.lexed.tokens
        tokens.append(Token(NUMBER, self._value(written, tail, start, end), start, end, breaks))
        if tail in TIME_UNITS:
            tokens.append(Token(tail, tail, end, end + len(tail), False))

    def _value(self, written: str, tail: str | None, start: int, end: int) -> int | float:
        if tail is not None and tail not in TIME_UNITS:
            word = written + tail
            hint = "a number and a word need a space between them" if written.isdigit() else None
            self._report("bad-number", f"'{_short(word)}' is not a number", start, end + len(tail), hint)
            return 0
        value = number(written)
        if value is None:
            shown = _short(written)
            if sum(c.isdigit() for c in written) > MAX_DIGITS:
                message, hint = f"number has more than {MAX_DIGITS} digits", None
            elif _UNDERSCORES.fullmatch(written):
                message, hint = f"'{shown}' is too large for a number", None
            else:
                message, hint = f"'{shown}' is not a number", "an underscore stands between two digits"
            self._report("bad-number", message, start, end, hint)
            return 0
        return value

    def _open_string(self, start: int, end: int, breaks: bool) -> None:
        text = self.source.text[start + 1 : end].rstrip("\r")
        span = (start, start + 1 + len(text))
        hint = "a string cannot span lines, use \\n"
        self._report("unterminated-string", "string is not closed on this line", *span, hint)
        self.lexed.tokens.append(Token(STRING, text, *span, breaks))

    def _closers(self, start: int, end: int) -> None:
        for at in range(start, end):
            mark = self.source.text[at]
            if not mark.isspace():
                self.lexed.tokens.append(Token(mark, mark, at, at + 1, False))

    def _bad(self, start: int, end: int) -> None:
        character = self.source.text[start]
        shown = f"'{character}'" if character.isprintable() else f"U+{ord(character):04X}"
        self._report("bad-character", f"unexpected character {shown}", start, end, _HINTS.get(character))


def number(written: str) -> int | float | None:
    """The value of a number as written; None if it is none or has no finite value. Integral values are integers."""
    if len(written) > MAX_DIGITS and sum(c.isdigit() for c in written) > MAX_DIGITS:
        return None
    if "_" in written and not _UNDERSCORES.fullmatch(written):
        return None
    digits = written.replace("_", "")
    try:
        return int(digits)
    except ValueError:
        value = float(digits)
    if value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value if value - value == 0 else None


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "…"
