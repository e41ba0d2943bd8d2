"""What the runs of a process have in common, and what a Python program brings along."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reqon.clock import parse_duration
from reqon.errors import ConfigurationError
from reqon.http.oauth import OnRefresh
from reqon.http.transport import Transport
from reqon.runtime.hooks import NO_HOOKS, Hooks
from reqon.runtime.registries import GLOBAL, Registries
from reqon.state.backend import LEASE_SECONDS
from reqon.values import Value

if TYPE_CHECKING:
    from reqon.webhooks.server import WebhookServer


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """What all runs of a process have in common.

    Attributes:
        auth_file: the `--auth` file; auth: credentials given in Python, which win over it.
        store_config: the `--store-config` file, or its content; stores: adapters by their names in missions.
        development_mode: whether a `nosql` store that nothing configures is a file.
        output: `--output`: a directory, or a file that ends in .json.
        checkpoint_seconds: how often a loop makes itself safe from a power loss.
        retention_seconds: how long records are kept where the mission says nothing; None: for ever.
        sweeps: whether a mission's old records are deleted after each of its runs.
        state_store: where all executions are kept, whatever missions say (`--state-store`).
        lease_seconds: how long a mission stays ours after the last renewal, where machines share a state store.
        webhooks: the server that receives what missions `wait` for; None: there is none, and none may wait.
        no_oas_cache: download specifications anew, once each.
    """

    state_directory: Path = Path(".vague-data")
    auth_file: Path | None = None
    auth: Mapping[str, Mapping[str, Value]] | None = None
    store_config: Path | Mapping[str, Any] | None = None
    stores: Mapping[str, object] | None = None
    development_mode: bool = True
    output: Path | None = None
    checkpoint_seconds: float = 1.0
    journal_max_bytes: int = 1024 * 1024 * 1024
    retention_seconds: float | None = None
    sweeps: bool = True
    state_store: str | None = None
    lease_seconds: float = LEASE_SECONDS
    webhooks: "WebhookServer | None" = None
    no_oas_cache: bool = False


def checkpoint_seconds(environment: Mapping[str, str]) -> float:
    """What `REQON_CHECKPOINT_INTERVAL` says (spec/state.md 4).

    Raises:
        ConfigurationError: it is no duration.
    """
    text = environment.get("REQON_CHECKPOINT_INTERVAL") or "1s"
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigurationError(f"REQON_CHECKPOINT_INTERVAL: {error}", code="bad-option") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """What a Python program brings along.

    Attributes:
        registries: functions, stores, auth providers, paginations and steps of its own; hooks: where it steps in.
        transport: what carries requests, instead of connections of ours.
        on_token_refresh: awaited with source and tokens before new ones are used.
    """

    registries: Registries = GLOBAL
    hooks: Hooks = NO_HOOKS
    transport: Transport | None = None
    on_token_refresh: OnRefresh | None = None


NO_ADDITIONS = Additions()


NO_ADDITIONS = Additions()
