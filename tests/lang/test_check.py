"""The static checks: golden missions say on each line what is wrong with it; the printed form stands beside them."""

import re
from pathlib import Path

import pytest

from reqon.diagnostics import Source, render_all
from reqon.lang.check import Registered
from reqon.lang.loader import load_text
from reqon.lang.program import Program

GOLDEN = Path(__file__).parents[1] / "golden"
MISSIONS = sorted(GOLDEN.glob("*.vague"))
_EXPECTED = re.compile(r"//!(.*)")


def check(text: str, known: Registered | None = None) -> Program:
    return load_text(Source("m.vague", text), known=known or Registered())


def found(text: str, known: Registered | None = None) -> list[tuple[int, str]]:
    """Line and code of every finding."""
    return [(d.span.line if d.span else 0, d.code) for d in check(text, known).all_diagnostics]


def in_action(steps: str) -> list[str]:
    """The codes of what is found in an action of a mission with a source, a store and a schema."""
    text = f"""mission M {{
      source Depot {{ base: "http://localhost:1" }}
      store rows: memory("rows")
      schema Bin {{ code: string }}
      action Other {{ store {{ id: 1 }} -> rows }}
      action Load {{ {steps} }}
      run Load then Other
    }}"""
    return [code for _, code in found(text)]


@pytest.mark.parametrize("path", MISSIONS, ids=lambda path: path.stem)
def test_each_line_has_the_findings_it_announces(path: Path) -> None:
    text = path.read_text()
    expected = [
        (number, code.strip())
        for number, line in enumerate(text.splitlines(), 1)
        if (marked := _EXPECTED.search(line))
        for code in marked[1].split(",")
    ]
    program = load_text(Source(path.name, text))
    actual = [(d.span.line if d.span else 0, d.code) for d in program.all_diagnostics]
    assert sorted(actual) == sorted(expected)


@pytest.mark.parametrize("path", MISSIONS, ids=lambda path: path.stem)
def test_findings_are_printed_as_the_golden_text_shows(path: Path, *, update_golden: bool) -> None:
    printed = render_all(load_text(Source(path.name, path.read_text())).all_diagnostics) + "\n"
    beside = path.with_suffix(".txt")
    if update_golden:
        beside.write_text(printed)
    assert printed == beside.read_text()
