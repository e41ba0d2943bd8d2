"""`reqon test-alert`: one test alert and its resolve through the configured targets."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any

from reqon.errors import ConfigurationError
from reqon_daemon.alerts import send_test
from reqon_daemon.outbox import Outcome
from reqon_daemon.settings import DaemonSettings
from reqon_daemon.targets import parse_target


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
