"""docs/language.md: every example gives what the page says, and nothing of the language is left out."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from reqon.diagnostics import Source
from reqon.lang.functions import BUILTINS, PlainWorld
from reqon.lang.loader import load_text
from reqon.lang.steps import StepParser
from reqon.values import decode, encode
from tests.lang.expressions import evaluate
from tests.support import corpus, language_tables
from tests.support.clocks import FakeClock

PAGE = (Path(__file__).parents[1] / "docs" / "language.md").read_text("utf-8")
STEPS = re.findall(r"^```reqon steps\n(.*?)^```\n\n```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
WHOLE = re.findall(r"^```reqon mission\n(.*?)^```\n\n```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
# Documents that nobody has: what names them is read and checked, and not run.
OF_DOCUMENTS = re.findall(r"^```reqon documents\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ALIASES = {known for table in language_tables.TABLES.values() for known in table.aliases}
MISSION = """mission Shown {{
  source Api {{ auth: none, base: env("API") }}
  store rows: memory("rows")
  action Try {{
{steps}
  }}
  run Try
}}
"""


def cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def code(cell: str) -> str:
    return cell.removeprefix("`").removesuffix("`")


def examples() -> list[Any]:
    """(expression, result as JSON) of each row whose table has examples."""
    found, column = [], None
    for line in PAGE.splitlines():
        if not line.startswith("|"):
            column = None
        elif "Result" in cells(line):
            column = cells(line).index("Result")
        elif column is not None and not line.startswith("|--"):
            row = cells(line)
            found.append(pytest.param(code(row[column - 1]), code(row[column]), id=code(row[column - 1])))
    return found


@pytest.mark.parametrize(("expression", "result"), examples())
def test_an_example_has_the_result_beside_it(expression: str, result: str) -> None:
    world = PlainWorld(FakeClock(), corpus.ENVIRONMENT)
    assert decode(encode(evaluate(expression, world=world))) == json.loads(result)


@pytest.mark.parametrize(("steps", "result"), STEPS)
async def test_steps_keep_what_the_page_shows(steps: str, result: str, tmp_path: Path) -> None:
    path = tmp_path / "shown.vague"
    path.write_text(MISSION.format(steps=steps))
    (tmp_path / "state").mkdir()
    ran = json.loads(await corpus.run(path, tmp_path / "state"))
    assert (ran["status"], ran["stores"]["rows"]) == ("completed", json.loads(result))


@pytest.mark.parametrize(("text", "result"), WHOLE)
async def test_a_mission_keeps_what_the_page_shows(text: str, result: str, tmp_path: Path) -> None:
    path = tmp_path / "shown.vague"
    path.write_text(text)
    (tmp_path / "state").mkdir()
    ran = json.loads(await corpus.run(path, tmp_path / "state"))
    assert (ran["status"], ran["stores"]["rows"]) == ("completed", json.loads(result))


@pytest.mark.parametrize("text", OF_DOCUMENTS)
def test_sources_with_documents_have_no_mistake(text: str) -> None:
    program = load_text(Source("shown.vague", f"mission M {{\n{text}\nrun Ask\n}}"))
    assert not program.all_diagnostics


def test_all_steps_with_results_are_found() -> None:
    assert len(STEPS) == len(re.findall(r"^```reqon steps$", PAGE, re.MULTILINE)) > 5
    assert len(WHOLE) == PAGE.count("```reqon mission") > 0


def test_every_option_and_directive_is_in_an_example() -> None:
    shown = "\n".join(re.findall(r"^```reqon.*?\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    keys = {key for key in language_tables.option_keys() if not re.search(rf"\b{key}:", shown)}
    # Other words for the same, which the tables name.
    assert keys - ALIASES == set()
    steps = {word.lower() for word in StepParser.step_words()}
    assert {word for word in steps if not re.search(rf"(?m)(?:^|[{{>]|then) *{word}\b", shown)} == set()


def test_every_function_is_on_the_page() -> None:
    assert {name for name in BUILTINS if not re.search(rf"`{name}[:`(]", PAGE)} == set()


def test_every_option_is_on_the_page() -> None:
    assert {key for key in language_tables.option_keys() if f"`{key}`" not in PAGE} == set()


def test_every_step_is_on_the_page() -> None:
    words = {word.lower() for word in StepParser.step_words()}
    assert {word for word in words if not re.search(rf"[`^ \n]{word}[ `(]", PAGE)} == set()
