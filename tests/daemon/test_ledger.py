import asyncio
import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reqon.errors import StateError
from reqon.files import Disk, arm, seal
from reqon.state.directory import StateDirectory
from reqon.values import decode, encode
from reqon_daemon.happenings import FileQuarantined, Happenings, SlotOutcome
from reqon_daemon.ledger import Decision, Ledger, Pause, PendingRetry
from tests.support.disks import FailingDisk
from tests.support.timetable import UnsyncedDisk

START = datetime(2026, 3, 1, 8, 15, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def ledger(path: Path, **options: object) -> Ledger:
    found = Ledger(StateDirectory(path, warn=lambda _: None), **options)  # type: ignore[arg-type]
    found.open()
    return found


def slot(number: int, mission: str = "M", outcome: SlotOutcome = SlotOutcome.FIRED) -> Decision:
    due = START + number * SECOND
    return Decision(mission=mission, due=due, outcome=outcome, reason="on time", decided_at=due, first_due=due)


def log_of(path: Path) -> Path:
    return path / "schedule" / "ledger.log"


def test_what_is_committed_is_read_again(tmp_path: Path) -> None:
    first = ledger(tmp_path)
    first.update("M", signature="every 15 minutes +0ms", anchor=START, last_success=START + 1.2345 * SECOND)
    first.update("M", pause=Pause(since=START, until=START + SECOND, reason="moving"))
    retry = PendingRetry(execution_id="exec_a", attempt=2, due=START, delay_seconds=60.0, slot=START)
    first.update("N", retry=retry, consecutive_failures=3, judged_execution="exec_a", judged_slot=START)
    first.decide(slot(1))
    first.amend("M", START + SECOND, begun=True, execution_id="exec_b")
    first.commit_blocking()
    first.close()
    second = ledger(tmp_path)
    assert second.standings() == first.standings()
    assert second.decisions("M") == first.decisions("M")
    assert [d.execution_id for d in second.unfinished()] == ["exec_b"]
    assert second.standing("M") is not None
    assert second.register("M").last_success == START + timedelta(seconds=1, milliseconds=234)
    third = ledger(tmp_path)
    assert third.standings() == first.standings()


def test_a_new_directory_gets_its_ledger_private(tmp_path: Path) -> None:
    ledger(tmp_path / "state").close()
    assert log_of(tmp_path / "state").stat().st_mode & 0o777 == 0o600
    assert log_of(tmp_path / "state").parent.stat().st_mode & 0o777 == 0o700


def test_reading_alone_writes_nothing(tmp_path: Path) -> None:
    Ledger(StateDirectory(tmp_path / "state"))
    assert not (tmp_path / "state").exists()


def test_fifty_decisions_are_kept_and_all_that_have_not_ended(tmp_path: Path) -> None:
    first = ledger(tmp_path)
    for number in range(200):
        first.decide(slot(number, outcome=SlotOutcome.FIRED if number < 3 else SlotOutcome.SKIPPED_OVERLAP))
    assert len(first.decisions("M")) == 50
    assert len(first.unfinished()) == 3
    first.commit_blocking()
    assert ledger(tmp_path).decisions("M") == first.decisions("M")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_cut_at_any_byte_loses_only_what_was_behind_it(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut")
    first = ledger(path)
    for number in range(6):
        first.decide(slot(number))
        first.commit_blocking()
    first.close()
    content = log_of(path).read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    log_of(path).write_bytes(content[:cut])
    happenings = Happenings()
    found: list[FileQuarantined] = []
    happenings.on(FileQuarantined, found.append)
    second = ledger(path, happenings=happenings)
    # Its head is written with the file, at once: a cut in there is no kill's work.
    assert bool(found) == (cut <= content.index(b"\n"))
    kept = second.decisions("M")
    assert kept == first.decisions("M")[: len(kept)]
    assert len(kept) == content[:cut].rpartition(b"\n")[0].count(b'"kind":"slot"')
    second.decide(slot(90))
    second.commit_blocking()
    assert ledger(path).decisions("M")[-1] == slot(90)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\0" * 4096,
        b"not a ledger\n" * 5,
        b"\xff\xfe\n\n\n",
        seal(b"[1]") + seal(b"{}") + seal(b'{"kind":"slot"}') + seal(b"null"),
        seal(b'{"kind":"mission","mission":7}') + seal(b"{") * 3,
        b"{" * 100_000,
    ],
)
def test_damage_is_set_aside_and_good_lines_stay(tmp_path: Path, damage: bytes) -> None:
    """D8: damages of the slot ledger: quarantine, and the start goes on."""
    first = ledger(tmp_path)
    first.decide(slot(1))
    first.commit_blocking()
    first.close()
    good = log_of(tmp_path).read_bytes()
    log_of(tmp_path).write_bytes(damage + (b"\n" if damage and not damage.endswith(b"\n") else b"") + good)
    happenings = Happenings()
    found: list[FileQuarantined] = []
    happenings.on(FileQuarantined, found.append)
    second = ledger(tmp_path, happenings=happenings)
    assert second.decisions("M") == (slot(1),)
    if damage:
        assert Path(found[0].path).read_bytes().startswith(damage)
        assert "damaged line" in found[0].reason
    assert ledger(tmp_path).decisions("M") == (slot(1),)


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_what_is_no_file_is_set_aside(tmp_path: Path, kind: str) -> None:
    """D8: a link, a FIFO, a directory in the ledger's place."""
    path = log_of(tmp_path)
    path.parent.mkdir(parents=True)
    if kind == "link":
        path.symlink_to("/etc/hostname")
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    second = ledger(tmp_path)
    second.decide(slot(1))
    second.commit_blocking()
    assert path.is_file()
    assert len(list((tmp_path / "quarantine").iterdir())) == 1


