"""What ran: status, history, logs, cleanup (spec/state.md 7 and 8)."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reqon.values import decode, encode
from tests.support.damages import DAMAGES
from tests.support.owners import Owner
from tests.support.processes import environment, reqon

GOOD = """mission {name} {{
  store out: file("{name}")
  let items = [{{ id: "a" }}, {{ id: "b" }}]
  action Load {{ for item in items {{ store item -> out {{ key: .id }} }} }}
  run Load
}}
"""
FAILING = """mission Failing {
  let items = [1]
  action Load { for item in items { abort "no more of this" } }
  run Load
}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return some_runs(tmp_path)


def some_runs(tmp_path: Path) -> Path:
    """A folder with two runs of Alpha, one of Beta, one of Failing."""
    missions = tmp_path / "missions"
    missions.mkdir()
    for name in ("Alpha", "Beta"):
        (missions / f"{name.lower()}.vague").write_text(GOOD.format(name=name))
    (missions / "failing.vague").write_text(FAILING)
    assert reqon("missions", cwd=tmp_path).code == 1
    assert reqon("missions/alpha.vague", cwd=tmp_path).code == 0
    return tmp_path


def records(home: Path) -> list[dict[str, Any]]:
    """The records' files, newest first."""
    found = [decode(path.read_bytes()) for path in (home / ".vague-data" / "execution").glob("*.json")]
    return sorted(found, key=lambda r: r["executionId"], reverse=True)


def age(home: Path, mission: str, began: str) -> str:
    """Let a mission's oldest record be of another day; its id."""
    path = min((home / ".vague-data" / "execution").glob(f"{mission}-*.json"))
    record = decode(path.read_bytes())
    record |= {"startedAt": began, "completedAt": began}
    path.write_bytes(encode(record, pretty=True) + b"\n")
    path.rename(path.with_name(f"{mission}-{began[:19].replace(':', '-')}.json"))
    return str(record["executionId"])


def test_status_and_history_are_the_records_as_they_are(home: Path) -> None:
    kept = records(home)
    assert reqon("history", "--json", cwd=home).json == kept
    assert reqon("history", "Alpha", "--json", cwd=home).json == [r for r in kept if r["mission"] == "Alpha"]
    assert reqon("history", "--limit", 1, "--json", cwd=home).json == kept[:1]
    failed = reqon("history", "--status", "failed", "--json", cwd=home).json
    assert [r["mission"] for r in failed] == ["Failing"]
    assert reqon("history", "--since", "2999-01-01", "--json", cwd=home).json == []
    assert reqon("history", "--since", "2020-01-01T00:00:00Z", "--json", cwd=home).json == kept
    assert reqon("status", "Alpha", "--json", cwd=home).json == kept[0]
    one = kept[-1]
    assert reqon("status", "--execution", one["executionId"], "--json", cwd=home).json == one
    assert reqon("status", one["mission"], "--execution", one["executionId"], "--json", cwd=home).json == one
    latest = {r["mission"]: r for r in reversed(kept)}
    assert {r["mission"]: r for r in reqon("status", "--json", cwd=home).json} == latest
    assert reqon("status", "Beta", "--execution", kept[0]["executionId"], cwd=home).code == 3


def test_for_people_they_are_plain_tables_in_a_pipe(home: Path) -> None:
    status = reqon("status", cwd=home)
    assert status.err == ""
    assert [line.split()[:2] for line in status.out.splitlines()] == [
        ["MISSION", "STATUS"],
        *[[r["mission"], r["status"]] for r in reqon("status", "--json", cwd=home).json],
    ]
    assert "no more of this" in status.out
    assert "\x1b" not in status.out
    one = reqon("status", "Failing", cwd=home).out
    assert "missions/failing.vague:3:37" in one
    assert "no more of this" in one
    assert "--resume --execution exec_" in one
    other = next(r for r in records(home) if r["mission"] == "Beta")["executionId"]
    wrong = reqon("status", "Alpha", "--execution", other, cwd=home)
    assert wrong.code == 3
    assert f"{other} is an execution of Beta, not of Alpha" in wrong.err
    same = reqon("logs", records(home)[0]["executionId"], cwd=home)
    assert same.code == 0
    assert "mission.complete" in same.out


def test_looking_makes_nothing(tmp_path: Path) -> None:
    assert "no execution is recorded" in reqon("status", cwd=tmp_path).out
    assert reqon("status", "--json", cwd=tmp_path).json == []
    assert reqon("history", "--json", cwd=tmp_path).json == []
    assert reqon("cleanup", "--older-than", "1d", cwd=tmp_path).out == "deleted 0 executions, 0 bytes\n"
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_is_set_aside_and_the_others_are_shown(home: Path) -> None:
    path = max((home / ".vague-data" / "execution").glob("Alpha-*.json"))
    path.write_text("{")
    ended = reqon("history", "--json", cwd=home)
    assert ended.code == 0
    assert len(ended.json) == 3
    assert path.name in ended.err


LOOKS = (
    "status",
    "status Alpha --json",
    "history",
    "cleanup --older-than 30d",
    "cleanup Alpha --all",
    "logs exec_abc123",
    "resume missions --explain",
    "dlq list",
)


