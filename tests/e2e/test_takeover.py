"""Owners that are killed while others want their execution, also as process 1 of containers (reliability.md R2, R5)."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from reqon.values import decode
from tests.support.daemon_process import DaemonProcess
from tests.support.orders_api import OrdersApi
from tests.support.peers import needs
from tests.support.processes import COMMAND, Process, environment, reqon, soon

ROUNDS = 50 if os.environ.get("REQON_SLOW") else 5
MISSION = """mission Visit {{
  schedule: every 10 hours
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store seen: file("seen")
  action List {{ get "/customers" {{ params: {{ per_page: 50 }} }} }}
  action Each {{
    for customer in response.customers {{
      get "/customers/{{customer.id}}"
      store response -> seen {{ key: .id }}
    }}
  }}
  run List then Each
}}
"""


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=12, orders=5) as running:
        yield running


def record(state: Path) -> dict[str, object]:
    (path,) = (state / "execution").glob("Visit-*.json")
    found = decode(path.read_bytes())
    assert isinstance(found, dict)
    return found


def asked(api: OrdersApi) -> list[str]:
    return [r["path"] for r in api.requests("/customers/")]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_of_those_who_come_right_after_a_kill_one_takes_over(number: int, api: OrdersApi, tmp_path: Path) -> None:
    """R2, R5: killed from outside while two resumes and a daemon start; then the one that took over is killed too."""
    missions = tmp_path / "missions"
    missions.mkdir()
    (missions / "visit.vague").write_text(MISSION.format(url=api.url))
    state = tmp_path / "state"
    words = [missions, "--resume", "--state-dir", state]
    api.hold("/customers/", at=3 + number % 5)
    with Process([missions, "--state-dir", state], cwd=tmp_path) as first:
        assert api.reached.wait(60)
        api.hold("/customers/", at=2)  # whoever takes over is held at its second item
        first.kill()
        with (
            Process(words, cwd=tmp_path) as one,
            Process(words, cwd=tmp_path) as two,
            DaemonProcess(missions, state) as daemon,
        ):
            assert api.reached.wait(60)
            soon(lambda: not (one.running and two.running), "one of them refused")
            holder = soon(lambda: record(state), "a record")["owner"]
            assert isinstance(holder, dict)
            everyone: dict[object, Process | DaemonProcess] = {
                one.process.pid: one,
                two.process.pid: two,
                daemon.process.pid: daemon,
            }
            taker = everyone[holder["pid"]]
            assert (record(state)["status"], record(state)["attempt"]) == ("running", 2)
            for resume in (one, two):
                if resume is not taker and not resume.running:
                    assert "is running in another process" in resume.wait().err
            taker.signal(signal.SIGKILL)
            daemon.signal(signal.SIGKILL)
            for process in (one, two):
                process.signal(signal.SIGKILL)
    api.release()
    last = reqon(*words, cwd=tmp_path)
    assert last.code == 0, last.text
    done = record(state)
    assert (done["status"], done["itemsProcessed"]) == ("completed", 12)
    assert set(decode((state / "stores" / "seen.json").read_bytes())) == set(api.customers())
    seen = asked(api)
    assert len(set(seen)) == 12
    assert len(seen) <= 12 + 2, "one item for each of the two kills"


# --- process numbers that mean nothing -------------------------------------------------------------------------------


class Container:
    """A shell script as process 1 of a process namespace; SIGKILL to it ends all that is in there."""

    def __init__(self, script: str, *arguments: object, cwd: Path) -> None:
        unshare = needs("unshare")
        if os.geteuid() != 0:
            pytest.skip("needs root: a process namespace")
        command = [unshare, "--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, cwd=cwd, env=environment({}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    @property
    def inner(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(soon(lambda: children.read_text().split(), "process 1")[0])

    def kill(self) -> None:
        os.kill(self.inner, signal.SIGKILL)
        self.process.communicate(timeout=60)

    def end(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=120)
        return self.process.returncode, out


def run(*more: object) -> Sequence[object]:
    return (*COMMAND, "visit.vague", "--state-dir", "state", *more)


@pytest.mark.parametrize(
    ("script", "again", "pid"),
    [
        ('exec "$@"', 'exec "$@"', 1),
        # The shell is 1 and the run is 2; in the next container 2 is a living program that has nothing to do with us.
        ('"$@"; true', 'sleep 1000 & "$@"; code=$?; kill $!; exit $code', 2),
    ],
    ids=["process 1 in a new container", "a number that another program has now"],
)
def test_a_killed_containers_run_goes_on_in_the_next_one(
    script: str, again: str, pid: int, api: OrdersApi, tmp_path: Path
) -> None:
    """R2: one host name, one process number, another namespace: as after a restart of a container, or a reboot."""
    (tmp_path / "visit.vague").write_text(MISSION.format(url=api.url))
    api.hold("/customers/", at=5)
    first = Container(script, *run(), cwd=tmp_path)
    assert api.reached.wait(60)
    owner = record(tmp_path / "state")["owner"]
    assert isinstance(owner, dict)
    assert owner["pid"] == pid
    # While it lives, whoever looks from another namespace leaves it alone, whatever number it has itself.
    code, out = Container('exec "$@"', *run("--resume"), cwd=tmp_path).end()
    assert code == 0
    assert "is running in another process" in out
    first.kill()
    api.release()
    shown = reqon("status", "Visit", "--json", "--state-dir", "state", cwd=tmp_path).json
    assert (shown["status"], shown["activeStep"]["index"]) == ("interrupted", 4)
    code, out = Container(again, *run("--resume"), cwd=tmp_path).end()
    assert code == 0, out
    done = record(tmp_path / "state")
    assert (done["status"], done["attempt"]) == ("completed", 2)
    assert (len(asked(api)), len(set(asked(api)))) == (13, 12)
