"""Five-field cron texts: what they say, and what is wrong with them (spec/README.md ruling 8).

Both day fields must match when both are restricted; crontab(5) would take either, so that draws a warning.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from reqon.diagnostics import Diagnostic, Source, Span, did_you_mean
from reqon.errors import SemanticError

CODE = "bad-cron"

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_YEARS = re.compile(r"\d{4}[-,/*\d]*")
_FIELDS_HINT = "fields are minute, hour, day of month, month, day of week"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTH_LENGTHS = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True, kw_only=True)
class CronFields:
    """The minutes, hours, days, months (1-12) and weekdays (0 is Sunday, 6 Saturday) that match, each ascending.

    `text` is what was written, macros included. `every_match` says that minute or hour begins with `*`: around clock
    changes such a text fires at every instant that matches, any other once per local time (spec/reliability.md 5).
    """

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    every_match: bool

    def runs_on(self, day: date) -> bool:
        """Whether this local date matches month, day of month and weekday."""
        return day.month in self.months and day.day in self.days and day.isoweekday() % 7 in self.weekdays


def parse_cron(text: str, at: Span | None = None) -> tuple[CronFields | None, list[Diagnostic]]:
    """What a cron text says, None if it has errors, and all findings, warnings included.

    `at` is where the text stands, with or without its quotes; findings point at the field or value within it.
    """
    findings = _Findings(text, at or Span(Source("cron", text), 0, len(text)))
    fields = _read(text, findings)
    return (None if findings.has_errors else fields), findings.found


def read_cron(text: str) -> CronFields:
    """What a cron text says.

    Raises:
        SemanticError: it is wrong; it carries all findings that are errors.
    """
    fields, found = parse_cron(text)
    if fields is None:
        raise SemanticError.of([d for d in found if d.severity == "error"])
    return fields


class _Findings:
    """Collects diagnostics, turning places in the text into places in the mission."""

    def __init__(self, text: str, at: Span) -> None:
        self.found: list[Diagnostic] = []
        self.has_errors = False
        self._at = at
        shown = at.text
        # A literal with escapes has no simple relation to its value: its findings point at all of it.
        self._start = at.start if shown == text else at.start + 1 if shown[1:-1] == text else None

    def error(self, message: str, word: "_Word | None" = None, hint: str | None = None) -> None:
        self.has_errors = True
        self.found.append(Diagnostic(CODE, message, self._span(word), hint))

    def warn(self, message: str, word: "_Word | None" = None, hint: str | None = None) -> None:
        self.found.append(Diagnostic(CODE, message, self._span(word), hint, severity="warning"))

    def _span(self, word: "_Word | None") -> Span:
        if word is None or self._start is None or not word.text:
            return self._at
        return Span(self._at.source, self._start + word.start, self._start + word.start + len(word.text))


@dataclass(frozen=True, slots=True)
class _Word:
    """A piece of the text and its offset in it."""

    text: str
    start: int

    def split(self, separator: str) -> "list[_Word]":
        pieces, start = [], self.start
        for piece in self.text.split(separator):
            pieces.append(_Word(piece, start))
            start += len(piece) + 1
        return pieces


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    @property
    def named(self) -> str:
        return f"{self.name} field"

    @property
    def top(self) -> int:
        """The highest value that `*` stands for: 7 is Sunday a second time."""
        return min(self.high, 6) if self.names is _WEEKDAYS else self.high


_MINUTE = _Field("minute", 0, 59)
_HOUR = _Field("hour", 0, 23)
_DAY = _Field("day of month", 1, 31)
_MONTH = _Field("month", 1, 12, _MONTHS)
_WEEKDAY = _Field("day of week", 0, 7, _WEEKDAYS)
_ALL = (_MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY)


def _read(text: str, findings: _Findings) -> CronFields | None:
    expanded = text
    if text.strip().startswith("@"):
        macro = MACROS.get(text.strip().lower())
        if macro is None:
            _unknown_macro(text.strip(), findings)
            return None
        expanded = macro
    words = list(_words(expanded))
    if len(words) != len(_ALL):
        _wrong_count(words, findings)
        return None
    minutes, hours, days, months, weekdays = (
        tuple(sorted(_values(word, field, findings))) for word, field in zip(words, _ALL, strict=True)
    )
    if findings.has_errors:
        return None
    if all(min(days) > _MONTH_LENGTHS[month] for month in months):
        _never_comes(words, days, months, findings)
        return None
    if not words[2].text.startswith("*") and not words[4].text.startswith("*"):
        findings.warn("both day fields must match", words[2], "crontab(5) would mean either")
    return CronFields(
        text=text.strip(),
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=weekdays,
        every_match=words[0].text.startswith("*") or words[1].text.startswith("*"),
    )


def _words(text: str) -> Iterator[_Word]:
    start = 0
    for piece in text.replace("\t", " ").split(" "):
        if piece:
            yield _Word(piece, start)
        start += len(piece) + 1


def _unknown_macro(text: str, findings: _Findings) -> None:
    if text.lower() == "@reboot":
        findings.error("'@reboot' is no time", hint="to run when the daemon starts write 'runImmediately: true'")
        return
    findings.error(f"unknown cron macro '{text}'", hint=did_you_mean(text, sorted(MACROS), "known"))


def _wrong_count(words: list[_Word], findings: _Findings) -> None:
    count = len(words)
    plural = "field" if count == 1 else "fields"
    message = f"cron expression has {count} {plural}, expected 5"
    if count in (6, 7):
        texts = [word.text for word in words]
        if count == 6 and _YEARS.fullmatch(texts[5]):
            hint = f'there is no field for the year: write "{" ".join(texts[:5])}"'
        else:
            hint = f'there is no field for seconds: write "{" ".join(texts[1:6])}", or schedule: every 30 seconds'
        findings.error(message, hint=hint)
    elif count == 4 and words[0].text.startswith("*"):
        findings.error(message, hint=f'{_FIELDS_HINT}; for example "{" ".join(w.text for w in words)} *".')
    else:
        findings.error(message, hint=f'{_FIELDS_HINT}; for example "0 9 * * 1-5".')


def _never_comes(words: list[_Word], days: tuple[int, ...], months: tuple[int, ...], findings: _Findings) -> None:
    names = [_MONTHS[month - 1].capitalize() for month in months]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    findings.error(
        f"this date never comes: there is no day {days[0]} in {listed}",
        _Word("x" * (words[3].start + len(words[3].text) - words[2].start), words[2].start),
    )


def _values(word: _Word, field: _Field, findings: _Findings) -> set[int]:
    found: set[int] = set()
    for part in word.split(","):
        if not part.text:
            findings.error(f"{field.named} '{word.text}' has an empty entry", word, "remove the extra comma")
        else:
            found.update(_part(part, field, findings))
    return {0 if field is _WEEKDAY and value == 7 else value for value in found}


def _part(part: _Word, field: _Field, findings: _Findings) -> range:
    """The values of one `*`, `a`, `a-b`, each with an optional `/step`."""
    base, *steps = part.split("/")
    step = 1
    if len(steps) > 1:
        findings.error(f"{field.named} '{part.text}' has two steps", part, "write one '/'")
    elif steps:
        step = _step(steps[0], part, field=field, findings=findings)
    low, high = _bounds(base, field, findings)
    if low is None or high is None:
        return range(0)
    if steps and base.text != "*" and "-" not in base.text:
        high = field.top  # `5/15` is 5, 20, 35 and 50, as crontab has it
    if steps and step > high - low:
        only = f"only {field.name} {low} matches"
        findings.warn(f"step {step} is longer than its range, so {only}", part)
    return range(low, high + 1, step)


def _step(word: _Word, part: _Word, *, field: _Field, findings: _Findings) -> int:
    if not _is_number(word.text):
        findings.error(f"{field.named} '{part.text}' has no step after '/'", part, "for example */15")
    elif int(word.text) == 0:
        findings.error(f"{field.named} '{part.text}' has a step of 0", part, "a step is 1 or more")
    else:
        return int(word.text)
    return 1


def _bounds(base: _Word, field: _Field, findings: _Findings) -> tuple[int | None, int | None]:
    if base.text == "*":
        return field.low, field.top
    first, *rest = base.split("-")
    low = _value(first, base, field=field, findings=findings)
    if not rest:
        return low, low
    if len(rest) > 1:
        findings.error(f"{field.named} '{base.text}' is no range", base, f"for example {field.low}-{field.top}")
        return None, None
    high = _value(rest[0], base, field=field, findings=findings)
    if low is not None and high == 0 and field is _WEEKDAY and rest[0].text.lower() == "sun":
        high = 7  # sat-sun: Sunday ends the week as well as it begins it
    if low is not None and high is not None and low > high:
        split = f"{first.text}-{field.top},{field.low}-{rest[0].text}"
        findings.error(f"{field.named} '{base.text}' runs backwards", base, f"write {split}")
        return None, None
    return low, high


def _value(word: _Word, whole: _Word, *, field: _Field, findings: _Findings) -> int | None:
    text = word.text.lower()
    if text in field.names:
        return field.names.index(text) + field.low
    if not _is_number(text):
        _unreadable(word, whole, field=field, findings=findings)
        return None
    if len(text) > 4 or not field.low <= int(text) <= field.high:
        findings.error(f"{field.named} '{word.text}' is out of range {field.low}-{field.high}", word)
        return None
    return int(text)


def _unreadable(word: _Word, whole: _Word, *, field: _Field, findings: _Findings) -> None:
    shown = word if word.text else whole
    hint = (
        "a field is '*', a number, a range such as 1-5, a list such as 1,15, or one of these with a step such as */10"
    )
    if word.text == "?":
        hint = "write '*'"
    elif field.names and word.text.isalpha():
        hint = f"names are {' '.join(field.names)}"
        if word.text.lower()[:3] in field.names:
            hint = f"write '{word.text.lower()[:3]}'; {hint}"
    findings.error(f"{field.named} '{shown.text}' cannot be read", shown, hint)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
