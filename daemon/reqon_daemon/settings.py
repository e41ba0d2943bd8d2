"""What the operator asked of the daemon: flags, `REQON_…` variables, `reqon.toml` beside the missions, defaults.

The first of the four that names an option decides, and `source_of` says which it was (spec/daemon.md 1).
"""

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from reqon.cli.durations import parse_size
from reqon.clock import parse_duration
from reqon.diagnostics import did_you_mean
from reqon.errors import ConfigurationError
from reqon.secrets import MASK, SECRETS
from reqon.state.retention import parse_age

FILE_NAME = "reqon.toml"
CONCURRENT_RUNS = 32
DEFAULT = "default"

Reader = Callable[[Any], Any]


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and (word := value.strip().lower()) in ("1", "true", "yes", "on", "0", "false", "no", ""):
        return word in ("1", "true", "yes", "on")
    raise ValueError("write true or false")


def _port(value: Any) -> int:
    port = _whole(value)
    if port > 65535:
        raise ValueError("ports go up to 65535; 0 picks a free one")
    return port


def _whole(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        return int(value)
    raise ValueError("write a whole number")


def _positive(value: Any) -> int:
    number = _whole(value)
    if number < 1:
        raise ValueError("write a whole number from 1 on")
    return number


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("write a duration: 25s, 15m, 2h, 30d, or a number of milliseconds")  # noqa: TRY004  # a value, not a bug
    return parse_duration(str(value))


def _age(value: Any) -> float:
    _seconds(value)
    return parse_age(str(value))


def _bytes(value: Any) -> int:
    return parse_size(str(value))


def _text(value: Any) -> str:
    if not isinstance(value, str | Path) or not str(value).strip():
        raise ValueError("write a text")
    return str(value).strip()


def _path(value: Any) -> Path:
    return Path(_text(value)).expanduser()


def _many(read: Reader) -> Reader:
    def several(value: Any) -> tuple[Any, ...]:
        given = re.split(r"[,\s]+", value.strip()) if isinstance(value, str) else value
        if not isinstance(given, Sequence):
            raise ValueError("write a list")  # noqa: TRY004  # a value, not a bug
        return tuple(read(one) for one in given if one != "")

    return several


def _pairs(value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {str(name): str(one) for name, one in value.items()}
    found = {}
    for pair in [value] if isinstance(value, str) else value:
        name, equals, one = str(pair).partition("=")
        if not equals or not name.strip():
            raise ValueError("write name=value")
        found[name.strip()] = one
    return found


def _option(read: Reader, default: Any = None, *, secret: bool = False, **names: str) -> Any:
    """A setting. `names` may hold `env` and `table` where they differ from its flag's."""
    metadata = {"read": read, "secret": secret, **names}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, repr=not secret, metadata=metadata)


_OF_WEBHOOKS = ("webhook_host", "webhook_port", "webhook_url")
_OF_ALERTS = ("alert_url", "alert_repeat")


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSettings:
    """Every option of the service. Durations are seconds; None where an option is off or decided elsewhere."""

    paths: tuple[Path, ...] = _option(_many(_path), ())
    once: bool = _option(_flag, default=False)
    metrics_port: int | None = _option(_port)
    metrics_host: str = _option(_text, "127.0.0.1")
    health_port: int | None = _option(_port)
    alert_on_failure: bool = _option(_flag, default=False, table="alerts.on-failure")
    alert_url: tuple[str, ...] = _option(_many(_text), (), secret=True, env="REQON_ALERT_URLS", table="alerts.urls")
    alert_repeat: float = _option(_seconds, 4 * 3600.0, table="alerts.repeat")
    alert_secret: str | None = _option(_text, secret=True, table="alerts.secret")
    instance: str | None = _option(_text, table="alerts.instance")
    heartbeat_url: str | None = _option(_text, secret=True)
    check_interval: float = _option(_seconds, 1.0)
    reload_poll: float = _option(_seconds, 10.0)
    no_reload: bool = _option(_flag, default=False)
    no_resume: bool = _option(_flag, default=False)
    max_running: int = _option(_positive, CONCURRENT_RUNS)
    shutdown_grace: float = _option(_seconds, 25.0)
    misfire_grace: float = _option(_seconds, 60.0)
    state_retention: float | None = _option(_age)
    workers: int = _option(_whole, 0)
    worker_memory: int | None = _option(_bytes)
    state_dir: Path = _option(_path, Path(".vague-data"))  # noqa: RUF009  # a field
    state_store: str | None = _option(_text)
    journal_max: int | None = _option(_bytes)
    auth: Path | None = _option(_path)  # noqa: RUF009  # a field
    env: Path | None = _option(_path)  # noqa: RUF009  # a field
    store_config: Path | None = _option(_path)  # noqa: RUF009  # a field
    output: Path | None = _option(_path)  # noqa: RUF009  # a field
    mission: tuple[str, ...] = _option(_many(_text), ())
    set: dict[str, str] = _option(_pairs, {})  # noqa: RUF009  # a field
    keep_going: bool = _option(_flag, default=False)
    no_oas_cache: bool = _option(_flag, default=False)
    dry_run: bool = _option(_flag, default=False)
    verbose: bool = _option(_flag, default=False)
    quiet: bool = _option(_flag, default=False)
    debug: bool = _option(_flag, default=False)
    webhook: bool = _option(_flag, default=False)
    webhook_host: str = _option(_text, "127.0.0.1")
    webhook_port: int | None = _option(_port)
    webhook_url: str | None = _option(_text)
    sources: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, flags: Mapping[str, Any], *, environ: Mapping[str, str] = os.environ) -> "DaemonSettings":
        """The effective settings. `flags` are those given, by option name; None, False and () count as not given.

        Raises:
            ConfigurationError: a value that cannot be, or a key of the file that is no option; names both.
        """
        known = {f.name: f for f in fields(cls) if f.name != "sources"}
        file = _File.beside(flags.get("paths") or ())
        file.refuse_unknown(known)
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for name, option in known.items():
            found = _first(option, flags, environ, file)
            if found is not None:
                given, source = found
                values[name] = _read(option, given, source)
                sources[name] = source
        settings = cls(**values, sources=sources)
        SECRETS.add(settings.alert_secret)
        return settings

    @property
    def without_effect(self) -> dict[str, str]:
        """The options that were given, but that do nothing: in a daemon, or without another one; and why."""
        reasons = {"output": "it is for runs that end"}
        if not self.webhook:
            reasons |= dict.fromkeys(_OF_WEBHOOKS, "no calls are received: add --webhook")
        if not self.alert_on_failure:
            reasons |= dict.fromkeys(_OF_ALERTS, "alerts are off: add --alert-on-failure")
        return {f"--{_shown(name)}": why for name, why in reasons.items() if self.source_of(name) != DEFAULT}

    @property
    def resume_options(self) -> tuple[str, ...]:
        """Of these options, those that a `reqon PATH --resume` by hand needs as well, as words of a command line."""
        needed = {
            "--state-dir": self.state_dir if self.state_dir != Path(".vague-data") else None,
            "--auth": self.auth,
            "--env": self.env,
            "--state-store": self.state_store,
        }
        words = [str(word) for option, value in needed.items() if value is not None for word in (option, value)]
        words += [word for name, value in self.set.items() for word in ("--set", f"{name}={value}")]
        if self.webhook:
            # The daemon has the port.
            words += ["--webhook", "--webhook-port", "0"]
        return tuple(words)

    def source_of(self, name: str) -> str:
        """Where an option's value comes from: its flag, its variable, the file, or `default`."""
        return self.sources.get(name.replace("-", "_"), DEFAULT)

    def effective(self) -> list[tuple[str, Any, str]]:
        """Every option's flag, value as people may see it, and source; in order of declaration."""
        shown = []
        for option in fields(self):
            if option.name != "sources":
                value = getattr(self, option.name)
                if option.metadata["secret"] and value:
                    value = tuple(MASK for _ in value) if isinstance(value, tuple) else MASK
                shown.append((_shown(option.name), value, self.source_of(option.name)))
        return shown


