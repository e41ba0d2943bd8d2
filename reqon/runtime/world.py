"""What now(), uuid(), env() and lastSync(key) ask while a mission runs."""

import uuid
from collections.abc import Callable, Mapping
from datetime import datetime

from reqon.clock import Clock
from reqon.errors import EvaluatorError
from reqon.lang.operators import described
from reqon.runtime.sync import PendingSync
from reqon.values import Value


class RunWorld:
    """The world outside one execution: its clock, its environment, the sync checkpoints it began with."""

    __slots__ = ("_clock", "_sync", "endpoint_url", "environment")

    def __init__(self, clock: Clock, environment: Mapping[str, str], sync: PendingSync) -> None:
        self._clock = clock
        self._sync = sync
        self.environment = environment
        self.endpoint_url: Callable[[str], str] | None = None  # where a webhook server runs

    def now(self) -> datetime:
        return self._clock.now()

    def uuid(self) -> str:
        return str(uuid.uuid4())

    def last_sync(self, key: Value) -> datetime | None:
        """The checkpoint under a key; without one, when the mission last completed."""
        return self._sync.last_success if key is None else self._sync.since(str(key))

    def webhook_url(self, path: Value) -> str:
        """The URL of the endpoint under this path, registered by the time this returns.

        Raises:
            EvaluatorError: no webhook server runs, or this is no path.
        """
        if self.endpoint_url is None:
            raise EvaluatorError(
                f"webhookUrl(): no webhook server runs here, so {path} has no URL", hint="use --webhook"
            )
        if not isinstance(path, str) or "{" in path:
            raise EvaluatorError(
                f"webhookUrl() needs a path, not {described(path)}",
                hint='build it by concat: webhookUrl(concat("/jobs/", job.id))',
            )
        return self.endpoint_url(path)
