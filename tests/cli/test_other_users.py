"""Somebody else's state directory, looked at and used by real processes of another user (spec/reliability.md 1, 8)."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from reqon.values import decode
from tests.support.processes import Ended, reqon
from tests.support.users import SOMEBODY, becoming, folder_for_all, give, reqon_as

MISSION = """mission Alpha {
  store out: file("out")
  let items = [{ id: "a" }, { id: "b" }]
  action Load { for item in items { store { id: .id, by: env("WHO", "") } -> out { key: .id } } }
  run Load
}
"""
OTHER = 4712
LOOKS = (
    "status",
    "status Alpha",
    "status --json",
    "status --execution {id}",
    "history",
    "history Alpha --json",
    "logs {id}",
    "cleanup --older-than 30d",
    "cleanup Alpha --all --yes",
    "resume alpha.vague --explain",
    "resume alpha.vague --explain --json",
    "why Alpha",
    "dlq list",
)
RUNS = ("alpha.vague", "alpha.vague --resume", "alpha.vague --resume --execution {id}", "alpha.vague --once")


@pytest.fixture
def home() -> Iterator[Path]:
    """A mission that everybody may read, and `state`, in which SOMEBODY ran it."""
    becoming(SOMEBODY)
    with folder_for_all() as folder:
        (folder / "alpha.vague").write_text(MISSION)
        (folder / "alpha.vague").chmod(0o644)
        (folder / "state").mkdir(mode=0o700)
        give(folder / "state", SOMEBODY)
        ended = run(SOMEBODY, "alpha.vague", folder)
        assert ended.code == 0, ended.text
        yield folder


def run(user: int, command: str, home: Path) -> Ended:
    ids = [decode(path.read_bytes())["executionId"] for path in (home / "state").glob("execution/*.json")]
    words = command.format(id=ids[0] if ids else "").split()
    return reqon_as(user, *words, cwd=home, variables={"REQON_STATE_DIR": "state"})


def told(path: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Everything below a path as it is: owner, mode, time of change and content."""
    found = {}
    for one in (path, *path.rglob("*")):
        seen = one.lstat()
        found[str(one)] = (seen.st_uid, seen.st_mode, seen.st_mtime_ns, one.read_bytes() if one.is_file() else b"")
    return found


@pytest.mark.parametrize(
    ("mode", "commands"),
    [(0o700, (*LOOKS, *RUNS)), (0o755, ("status", "logs {id}", "dlq list", *RUNS[:2]))],
    ids=["private", "readable"],
)
def test_who_may_not_read_it_is_told_so_in_one_line(mode: int, commands: Sequence[str], home: Path) -> None:
    """D7: not ours, by commands that only look and by those that run; nothing is touched, nothing taken as empty."""
    (home / "state").chmod(mode)
    before = told(home)
    for command in commands:
        ended = run(OTHER, command, home)
        assert ended.code == 3, (command, ended)
        assert "Traceback" not in ended.text, (command, ended)
        error, *hint = [line for line in ended.err.splitlines() if "can be read by other users" not in line]
        assert error.startswith("error: state directory state cannot be used: "), (command, ended)
        assert f"(effective user uid {OTHER})" in error, (command, ended)
        assert [line.startswith("hint: ") for line in hint] == [True], (command, ended)
        assert ended.out == "", (command, ended)
    doctor = run(OTHER, "doctor", home)
    assert doctor.code == 3
    assert "error    state directory: state " in doctor.out
    assert f"uid {SOMEBODY}" in doctor.out
    assert told(home) == before


def test_its_owner_and_root_may_look(home: Path) -> None:
    """Root's looks and runs leave nothing behind that the owner could not read or write."""
    for command in LOOKS[:6]:
        assert run(SOMEBODY, command, home).code == 0, command
        assert reqon(*command.format(id=an_id(home)).split(), "--state-dir", "state", cwd=home).code == 0, command
    assert {seen.lstat().st_uid for seen in (home / "state").rglob("*")} == {SOMEBODY}


def test_a_folder_of_another_user_that_all_may_write_to_is_refused(home: Path) -> None:
    """D7: whoever owns the directory can put anything in it; root's is the volume that an orchestrator made."""
    (home / "shared").mkdir()
    (home / "shared").chmod(0o777)
    give(home / "shared", SOMEBODY)
    refused = reqon_as(OTHER, "alpha.vague", "--state-dir", "shared", cwd=home)
    assert refused.code == 3
    assert f"cannot be used: it belongs to uid {SOMEBODY} (effective user uid {OTHER})" in refused.err
    assert list((home / "shared").iterdir()) == []
    give(home / "shared", 0)
    assert reqon_as(OTHER, "alpha.vague", "--state-dir", "shared", cwd=home).code == 0
    assert {path.lstat().st_uid for path in (home / "shared").rglob("*")} == {OTHER}


def test_what_roots_run_left_is_named_to_the_owner(home: Path) -> None:
    """D7: a run by root in somebody's directory; its files are root's, and never taken for absent."""
    assert reqon("alpha.vague", "--state-dir", "state", cwd=home, WHO="root").code == 0
    theirs = [path for path in (home / "state").rglob("*") if path.lstat().st_uid == 0 and path.is_file()]
    assert theirs
    shown = run(SOMEBODY, "status --json", home)
    assert (shown.code, len(shown.json)) == (0, 1)
    assert "cannot read state/execution/Alpha-" in shown.err
    again = run(SOMEBODY, "alpha.vague", home)
    assert again.code == 3
    assert any(str(path.relative_to(home)) in again.err for path in theirs), again
    assert "Traceback" not in again.text
    assert all(path.lstat().st_uid == 0 for path in theirs)


def an_id(home: Path) -> str:
    path = next((home / "state" / "execution").glob("*.json"))
    return str(decode(path.read_bytes())["executionId"])


@pytest.mark.parametrize(
    "inside", ["execution", "locks", "logs", "stores", "sync-checkpoints.json", "state.db", ".format"]
)
def test_a_part_that_root_made_in_it_is_named(inside: str, home: Path) -> None:
    """D7: somebody ran it by sudo once: a file or folder that the owner of all the rest may not read."""
    path = home / "state" / inside
    if not path.exists():
        path.write_bytes(b"{}")
    os.chown(path, 0, 0)
    path.chmod(0o700 if path.is_dir() else 0o600)
    for command in ("status", "cleanup Alpha --all --yes", "doctor", "alpha.vague"):
        ended = run(SOMEBODY, command, home)
        assert "Traceback" not in ended.text, (command, ended)
        assert ended.code in (0, 3), (command, ended)
        assert ended.code == 0 or inside in ended.text, (command, ended)
    assert path.lstat().st_uid == 0
