"""Starting daemons: two at a time, right after a kill, and where the state directory cannot be used."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from reqon.values import decode
from tests.support.daemon_process import DaemonProcess
from tests.support.orders_api import OrdersApi
from tests.support.peers import needs
from tests.support.processes import Process, environment, reqon
from tests.support.rights import drop_overrides

SUSPENDED_SECONDS = 600 if os.environ.get("REQON_SLOW") else 0
PAIRS = 100 if os.environ.get("REQON_SLOW") else 10
MISSION = """
mission Resting {
  schedule: every 1 hour
  store out: file("rested")
  action Load { store { id: "a" } -> out }
  run Load
}
"""
# Of its own time on a processor, and of its children's; others may be using the machine.
START_SECONDS = 2.0


@pytest.fixture
def missions(tmp_path: Path) -> Path:
    folder = tmp_path / "missions"
    folder.mkdir()
    (folder / "resting.vague").write_text(MISSION)
    return folder


@pytest.mark.timeout(3600)
def test_of_two_daemons_started_together_one_serves(missions: Path, tmp_path: Path) -> None:
    """R6: pairs of daemons started together, each right after the SIGKILL of the one before: one survivor each."""
    state = tmp_path / "state"
    for number in range(PAIRS):
        with DaemonProcess(missions, state) as first, DaemonProcess(missions, state) as second:
            serving, refused = told_apart(first, second)
            assert refused.wait() == 3, number
            assert f"pid {serving.process.pid}" in refused.text, (number, refused.text)
            assert "Traceback" not in refused.text
            assert serving.process.poll() is None
            assert serving.ask("status")["pid"] == serving.process.pid
            serving.signal(signal.SIGKILL)
            serving.wait()


def told_apart(*daemons: DaemonProcess) -> tuple[DaemonProcess, DaemonProcess]:
    """The one that serves and the one that does not, as soon as one is ready."""
    while True:
        for one, other in (daemons, daemons[::-1]):
            if any(line.get("message") == "ready" for line in one.lines):
                return one, other
        codes = [daemon.process.poll() for daemon in daemons]
        assert None in codes, [daemon.text for daemon in daemons]
        next(daemon for daemon, code in zip(daemons, codes, strict=True) if code is None).heard(0.2)


SLOWLY = """
mission Slowly {{
  schedule: every 1 hour
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 2, initialDelay: 10 }} }}
  store out: file("slowly")
  action Load {{ get "/orders" {{ params: {{ limit: 5 }} }} store response.orders -> out {{ key: .id }} }}
  run Load
}}
"""


@pytest.mark.timeout(3600)
def test_a_suspended_run_is_left_alone_by_whoever_starts_meanwhile(missions: Path, tmp_path: Path) -> None:
    """R2: a live owner that does nothing, in full for ten minutes: asked for by a resume, a daemon and a look."""
    with OrdersApi(orders=5) as api:
        (missions / "slowly.vague").write_text(SLOWLY.format(url=api.url))
        api.hold("/orders", at=1)
        with Process([missions, "--mission", "Slowly", "--state-dir", "state"], cwd=tmp_path) as run:
            assert api.reached.wait(60)
            run.signal(signal.SIGSTOP)
            time.sleep(SUSPENDED_SECONDS)
            again = reqon(missions, "--mission", "Slowly", "--resume", "--state-dir", "state", cwd=tmp_path)
            assert again.code == 0, again.text
            assert "is running in another process" in again.text
            with DaemonProcess(missions, tmp_path / "state") as daemon:
                daemon.ready()
                assert not any(line.get("message") == "resuming" for line in daemon.lines)
                daemon.signal()
                assert daemon.wait() == 0
            shown = reqon("status", "Slowly", "--json", "--state-dir", "state", cwd=tmp_path).json
            assert shown["status"] == "running"
            run.signal(signal.SIGCONT)
            api.release()
            assert run.wait().code == 0
        (record,) = (tmp_path / "state" / "execution").glob("Slowly-*.json")
        kept = decode(record.read_bytes())
        assert (kept["status"], kept["attempt"]) == ("completed", 1)


# --- state directories that cannot be used ----------------------------------------------------------------------------


def a_file(state: Path) -> Sequence[str]:
    state.write_text("kept")
    return ()


def read_only(state: Path) -> Sequence[str]:
    state.mkdir(mode=0o500)
    return ()


def not_ours(state: Path) -> Sequence[str]:
    state.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(state, 4711, 4711)
    else:
        state.chmod(0)
    return ()


def a_newer_format(state: Path) -> Sequence[str]:
    state.mkdir(mode=0o700)
    (state / ".format").write_text("99\n")
    return ()


def mounted(options: str, fill: str) -> Callable[[Path], Sequence[str]]:
    def make(state: Path) -> Sequence[str]:
        state.mkdir(mode=0o700)
        user = () if os.geteuid() == 0 else ("--map-root-user",)
        script = f'mount -t tmpfs -o {options} none "$0" && {fill}; exec "$@"'
        return [needs("unshare"), "--mount", *user, "sh", "-c", script, str(state)]

    return make


SPOILED = {
    "a file": (a_file, "is a file, not a directory"),
    "read-only": (read_only, "Permission denied"),
    "not ours": (not_ours, ""),
    "a newer format": (a_newer_format, "a newer Reqon wrote it"),
    "a full disk": (mounted("size=64k,mode=700", 'dd if=/dev/zero of="$0/x" bs=1k 2>/dev/null'), "No space left"),
    "a read-only file system": (mounted("size=64k,mode=700", 'mount -o remount,ro "$0"'), "Read-only file system"),
}


@pytest.mark.parametrize("how", ["--daemon", "--once", ""])
@pytest.mark.parametrize("kind", SPOILED)
def test_a_directory_that_cannot_be_used_is_said_in_one_line(
    kind: str, how: str, missions: Path, tmp_path: Path
) -> None:
    """D7: exit 3 in two seconds, one line with path, reason and effective user, nothing changed."""
    spoil, reason = SPOILED[kind]
    state = tmp_path / "state"
    before = spoil(state)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [*before, sys.executable, "-m", "reqon", str(missions), *[how] * bool(how), "--state-dir", str(state)],
        env=environment({}),
        preexec_fn=drop_overrides,  # no thread of ours holds a lock here
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.returncode == 3, ended.stderr
    error, *hint = ended.stderr.splitlines()
    assert error.startswith("error: ")
    assert f"state directory {state} cannot be used" in error
    assert reason in error
    assert f"uid {os.geteuid()}" in error or before  # as root of a namespace
    assert [line.startswith("hint: ") for line in hint] == [True]
    assert spent.ru_utime + spent.ru_stime - used.ru_utime - used.ru_stime < START_SECONDS
    assert not state.is_dir() or {path.name for path in state.iterdir()} <= {".format"}
    assert not state.is_file() or state.read_text() == "kept"
