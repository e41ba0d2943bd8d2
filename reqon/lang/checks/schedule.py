"""The schedule clause (spec/language.md 2.2)."""

import re
from dataclasses import dataclass
from datetime import datetime

from reqon.diagnostics import Span
from reqon.lang import nodes
from reqon.lang import options as tables
from reqon.lang.checks.findings import Findings
from reqon.lang.checks.options import Options
from reqon.lang.checks.scope import Scope
from reqon.lang.cron import parse_cron

_TIME_OF_DAY = re.compile(r"([01]?\d|2[0-3]):[0-5]\d")
_UTC_SUFFIX = re.compile(r"\s*(?:UTC|GMT|Z)$", re.IGNORECASE)
_AT_HINT = 'write at "2031-05-04T06:00:00Z" for a single run, or at "23:55" for one every day'


@dataclass(slots=True)
class Schedules:
    """Checks schedule clauses."""

    options: Options
    findings: Findings

    def check(self, node: nodes.Schedule) -> None:
        """Check when a mission runs and how its runs are treated."""
        if node.kind == "every":
            self._every(node)
        elif node.text is not None and node.kind == "cron":
            self.findings.add(parse_cron(node.text, text_span(node))[1])
        elif node.text is not None and not _is_instant(node.text):
            self.findings.error("bad-schedule", f"'{node.text}' is no time to run at", text_span(node), _AT_HINT)
        self.options.check(node.options, tables.SCHEDULE, Scope("start"))

    def _every(self, node: nodes.Schedule) -> None:
        amount = node.amount
        if node.unit is not None and (not isinstance(amount, int) or amount < 1):
            message = (
                f"every {amount} {node.unit} never comes" if not amount else f"every needs a whole number, not {amount}"
            )
            hint = f"the shortest is every 1 {node.unit.removesuffix('s')}"
            self.findings.error("bad-schedule", message, node.when_span, hint)


def text_span(node: nodes.Schedule) -> Span:
    """Where the text of `cron` or `at` stands, quotes included."""
    span = node.when_span
    quote = re.search("[\"']", span.text)
    return Span(span.source, span.start + quote.start(), span.end) if quote else span


def _is_instant(text: str) -> bool:
    text = text.strip()
    if _TIME_OF_DAY.fullmatch(text):
        return True
    bare = _UTC_SUFFIX.sub("", text)
    try:
        found = datetime.fromisoformat(bare)
    except ValueError:
        return False
    return bare == text or found.tzinfo is None
