"""Trying the configured alert targets: `reqon test-alert` sends, `reqon doctor` only knocks."""

import asyncio
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from reqon.clock import SYSTEM, Clock, rfc3339
from reqon.errors import ConfigurationError
from reqon_daemon.incidents import Incidents, Kind, Report
from reqon_daemon.notices import entry_for
from reqon_daemon.outbox import Answer, Outcome, Sender
from reqon_daemon.settings import DaemonSettings
from reqon_daemon.targets import CommandTarget, HttpTarget, parse_target

_KNOCK_SECONDS = 3.0
_PORTS = {"http": 80, "https": 443}


def test_alert(flags: Mapping[str, Any], tell: Callable[[str], None]) -> int:
    """Send to each target and tell its answer, a line each; 0 when all were delivered, else 1.

    Raises:
        ConfigurationError: no target is configured, or one means nothing.
    """
    settings = DaemonSettings.read(flags)
    if not settings.alert_url:
        raise ConfigurationError(
            "no alert target is configured", hint="--alert-url URL, REQON_ALERT_URLS or reqon.toml"
        )
    targets = [parse_target(text, secret=settings.alert_secret) for text in settings.alert_url]

    def told(target: str, outcome: Outcome) -> None:
        reason = f": {outcome.reason}" if outcome.reason else ""
        tell(f"{target}: {outcome.answer}{reason}")

    delivered = asyncio.run(send_test(targets, settings.instance or socket.gethostname(), told=told))
    return 0 if delivered else 1


async def send_test(
    targets: Sequence[Sender], instance: str, *, clock: Clock = SYSTEM, told: Callable[[str, Outcome], None]
) -> bool:
    """Send a test alert and its resolve to each target, once; tells each answer. Whether all were delivered."""
    now = clock.now()
    cause = rfc3339(now)
    report = Report(
        mission="reqon-test", kind=Kind.TEST, at=now, cause=cause, summary="this is a test of Reqon's alerts"
    )
    incidents = Incidents(instance)
    notices = [*incidents.fire(report), *incidents.end("reqon-test", (Kind.TEST,), now)]
    delivered = True
    for sender in targets:
        for notice in notices:
            outcome = await sender.send(entry_for(sender, notice, instance))
            told(sender.shown, outcome)
            delivered &= outcome.answer is Answer.DELIVERED
        await sender.close()
    return delivered


def reach_targets(flags: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Each target as people may see it, and why it cannot be reached, if so. Nothing is sent.

    Raises:
        ConfigurationError: a target means nothing.
    """
    settings = DaemonSettings.read(flags)
    return [_reached(text) for text in settings.alert_url]


def _reached(text: str) -> tuple[str, str | None]:
    target = parse_target(text)
    problem = None
    if isinstance(target, HttpTarget):
        parts = urlsplit(target.url)
        try:
            socket.create_connection((parts.hostname, parts.port or _PORTS[parts.scheme]), _KNOCK_SECONDS).close()
        except OSError as error:
            problem = error.strerror or str(error)
    elif isinstance(target, CommandTarget) and shutil.which(target.command[0]) is None:
        problem = "there is no such program"
    return target.shown, problem
