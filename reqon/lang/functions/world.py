"""Built-in functions that ask the world: the environment, chance, the checkpoints, the webhook server."""

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from reqon.clock import SYSTEM, Clock
from reqon.errors import EvaluatorError
from reqon.lang.functions.registry import World, builtin, fail
from reqon.secrets import SECRETS, is_secret_variable
from reqon.values import Value


@dataclass(frozen=True, slots=True)
class PlainWorld:
    """The world outside an execution: a clock and an environment, no checkpoints, no webhook server."""

    clock: Clock = SYSTEM
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def now(self) -> datetime:
        return self.clock.now()

    def uuid(self) -> str:
        return str(uuid.uuid4())

    def last_sync(self, key: Value) -> datetime | None:  # noqa: ARG002  # nothing was ever synced here
        return None

    def webhook_url(self, path: Value) -> str:
        raise EvaluatorError(f"webhookUrl(): no webhook server runs here, so {path} has no URL", hint="use --webhook")


@builtin("env", 1, 2, world=True)
def env(world: World, name: Value, default: Value = None) -> Value:
    """An environment variable's text, else the default. What looks like a secret is masked in all output from here."""
    if not isinstance(name, str):
        fail("env", "the name of an environment variable", name)
    value = world.environment.get(name)
    if value is None:
        return default
    if is_secret_variable(name):
        SECRETS.add(value)
    return value


@builtin("uuid", 0, world=True)
def new_uuid(world: World) -> str:
    return world.uuid()


@builtin("generateId", 0, world=True)
def generate_id(world: World) -> str:
    return world.uuid()


@builtin("lastSync", 0, 1, world=True)
def last_sync(world: World, key: Value = None) -> datetime | None:
    """The checkpoint kept under a key, null if there is none."""
    return world.last_sync(key)


@builtin("webhookUrl", 1, world=True)
def webhook_url(world: World, path: Value) -> str | None:
    return None if path is None else world.webhook_url(path)