@pytest.mark.parametrize("kind", ["a file", "a link to nowhere", "a file inside"])
def test_what_is_no_directory_is_said_in_one_line(kind: str, home: Path) -> None:
    state = home / "state"
    if kind == "a file":
        state.write_text("kept")
    elif kind == "a link to nowhere":
        state.symlink_to(home / "gone")
    else:
        state.mkdir(mode=0o700)
        (state / "execution").write_text("kept")
    for command in LOOKS:
        ended = reqon(*command.split(), "--state-dir", state, cwd=home)
        assert "Traceback" not in ended.text, (command, ended)
        if kind == "a link to nowhere":  # as a directory that is not there yet
            continue
        assert ended.code == 3, (command, ended)
        assert f"error: state directory {state} cannot be used: " in ended.err, (command, ended)
        assert "is a file, not a directory" in ended.err, (command, ended)
    assert (state if kind == "a file" else state / "execution").exists() or kind == "a link to nowhere"


def test_every_damage_of_a_record_leaves_the_others_to_be_seen(home: Path) -> None:
    """D8: fifteen damages of one record among good ones, by each command that looks."""
    good = records(home)
    path = max((home / ".vague-data" / "execution").glob("Alpha-*.json"))
    content = path.read_bytes()
    mine = decode(content)["executionId"]
    others = [r for r in good if r["executionId"] != mine]
    for name, damage in DAMAGES.items():
        damage(path)
        for command in ("history --json", "doctor"):
            ended = reqon(*command.split(), cwd=home)
            assert ended.code == 0, (name, command, ended)
            if command == "history --json":
                shown = [r for r in ended.json if r["executionId"] != mine]
                assert shown == others, (name, ended)
                assert path.name in ended.err or name in ("newer version", "doubled", "unreadable"), (name, ended)
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(content)
    assert reqon("history", "--json", cwd=home).json == good


def test_cleanup_takes_what_is_older(home: Path) -> None:
    old = age(home, "Alpha", "2024-01-20T09:00:00.000Z")
    kept = len(records(home)) - 1
    shown = reqon("cleanup", "--older-than", "30d", "--dry-run", cwd=home)
    assert shown.code == 0
    assert old in shown.out
    assert "would delete 1 execution, " in shown.out
    assert len(records(home)) == kept + 1
    assert reqon("cleanup", "Beta", "--older-than", "30d", cwd=home).out == "deleted 0 executions, 0 bytes\n"
    assert reqon("cleanup", "Alpha", "--older-than", "52w", cwd=home).out.startswith("deleted 1 execution, ")
    assert len(records(home)) == kept
    assert old not in [r["executionId"] for r in records(home)]


def test_cleanup_of_a_mission_takes_all_of_it_and_nothing_else(home: Path) -> None:
    answer = reqon("cleanup", "Alpha", "--all", "--json", cwd=home)
    assert answer.code == 0
    assert len(answer.json["deleted"]) == 2
    assert answer.json["bytes"] > 0
    assert sorted(r["mission"] for r in records(home)) == ["Beta", "Failing"]
    assert (home / ".vague-data" / "stores" / "Alpha.json").exists()
    assert reqon("status", "Alpha", cwd=home).code == 3
    assert reqon("cleanup", "--all", "--yes", cwd=home).code == 0
    assert records(home) == []


def test_cleanup_leaves_what_runs_and_what_a_newer_version_wrote(home: Path) -> None:
    path = max((home / ".vague-data" / "execution").glob("Beta-*.json"))
    newer = decode(path.read_bytes()) | {"reqonVersion": "99.0.0"}
    path.write_bytes(encode(newer, pretty=True) + b"\n")
    busy = records(home)[0]
    with Owner(home / ".vague-data", "execution", busy["executionId"]) as owner:
        assert owner.answer() == "held"
        ended = reqon("cleanup", "--all", "--json", cwd=home)
    assert ended.code == 0
    assert set(ended.json["skipped"]) == {busy["executionId"], newer["executionId"]}
    assert f"skipped: {busy['executionId']} of {busy['mission']} is running" in ended.err
    assert f"{newer['executionId']} of Beta was written by Reqon 99.0.0" in ended.err
    assert {r["executionId"] for r in records(home)} == set(ended.json["skipped"])


def test_what_is_said_of_the_directory_at_the_start_is_a_warning_and_quiet_hides_it(home: Path) -> None:
    (home / ".vague-data").chmod(0o755)
    loud = reqon("missions/alpha.vague", cwd=home)
    assert loud.code == 0
    assert loud.err.startswith("warning: .vague-data can be read by other users (mode 755)")
    assert reqon("missions/alpha.vague", "--quiet", cwd=home).text == ""
    assert '"level":"warning"' in reqon("missions/alpha.vague", "-v", cwd=home, REQON_LOG_FORMAT="json").err


@pytest.mark.parametrize("age", ["7", "-5d", "x", "", "1e9d", "7 fortnights"])
def test_an_age_that_is_none_is_refused_with_those_that_are(age: str, home: Path) -> None:
    kept = records(home)
    refused = reqon("cleanup", f"--older-than={age}", cwd=home)
    assert refused.code == 3
    assert refused.err.splitlines()[1] == "hint: write 30d, 7 days, 12h, 90m, 45s or 4w."
    assert records(home) == kept


def test_a_pipe_that_closes_early_is_no_failure(home: Path) -> None:
    script = f"{sys.executable} -m reqon history --json | head -c 1 > /dev/null; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(
        ["bash", "-c", script], cwd=home, env=environment({}), capture_output=True, check=False, timeout=20
    )
    assert ended.returncode == 0
    assert ended.stderr == b""
