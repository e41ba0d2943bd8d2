"""The daemon, found by its entry points: `reqon` imports nothing of it by name."""

from collections.abc import Callable
from typing import Any

from reqon.errors import ConfigurationError

GROUP = "reqon.services"


def service(name: str) -> Callable[..., Any]:
    """What an installed service offers under a name: `daemon`, `control`, `settings`, `test-alert`.

    Raises:
        ConfigurationError: nothing is installed that offers it.
    """
    from importlib.metadata import entry_points  # noqa: PLC0415  # 10 ms that a run need not pay

    for found in entry_points(group=GROUP, name=name):
        offered: Callable[..., Any] = found.load()
        return offered
    raise ConfigurationError(f"the {name} service is not installed", hint="reinstall: pip install reqon")
