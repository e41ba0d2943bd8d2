"""The state directory: what is where, what is refused, what is set aside."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from reqon.errors import StateError
from reqon.state.directory import StateDirectory, safe_name
from tests.support.clocks import FakeClock
from tests.support.disks import FailingDisk, UnreadableDisk


def warned(path: Path, **parts: object) -> tuple[StateDirectory, list[str]]:
    sentences: list[str] = []
    return StateDirectory(path, warn=sentences.append, **parts), sentences  # type: ignore[arg-type]


def test_a_new_directory_is_made_and_kept_out_of_git(tmp_path: Path) -> None:
    directory, sentences = warned(tmp_path / "deep" / ".vague-data")
    assert not directory.exists
    directory.open()
    assert directory.path.stat().st_mode & 0o777 == 0o700
    assert (directory.path / ".gitignore").read_text() == "*\n"
    assert sentences == []
    assert sorted(p.name for p in directory.path.iterdir()) == [".format", ".gitignore", "execution", "locks", "stores"]


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    StateDirectory(tmp_path / "s").open()
    (tmp_path / "s" / ".gitignore").write_text("mine")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").rglob("*") if p.is_file() and "lock" not in p.name}
    StateDirectory(tmp_path / "s").open()
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_mounted_directory_keeps_its_mode_and_one_warning_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    directory, sentences = warned(tmp_path)
    directory.open().open()
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert len(sentences) == 1
    assert "chmod 700" in sentences[0]


def a_file(path: Path) -> StateDirectory:
    path.write_text("")
    return StateDirectory(path)


def below_a_file(path: Path) -> StateDirectory:
    path.write_text("")
    return StateDirectory(path / "state")


def a_loop_of_links(path: Path) -> StateDirectory:
    path.symlink_to(path)
    return StateDirectory(path)


def a_full_disk(path: Path) -> StateDirectory:
    path.mkdir()
    return StateDirectory(path, disk=FailingDisk(write=1, for_ever=True, number=errno.ENOSPC))


def a_read_only_disk(path: Path) -> StateDirectory:
    # Root may write whatever the modes say, so a disk has to refuse.
    path.mkdir()
    return StateDirectory(path, disk=FailingDisk(write=1, for_ever=True, number=errno.EROFS))


def a_format_that_cannot_be_read(path: Path) -> StateDirectory:
    StateDirectory(path).open()
    return StateDirectory(path, disk=UnreadableDisk(lambda p: p.name == ".format"))


def inner_directory_is_a_file(path: Path) -> StateDirectory:
    path.mkdir()
    (path / "execution").write_text("")
    return StateDirectory(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (a_file, "state is a file, not a directory"),
        (below_a_file, "state is a file, not a directory"),
        (a_loop_of_links, "symbolic link|File exists|not a directory"),
        (a_full_disk, "No space left"),
        (a_read_only_disk, "Read-only file system"),
        (a_format_that_cannot_be_read, "Permission denied"),
        (inner_directory_is_a_file, "execution is a file"),
    ],
)
def test_an_unusable_directory_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], StateDirectory], reason: str
) -> None:
    """D7. Read-only, full and unreadable are simulated: file modes do not bind root, who may run these tests."""
    directory = make(tmp_path / "state")
    with pytest.raises(StateError, match=reason) as caught:
        directory.open()
    assert caught.value.exit_code == 3
    assert str(directory.path) in caught.value.message
    assert f"uid {os.geteuid()}" in caught.value.message
    assert "\n" not in caught.value.message


def test_another_users_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D7."""
    os.chown(tmp_path, 4711, 4711) if os.geteuid() == 0 else pytest.skip("needs root")
    StateDirectory(tmp_path).open()  # root may
    monkeypatch.setattr("os.geteuid", lambda: 4712)
    with pytest.raises(StateError, match=r"belongs to uid 4711 \(effective user uid 4712\)"):
        StateDirectory(tmp_path).open()


def test_a_newer_layout_is_left_untouched(tmp_path: Path) -> None:
    """D7, D10."""
    StateDirectory(tmp_path).open()
    (tmp_path / ".format").write_text("2\n")
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    with pytest.raises(StateError, match="newer Reqon"):
        StateDirectory(tmp_path).open()
    assert sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("content", [b"", b"\0\0", b"-1", b"1.5", b"\xff", b"x" * 1000])
def test_a_damaged_format_number_is_set_aside(tmp_path: Path, content: bytes) -> None:
    """D8, for the format."""
    StateDirectory(tmp_path).open()
    (tmp_path / ".format").write_bytes(content)
    directory, sentences = warned(tmp_path)
    directory.open()
    assert directory.quarantined["format"] == 1
    assert (tmp_path / ".format").read_text() == "1\n"
    assert any(".format" in s for s in sentences)


