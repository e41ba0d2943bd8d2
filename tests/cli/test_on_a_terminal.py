"""What people see on a terminal: colours, relative times, and the question before all of a history goes."""

import re
from pathlib import Path

import pytest

from tests.cli.test_looking import age, records, some_runs
from tests.support.processes import reqon
from tests.support.terminal import Terminal

ESC = "\x1b"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return some_runs(tmp_path)


def shown(*words: object, cwd: Path) -> tuple[int, str]:
    return Terminal(*words, cwd=cwd, variables={"COLUMNS": "200", "TERM": "xterm-256color"}).end()


@pytest.mark.parametrize("command", ["status", "history", "status Alpha", "history Failing", "status Failing"])
def test_a_terminal_gets_colours_and_a_pipe_none(command: str, home: Path) -> None:
    code, text = shown(*command.split(), cwd=home)
    assert code == 0
    assert ESC in text
    plain = reqon(*command.split(), cwd=home)
    assert ESC not in plain.text
    for record in records(home):
        assert (record["executionId"] in text) == (record["executionId"] in plain.out), record
    _, json = shown(*command.split(), "--json", cwd=home)
    assert ESC not in json
    assert json.replace("\r", "") == reqon(*command.split(), "--json", cwd=home).out


def test_times_are_relative_on_a_terminal_and_exact_in_a_pipe(home: Path) -> None:
    age(home, "Beta", "2024-01-20T09:00:00.000Z")
    assert re.search(r"\d+ d ago", shown("status", cwd=home)[1])
    assert "2024-01-20T09:00:00Z" in reqon("status", cwd=home).out


def test_a_terminal_is_asked_before_all_goes(home: Path) -> None:
    kept = records(home)
    asked = Terminal("cleanup", "Alpha", "--all", cwd=home)
    asked.until("Delete 2 executions (")
    asked.type("n")
    assert asked.end()[0] == 0
    assert records(home) == kept
    asked = Terminal("cleanup", "Alpha", "--all", cwd=home)
    asked.until("Delete 2 executions (")
    asked.type("")  # no is what nothing means
    assert asked.end()[0] == 0
    assert records(home) == kept
    asked = Terminal("cleanup", "Alpha", "--all", cwd=home)
    asked.until("Delete 2 executions (")
    asked.type("y")
    code, text = asked.end()
    assert code == 0
    assert "deleted 2 executions, " in text
    assert {r["mission"] for r in records(home)} == {"Beta", "Failing"}


def test_ctrl_c_at_the_question_deletes_nothing(home: Path) -> None:
    kept = records(home)
    asked = Terminal("cleanup", "--all", cwd=home)
    asked.until("Delete 4 executions (")
    asked.type("\x03")
    code, text = asked.end()
    assert code in (130, -2)
    assert "Traceback" not in text
    assert records(home) == kept


@pytest.mark.parametrize(
    "words", ["--all --yes", "--all -y", "--all --dry-run", "--older-than 0s", "--all --dry-run -y"]
)
def test_nothing_is_asked_where_it_was_said(words: str, home: Path) -> None:
    kept = records(home)
    code, text = shown("cleanup", *words.split(), cwd=home)
    assert code == 0
    assert "Delete" not in text
    assert f"{'would delete' if 'dry' in words else 'deleted'} 4 executions, " in text
    assert records(home) == (kept if "dry" in words else [])


def test_json_on_a_terminal_holds_the_question_apart(home: Path) -> None:
    asked = Terminal("cleanup", "Alpha", "--all", "--json", cwd=home)
    asked.until("Delete 2 executions (")
    asked.type("y")
    code, text = asked.end()
    assert code == 0
    assert '"deleted": [' in text


def test_logs_and_doctor_fit_a_terminal(home: Path) -> None:
    execution = records(home)[0]["executionId"]
    code, text = shown("logs", execution, cwd=home)
    assert code == 0
    assert "mission.complete" in text
    code, text = shown("doctor", "missions", cwd=home)
    assert code == 0
    assert "state directory" in text
