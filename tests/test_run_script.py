"""`make run`, without make: the script that starts the example API and the daemon, and ends both."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    ours = Path(sys.executable).parent
    assert shutil.which("reqon", path=str(ours)), "the checkout is installed, as make does it"
    return {
        **os.environ,
        "PATH": f"{ours}{os.pathsep}{os.environ['PATH']}",
        "API_PORT": str(free_port()),
        "METRICS_PORT": str(free_port()),
        "REQON_STATE_DIR": str(tmp_path / "state"),
        "REQON_LOG_FORMAT": "json",
    }


@contextmanager
def started(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [ROOT / "examples" / "run.sh"], env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def get(port: str, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def test_missions_run_and_both_processes_end_with_the_script(environment: dict[str, str], tmp_path: Path) -> None:
    with started(environment) as script:
        assert script.stderr is not None
        for line in script.stderr:
            if line.startswith("{") and json.loads(line)["message"] == "mission.complete":
                break
        assert 'reqon_mission_runs_total{mission="Pulse"' in get(environment["METRICS_PORT"], "/metrics")
        script.send_signal(signal.SIGTERM)
        rest = script.stderr.read()
        assert script.wait(40) == 0
    assert rest.splitlines()[-1].startswith("Stopped.")
    assert list((tmp_path / "state" / "execution").glob("Pulse-*.json"))
    assert json.loads((tmp_path / "state" / "stores" / "recent-changes.json").read_bytes())
    for name in ("API_PORT", "METRICS_PORT"):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(environment[name])))


@pytest.mark.parametrize("name", ["API_PORT", "METRICS_PORT"])
def test_a_taken_port_is_said_plainly(name: str, environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", int(environment[name]))), started(environment) as script:
        assert script.stderr is not None
        told = script.stderr.read()
        assert script.wait(10) == 3
    assert f"Port {environment[name]}" in told
    assert f"{name}=" in told
