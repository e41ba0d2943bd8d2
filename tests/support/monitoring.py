"""The real Prometheus and Alertmanager, each on a free port, for one test. Skips where they are not installed."""

import re
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from reqon.values import decode
from tests.support.peers import needs

_LISTENING = re.compile(r'msg="Listening on" address=\S*?:(\d+)')


class _Server:
    """A program that says on stderr where it listens. It never outlives the block."""

    program = ""
    ready = "Listening on"

    def __init__(self, home: Path, options: list[str]) -> None:
        home.mkdir()
        self.said = ""
        self.port = 0
        self._home, self._options = home, options
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        command = [needs(self.program), "--web.listen-address=127.0.0.1:0", *self._options]
        self._process = subprocess.Popen(
            command, cwd=self._home, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        with self._changed:
            begun = self._changed.wait_for(lambda: self.port and self.ready in self.said, 60)
            assert begun, f"{self.program} does not answer:\n{self.said}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(10)
        self._reader.join(10)
        assert self._process.stderr is not None
        self._process.stderr.close()
        if error is not None:
            print(self.said)

    def _read(self) -> None:
        assert self._process.stderr is not None
        for raw in self._process.stderr:
            with self._changed:
                self.said += raw.decode(errors="replace")
                if found := _LISTENING.search(self.said):
                    self.port = int(found[1])
                self._changed.notify_all()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **query: str) -> Any:
        """One answer of its API."""
        with urlopen(f"{self.url}{path}?{urlencode(query)}", timeout=30) as answer:
            return decode(answer.read())


class Alertmanager(_Server):
    """Sends what it is told on to one webhook, at once."""

    program = "prometheus-alertmanager"

    def __init__(self, home: Path, webhook: str) -> None:
        super().__init__(
            home,
            ["--config.file=alertmanager.yml", "--storage.path=data", "--cluster.listen-address=", "--log.level=info"],
        )
        route = {"receiver": "us", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"}
        config = {"route": route, "receivers": [{"name": "us", "webhook_configs": [{"url": webhook}]}]}
        (home / "alertmanager.yml").write_text(yaml.safe_dump(config))

    def alerts(self) -> list[dict[str, Any]]:
        """What it knows to fire."""
        found: list[dict[str, Any]] = self.get("/api/v2/alerts")
        return found


class Prometheus(_Server):
    """Scrapes one address every second and evaluates a rules file as often."""

    program = "prometheus"
    ready = "Server is ready to receive web requests"

    def __init__(self, home: Path, *, scrapes: str, rules: str, alertmanager: str) -> None:
        super().__init__(home, ["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
            "scrape_configs": [{"job_name": "reqon", "static_configs": [{"targets": [scrapes]}]}],
        }
        (home / "rules.yml").write_text(rules)
        (home / "prometheus.yml").write_text(yaml.safe_dump(config))

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an instant query finds now."""
        answer = self.get("/api/v1/query", query=expression)
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found
