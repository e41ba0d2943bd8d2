"""Other people's programs and servers that some tests run against, and what happens where one is missing.

A test or a fixture asks in its first line: `promtool = needs("promtool")`, `needs("postgresql")`. Without the peer it
skips with one line that says what to install. With `REQON_TEST_REQUIRE=all`, as `.ci/run` sets it, it fails instead,
so that a proof can't go missing unseen; `REQON_TEST_REQUIRE=promtool,strace` requires these two only.
"""

import os
import shutil
import socket
import sys
from pathlib import Path

import pytest

PROGRAMS = {
    "prometheus": "apt-get install prometheus",
    "promtool": "apt-get install prometheus",
    "prometheus-alertmanager": "apt-get install prometheus-alertmanager",
    "amtool": "apt-get install prometheus-alertmanager",
    "strace": "apt-get install strace",
    "redis-server": "apt-get install redis-server",
}
SERVERS = {
    "postgresql": ("127.0.0.1", 5432),
    "mariadb": ("127.0.0.1", 3306),
    "redis": ("127.0.0.1", 6379),
}
WHERE_THEY_RUN = {
    "systemd-analyze": "comes with systemd",
    "hadolint": "comes with the development requirements on Linux x86-64",
    "kubectl": "see kubernetes.io",
    "unshare": "comes with util-linux; needs root",
}
"""Programs that can't be had on every machine that runs our CI: never required."""


def needs(name: str) -> str:
    """The program's path, or the server's `host:port`. Skips the running test where there is none, or fails it."""
    if name in SERVERS:
        host, port = SERVERS[name]
        return f"{host}:{port}" if _listens(host, port) else _missing(name, f"nothing listens on {host}:{port}")
    how = PROGRAMS.get(name) or WHERE_THEY_RUN[name]
    return _program(name) or _missing(name, how)


def required(name: str) -> bool:
    """Whether a test without this peer is to fail."""
    asked = os.environ.get("REQON_TEST_REQUIRE", "").split(",")
    return name not in WHERE_THEY_RUN and ("all" in asked or name in asked)


def _missing(name: str, why: str) -> str:
    say = pytest.fail if required(name) else pytest.skip
    raise say.Exception(f"needs {name}: {why}")


def _program(name: str) -> str | None:
    # hadolint stands in the virtual environment, which needn't be on the PATH.
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True
