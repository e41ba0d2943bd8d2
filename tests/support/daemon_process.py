"""A real daemon in a process of its own: started, asked, killed."""

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from reqon.values import JsonError, decode
from reqon_daemon.control import call

ROOT = Path(__file__).parents[2]
_DYING = """
import os, runpy, signal, sys
from reqon.files import arm
arm(sys.argv.pop(1), lambda _: os.kill(os.getpid(), signal.SIGKILL))
runpy.run_module("reqon_daemon", run_name="__main__", alter_sys=True)
"""


class DaemonProcess:
    """`python -m reqon_daemon` over a folder of missions, its log read as it comes.

    `options` are settings by name (`alert_on_failure=True`), given as `REQON_…` variables; `dies_at` is the failpoint
    at which it sends itself SIGKILL, `within` a list of words that stand before the command.
    """

    def __init__(self, missions: Path, state: Path, **options: object) -> None:
        self.state = state
        self._command = [sys.executable, "-m", "reqon_daemon"]
        if point := options.pop("dies_at", None):
            self._command = [sys.executable, "-c", _DYING, str(point)]
        if within := options.pop("within", None):
            assert isinstance(within, list)
            self._command = [*within, *self._command]
        variables = {f"REQON_{name.upper()}": str(value) for name, value in options.items()}
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ}
        self._environment = {
            **kept,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'daemon'}",
            "REQON_STATE_DIR": str(state),
            "REQON_METRICS_PORT": "0",
            **variables,
        }
        self._missions = missions
        self.lines: list[dict[str, Any]] = []
        self.text = ""
        self._changed = threading.Condition()
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [*self._command, str(self._missions)],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()
        if error is not None:
            sys.stdout.write(self.text)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for raw in self.process.stderr:
            with self._changed:
                self.text += raw.decode(errors="replace")
                with suppress(JsonError):
                    line = decode(raw)
                    if isinstance(line, dict):
                        self.lines.append(line)
                self._changed.notify_all()

    def said(self, message: str, *, number: int = 1, seconds: float = 60, **fields: object) -> dict[str, Any]:
        """The log line with this message and these fields, as soon as it came so often."""

        def found() -> list[dict[str, Any]]:
            return [
                line
                for line in self.lines
                if line.get("message") == message and all(line.get(k) == v for k, v in fields.items())
            ]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= number, seconds), (
                f"never said {message!r}:\n{self.text}"
            )
            return found()[number - 1]

    def alerts(self, mission: str) -> list[dict[str, Any]]:
        """The alerts about a mission that it told on its log."""
        return [
            line
            for line in self.lines
            if line.get("mission") == mission and str(line.get("message")).startswith("alert ") and "kind" in line
        ]

    def said_alert(self, mission: str, text: str, *, seconds: float = 60) -> None:
        """Wait for an alert on its log that has this text."""
        with self._changed:
            found = self._changed.wait_for(lambda: any(text in str(line) for line in self.alerts(mission)), seconds)
            assert found, f"never told {text!r}:\n{self.text}"

    def heard(self, seconds: float) -> None:
        """Wait until it says something more, at most so long."""
        with self._changed:
            self._changed.wait(seconds)

    def ready(self) -> Self:
        self.said("ready")
        return self

    @property
    def port(self) -> int:
        url = self.said("listening", purpose="metrics")["url"]
        found = re.search(r":(\d+)$", url)
        assert found
        return int(found[1])

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        """A page of the metrics port: its status and body."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            client.request("GET", path, headers=headers)
            answer = client.getresponse()
            return answer.status, answer.read()
        finally:
            client.close()

    def samples(self) -> dict[str, float]:
        """What a scrape shows, by `name{labels}` as written there."""
        _, body = self.get("/metrics")
        lines = [line for line in body.decode().splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def ask(self, command: str, **arguments: Any) -> Any:
        """A command over the control socket."""
        return call(self.state, command, **arguments)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 60) -> int:
        """The exit code."""
        code = self.process.wait(seconds)
        self._reader.join(5)
        return code