def test_a_newer_ledger_is_left_alone(tmp_path: Path) -> None:
    path = log_of(tmp_path)
    path.parent.mkdir(parents=True)
    content = seal(encode({"kind": "ledger", "version": 99}))
    path.write_bytes(content)
    with pytest.raises(StateError, match="newer version"):
        ledger(tmp_path)
    assert path.read_bytes() == content


class FillableDisk(FailingDisk):
    """Has space, or has none."""

    def fill(self) -> None:
        self._write, self._for_ever = self.writes + 1, True

    def empty(self) -> None:
        self._write = 0


def test_a_failed_sync_is_answered_with_a_new_file(tmp_path: Path) -> None:
    """D6: EIO at a sync: the handle isn't believed again."""

    class SyncsOnce(Disk):
        fails = False

        def sync(self, fd: int, what: str) -> None:
            if self.fails:
                self.fails = False
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            super().sync(fd, what)

    disk = SyncsOnce()
    first = Ledger(StateDirectory(tmp_path, disk=disk))
    first.open()
    inode = log_of(tmp_path).stat().st_ino
    disk.fails = True
    first.decide(slot(1))
    first.commit_blocking()
    assert log_of(tmp_path).stat().st_ino != inode
    assert ledger(tmp_path).decisions("M") == (slot(1),)


def test_a_full_disk_is_an_error_that_names_it_and_nothing_is_lost_once_there_is_space(tmp_path: Path) -> None:
    """D6: ENOSPC: a named error, no unreadable file, the next commit completes."""
    disk = FillableDisk()
    directory = StateDirectory(tmp_path, disk=disk)
    first = Ledger(directory)
    first.open()
    first.decide(slot(1))
    first.commit_blocking()
    disk.fill()
    first.decide(slot(2))
    with pytest.raises(StateError, match=r"ledger\.log: No space left on device"):
        first.commit_blocking()
    assert directory.write_errors == 1
    assert ledger(tmp_path).decisions("M") == (slot(1),)
    disk.empty()
    first.decide(slot(3))
    first.commit_blocking()
    assert ledger(tmp_path).decisions("M") == (slot(1), slot(2), slot(3))


def test_commits_of_several_tasks_share_what_they_write(tmp_path: Path) -> None:
    syncs: list[str] = []
    first = ledger(tmp_path)
    arm("before-ledger-sync", syncs.append)

    async def decide(number: int) -> None:
        first.decide(slot(number))
        await first.commit()

    async def main() -> None:
        await asyncio.gather(*(decide(n) for n in range(50)))

    try:
        asyncio.run(main())
    finally:
        arm("before-ledger-sync", None)
    assert len(syncs) < 50
    assert len(ledger(tmp_path).decisions("M")) == 50


def test_a_long_ledger_is_written_anew(tmp_path: Path) -> None:
    first = Ledger(StateDirectory(tmp_path, disk=UnsyncedDisk()))
    first.open()
    for number in range(200):
        first.decide(replace(slot(number, outcome=SlotOutcome.MISSED), reason="x" * 30_000))
        first.commit_blocking()
    assert log_of(tmp_path).stat().st_size < 6 * 1024 * 1024
    assert len(ledger(tmp_path).decisions("M")) == 50


def test_decisions_of_a_wrong_clock_can_be_dropped(tmp_path: Path) -> None:
    first = ledger(tmp_path)
    first.decide(slot(1))
    first.decide(slot(10**8))
    first.rewind("M", START + 5 * SECOND)
    first.commit_blocking()
    second = ledger(tmp_path)
    assert second.decisions("M") == (slot(1),)
    assert second.register("M").decided_until == START + 5 * SECOND


KILLED = """
import signal, os, sys
from pathlib import Path
from tests.daemon.test_ledger import ledger, slot
from reqon.files import arm
state, ready = Path(sys.argv[1]), sys.argv[2]
book = ledger(state)
if ready != "none":
    arm(ready, lambda _: os.kill(os.getpid(), signal.SIGKILL) if len(book.decisions("M")) > 20 else None)
number = len(book.decisions("M"))
while True:
    number += 1
    book.decide(slot(number))
    book.commit_blocking()
    print(number, flush=True)
"""


@pytest.mark.parametrize("failpoint", ["before-ledger-sync", "after-ledger-sync", "none"])
def test_a_killed_process_keeps_every_decision_it_was_promised(tmp_path: Path, failpoint: str) -> None:
    """S3: a decision that was committed is there after SIGKILL, whenever that was."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), failpoint],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    promised = 0
    for line in process.stdout:
        promised = int(line)
        if failpoint == "none" and promised >= 20:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait(20) == -signal.SIGKILL
    promised = max([promised, *(int(line) for line in process.stdout)])
    process.stdout.close()
    dues = [d.due for d in ledger(tmp_path).decisions("M")]
    assert dues[:promised] == [START + n * SECOND for n in range(1, promised + 1)]
    assert len(dues) <= promised + 1


def test_the_form_on_disk_is_json_lines(tmp_path: Path) -> None:
    first = ledger(tmp_path)
    first.decide(slot(1))
    first.commit_blocking()
    lines = [decode(line.rpartition(b"\t")[0]) for line in log_of(tmp_path).read_bytes().splitlines()]
    assert [line["kind"] for line in lines] == ["ledger", "mission", "slot"]
    assert lines[2]["due"] == "2026-03-01T08:15:01.000Z"
    assert lines[2]["outcome"] == "fired"