def test_what_killed_processes_left_is_swept_after_an_hour(tmp_path: Path) -> None:
    clock = FakeClock()
    directory = StateDirectory(tmp_path, clock=clock).open()
    old, new, other = (directory.executions / n for n in (".a.json.0011.tmp", ".b.json.0022.tmp", ".c.spare"))
    for path, hours in ((old, 2), (new, 0.5), (other, 9)):
        path.touch()
        at = clock.now().timestamp() - hours * 3600
        os.utime(path, (at, at))
    StateDirectory(tmp_path, clock=clock).open()
    assert (old.exists(), new.exists(), other.exists()) == (False, True, True)


# --- names ---


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("CustomerSync", "CustomerSync"),
        ("a_b-c.d", "a_b-c.d"),
        ("../x", "%2E.%2Fx"),
        (".", "%2E"),
        ("a b\0", "a%20b%00"),
        ("Zürich", "Z%C3%BCrich"),
        ("50%", "50%25"),
    ],
)
def test_a_name_becomes_a_safe_file_name(name: str, safe: str) -> None:
    """N4."""
    assert safe_name(name) == safe


def test_long_names_are_cut_and_stay_apart() -> None:
    names = {safe_name("x" * n) for n in range(119, 300)}
    assert len(names) == 181
    assert max(map(len, names)) < 140


def test_names_that_differ_by_case_only_get_files_of_their_own(tmp_path: Path) -> None:
    directory = StateDirectory(tmp_path).open()
    first = directory.dead_letters("Depot")
    assert first == tmp_path / "dead-letter" / "Depot.json"
    first.parent.mkdir()
    first.write_text("{}")
    second = directory.dead_letters("depot")
    assert second.name.startswith("depot~")
    second.write_text("{}")
    assert directory.dead_letters("Depot") == first
    assert directory.dead_letters("depot") == second
    locks = {directory.mission_lock(name).path.name.lower() for name in ("Depot", "depot", "DEPOT", "Depot/x")}
    assert len(locks) == 4


@pytest.mark.parametrize("execution_id", ["", "../x", "a/b", "x" * 65])
def test_an_id_that_leads_elsewhere_has_no_lock(tmp_path: Path, execution_id: str) -> None:
    """N4."""
    with pytest.raises(StateError, match="no execution id"):
        StateDirectory(tmp_path).execution_lock(execution_id)


# --- quarantine ---


def test_files_set_aside_are_kept_counted_and_named(tmp_path: Path) -> None:
    directory, sentences = warned(tmp_path, clock=FakeClock())
    directory.open()
    for n in range(3):
        path = directory.path / "x.json"
        path.write_text(str(n))
        directory.quarantine(path, "is no JSON", kind="record")
        assert not path.exists()
    kept = sorted(directory.quarantine_directory.iterdir())
    assert sorted(p.read_text() for p in kept) == ["0", "1", "2"]
    assert directory.quarantined["record"] == 3
    assert len([s for s in sentences if "x.json is no JSON" in s]) == 3


def test_a_copy_leaves_the_original(tmp_path: Path) -> None:
    directory = StateDirectory(tmp_path, warn=lambda _: None).open()
    path = tmp_path / "x.journal"
    path.write_bytes(b"abc" * 1_000_000)
    place = directory.quarantine(path, "is damaged", kind="journal", copy=True)
    assert place is not None
    assert place.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda p: p.symlink_to("/etc/passwd")])
def test_whatever_stands_there_can_be_set_aside(tmp_path: Path, make: Callable[[Path], None]) -> None:
    directory = StateDirectory(tmp_path, warn=lambda _: None).open()
    path = tmp_path / "odd"
    make(path)
    assert directory.quarantine(path, "is odd", kind="record")
    assert not os.path.lexists(path)
    assert Path("/etc/passwd").exists()


def test_a_file_that_cannot_be_set_aside_stays_and_is_told_of_once(tmp_path: Path) -> None:
    directory, sentences = warned(tmp_path)
    directory.open()
    directory.quarantine_directory.write_text("in the way")
    (tmp_path / "x").write_text("x")
    for _ in range(2):
        assert directory.quarantine(tmp_path / "x", "is odd", kind="record") is None
    assert (tmp_path / "x").read_text() == "x"
    assert len(sentences) == 1


def test_a_file_that_another_process_set_aside_is_no_news(tmp_path: Path) -> None:
    directory, sentences = warned(tmp_path)
    assert directory.open().quarantine(tmp_path / "gone", "is odd", kind="record") is None
    assert sentences == []


def test_the_sockets_path_is_in_the_directory(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(StateDirectory(tmp_path).daemon_socket))
    assert (tmp_path / "daemon.sock").exists()