def _first(
    option: Field[Any], flags: Mapping[str, Any], environ: Mapping[str, str], file: "_File"
) -> tuple[Any, str] | None:
    name = option.name
    given = flags.get(name)
    if given is not None and given is not False and given != ():
        return given, f"--{_shown(name)}"
    variable = option.metadata.get("env", f"REQON_{name.upper()}")
    if environ.get(variable, "") != "":
        return environ[variable], variable
    value = file.get(option)
    return None if value is None else (value, str(file.path))


def _read(option: Field[Any], given: Any, source: str) -> Any:
    try:
        return option.metadata["read"](given)
    except ValueError as error:
        shown = MASK if option.metadata["secret"] else repr(given)
        where = "" if source.startswith("--") else f" ({source})"
        raise ConfigurationError(
            f"--{_shown(option.name)}{where}: {shown} cannot be used", code="bad-option", hint=str(error)
        ) from error


def _shown(name: str) -> str:
    return name.replace("_", "-")


@dataclass(frozen=True, slots=True)
class _File:
    """`reqon.toml`: option names as keys, dashes or underscores; `[alerts]` for what concerns alerts."""

    path: Path | None = None
    content: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def beside(cls, paths: Sequence[Any]) -> "_File":
        """The file beside the missions: in the first path that is a folder with one, or in a file's own folder."""
        for given in paths:
            path = Path(given)
            candidate = (path if path.is_dir() else path.parent) / FILE_NAME
            if candidate.is_file():
                return cls(candidate, _load(candidate))
        return cls()

    def get(self, option: Field[Any]) -> Any:
        table, _, key = option.metadata.get("table", "").rpartition(".")
        inner = _dashed(self.content.get(table, {})) if table else {}
        value = inner.get(key, _dashed(self.content).get(_shown(option.name)))
        if (
            option.name in ("state_dir", "auth", "env", "output", "store_config")
            and isinstance(value, str)
            and self.path
        ):
            return str(self.path.parent / Path(value).expanduser())
        return value

    def refuse_unknown(self, known: Mapping[str, Field[Any]]) -> None:
        """Raise for a key that is no option."""
        tables: dict[str, list[str]] = {}
        for option in known.values():
            table, _, key = option.metadata.get("table", "").rpartition(".")
            if table:
                tables.setdefault(table, []).append(key)
        names = [_shown(name) for name in known if name not in ("paths", "once")]
        for key, value in _dashed(self.content).items():
            if key in tables and isinstance(value, dict):
                for inner in _dashed(value):
                    if inner not in tables[key]:
                        self._refuse(f"{key}.{inner}", did_you_mean(inner, tables[key], f"keys of [{key}]"))
            elif key not in names:
                self._refuse(key, did_you_mean(key, [*names, *tables], "options"))

    def _refuse(self, key: str, hint: str) -> None:
        raise ConfigurationError(f"{self.path}: '{key}' is no option", code="unknown-option", hint=hint)


def _dashed(table: Any) -> dict[str, Any]:
    return {_shown(key): value for key, value in table.items()} if isinstance(table, dict) else {}


def _load(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is no TOML: {error}") from error


assert all(f.default is not MISSING or f.default_factory is not MISSING for f in fields(DaemonSettings))
