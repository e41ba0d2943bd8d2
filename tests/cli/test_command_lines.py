"""Command lines are read in two ways, in haste by ours and explained by typer: both must mean the same."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from reqon.cli.app import _as_typer_reads
from reqon.cli.commands import COMMANDS, load
from reqon.cli.options import Argument, Option, Parameter, parameters, read

VALUES = st.sampled_from(["a", "7", "0", "-3", "", "x=y", "a b", "é", "--daemon", "-"])


def called_by_typer(command: Callable[..., None], words: list[str]) -> dict[str, Any] | None:
    """What typer calls the command with; None where it refuses."""
    calls: list[dict[str, Any]] = []

    def recorder(**given: Any) -> None:
        calls.append(given)

    recorder.__annotations__ = command.__annotations__
    recorder.__defaults__ = command.__defaults__
    recorder.__wrapped__ = command  # type: ignore[attr-defined]
    app = typer.Typer(add_completion=False)
    app.command()(_as_typer_reads(recorder))
    with pytest.raises(SystemExit):
        app(args=words, standalone_mode=True)
    return calls[0] if calls else None


def all_of(command: Callable[..., None], given_words: dict[str, Any]) -> dict[str, Any]:
    optional = [p.name for p in parameters(command) if p.optional]
    defaults = dict(zip(optional, command.__defaults__ or (), strict=True))
    return defaults | given_words


def words_of(parameter: Parameter) -> st.SearchStrategy[list[str]]:
    if isinstance(parameter.written, Argument):
        return st.lists(VALUES, max_size=2)
    flag = st.sampled_from(parameter.written.flags)
    if parameter.kind is bool:
        return flag.map(lambda f: [f])
    return st.one_of(st.tuples(flag, VALUES).map(list), st.tuples(flag, VALUES).map(lambda t: [f"{t[0]}={t[1]}"]))


@pytest.mark.parametrize("name", sorted(COMMANDS))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_is_read_in_haste_is_what_typer_would_read(name: str, data: st.DataObject) -> None:
    command = load(name)
    some = data.draw(st.lists(st.sampled_from(parameters(command)), max_size=4))
    words = [word for parameter in some for word in data.draw(words_of(parameter))]
    quick = read(command, words)
    if quick is not None:
        assert all_of(command, quick) == called_by_typer(command, words)


def test_everyday_command_lines_need_no_explanation() -> None:
    run = load("run")
    line = ["./missions", "--daemon", "--metrics-port", "9090", "--alert-on-failure", "--alert-url=exec:./page-me"]
    quick = read(run, line)
    assert quick is not None
    assert quick["metrics_port"] == 9090
    assert quick["alert_url"] == ["exec:./page-me"]
    for refused in (["--help"], ["--deamon"], ["--metrics-port", "x"], ["--metrics-port"], ["-vq"], ["--daemon=yes"]):
        assert read(run, ["./missions", *refused]) is None
    assert read(load("history"), ["--limit", "0"]) is None, "below its least value"
    assert read(load("trigger"), []) is None, "an argument is missing"
    assert read(load("trigger"), ["A", "B"]) is None, "one too many"


def test_every_parameter_of_every_command_says_how_it_is_written() -> None:
    for name in COMMANDS:
        for parameter in parameters(load(name)):
            assert isinstance(parameter.written, Option | Argument), (name, parameter)
            assert parameter.written.help.endswith((".", "]", ")")), (name, parameter.name)


def test_a_right_command_line_does_not_import_typer() -> None:
    code = "import sys; from reqon.cli.main import answer; answer(['check', 'nowhere']); print('typer' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.strip() == "False"
