"""What loading a mission text promises for any bytes at all (spec/reliability.md 6, N5), as one function to call."""

import re
from pathlib import Path

from reqon.diagnostics import Diagnostic, Source, render_all
from reqon.errors import ReqonError
from reqon.lang import nodes
from reqon.lang.loader import load_text
from reqon.lang.parser import parse
from reqon.lang.printer import to_text
from reqon.lang.program import Program
from reqon.lang.texts import decoded
from reqon.runtime.plan import Plan

SLUG = re.compile(r"[a-z]+(-[a-z]+)*")
NOWHERE = Path("/nonexistent")


def load_any(data: bytes) -> Program | None:
    """Load bytes as `reqon` loads a file, and hold what it promises.

    Every finding has a place inside the text and a printed form; a text without syntax errors keeps its meaning when it
    is formatted, and formatting it again changes nothing; a mission without errors compiles, so that a run may compile
    each step when it comes to it. Anything else that is raised goes on up: it is a bug.
    """
    source, problem = decoded("m.vague", data)
    if problem is not None:
        assert problem.span is not None
        _printable([problem])
        return None
    program = load_text(source, folder=NOWHERE)
    found = program.all_diagnostics
    _printable([d for d in found if d.code != "no-mission"])
    tree, findings = parse(source)
    if not any(d.severity == "error" for d in findings):
        _formats(tree)
    for mission in program.missions:
        _compiles(Plan(mission, environment={}))
    return program


def _printable(found: list[Diagnostic]) -> None:
    for diagnostic in found:
        assert SLUG.fullmatch(diagnostic.code), diagnostic
        span = diagnostic.span
        assert span is not None, diagnostic
        assert 0 <= span.start <= span.end <= len(span.source.text), diagnostic
    render_all(found[:20]).encode("utf-8", "backslashreplace")


def _formats(tree: nodes.SourceFile) -> None:
    text = to_text(tree)
    again, findings = parse(Source("m.vague", text))
    assert not [d for d in findings if d.severity == "error"], render_all(findings) + "\n" + text
    assert again == tree, text
    assert to_text(again) == text


def _compiles(plan: Plan) -> None:
    try:
        plan.specs  # noqa: B018  # documents that are not there; a run asks for them before anything else
    except ReqonError as error:
        error.format()
        return
    plan.compile()
    try:
        plan.lets  # noqa: B018  # evaluated when asked for
    except ReqonError as error:
        error.format()
