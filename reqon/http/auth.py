"""Credentials: where they come from, and what a request carries of them (spec/runtime.md 3.1 and 3.2)."""

import re
import stat
from base64 import b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from reqon.diagnostics import nearest
from reqon.errors import ConfigurationError, ReqonError, StateError
from reqon.files import DISK
from reqon.http.messages import SourceSettings
from reqon.secrets import SECRETS, is_secret_variable
from reqon.values import Value, decode, encode

Warn = Callable[[str], None]
Fields = Mapping[str, Value]

BUILT_IN = ("none", "bearer", "basic", "api_key", "oauth2")

_ALIASES = {
    "apiKey": "key",
    "headerName": "header",
    "apiKeyHeader": "header",
    "apiKeyQuery": "query",
    "apiKeyPrefix": "prefix",
    "tokenEndpoint": "tokenUrl",
}
_FIELDS = {
    "none": frozenset[str](),
    "bearer": frozenset(("token",)),
    "basic": frozenset(("username", "password")),
    "api_key": frozenset(("key", "header", "query", "prefix", "additionalHeaders")),
    "oauth2": frozenset(
        (
            "clientId",
            "clientSecret",
            "accessToken",
            "refreshToken",
            "tokenUrl",
            "scopes",
            "expiresAt",
            "refreshBuffer",
            "grantType",
            "clientAuth",
            "tokenParams",
        )
    ),
}
_NOT_SECRET = frozenset(
    (
        "type",
        "header",
        "query",
        "prefix",
        "tokenUrl",
        "scopes",
        "expiresAt",
        "refreshBuffer",
        "grantType",
        "clientAuth",
    )
)
_VARIABLES = {
    "TOKEN": "token",
    "ACCESS_TOKEN": "accessToken",
    "REFRESH_TOKEN": "refreshToken",
    "TOKEN_URL": "tokenUrl",
    "TOKEN_ENDPOINT": "tokenUrl",
    "CLIENT_ID": "clientId",
    "CLIENT_SECRET": "clientSecret",
    "SCOPES": "scopes",
    "EXPIRES_AT": "expiresAt",
    "API_KEY": "key",
    "HEADER_NAME": "header",
    "QUERY": "query",
    "PREFIX": "prefix",
    "USERNAME": "username",
    "PASSWORD": "password",
}
_NEEDED = {
    "bearer": ("TOKEN",),
    "basic": ("USERNAME", "PASSWORD"),
    "api_key": ("API_KEY",),
    "oauth2": ("TOKEN_URL", "CLIENT_ID", "CLIENT_SECRET"),
}
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PLACE = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<bare>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\})", re.ASCII
)
_FILE_LIMIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one source presents. `type` is a built-in type or a registered provider's name; fields have canonical names.

    `headers` and `parameter` are what each request carries; oauth2 and providers make their header when it is needed.
    """

    type: str
    fields: Fields = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    parameter: tuple[str, str] | None = field(default=None, repr=False)
    allowed_hosts: frozenset[str] | None = None

    @property
    def fingerprint(self) -> str:
        """Names this credential without telling it; equal for equal configured fields."""
        shown = encode([self.type, sorted((k, v) for k, v in self.fields.items())])
        return f"sha256:{sha256(shown).hexdigest()}"

    def may_go_to(self, host: str) -> bool:
        """Whether `allowedHosts` lets the credential go to this host."""
        return self.allowed_hosts is None or host in self.allowed_hosts


# --- finding them ---


def _silent(_: str) -> None:
    """Nobody wants the warnings."""


def load_auth_file(path: Path, environment: Mapping[str, str], *, warn: Warn = _silent) -> dict[str, Fields]:
    """The file given with `--auth`: source name to record, its variables filled in, its secrets known from now on.

    Raises:
        ConfigurationError: the file cannot be read, is not such an object, or names an unset variable.
    """
    try:
        # A link is fine: secrets are mounted as links.
        content = decode(DISK.read(path.resolve(strict=True), _FILE_LIMIT))
        if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            warn(f"{path} can be read by other users; `chmod 600 {path}` keeps the credentials yours")
    except OSError as error:
        message = f"cannot read the auth file {path}: {error.strerror}"
        raise ConfigurationError(message, hint="check the path and its rights") from error
    except (StateError, ReqonError) as error:
        raise ConfigurationError(f"the auth file {path} cannot be used: {error.message}") from error
    if not isinstance(content, dict) or not all(isinstance(record, dict) for record in content.values()):
        raise ConfigurationError(
            f"the auth file {path} must be one JSON object of records",
            hint='the form is { "SourceName": { "type": "bearer", "token": "${TOKEN}" } }',
        )
    records: dict[str, Fields] = interpolate(content, environment, str(path))
    for record in records.values():
        remember_secrets(record)
    return records


def interpolate(value: Value, environment: Mapping[str, str], file: str, place: str = "$") -> Value:
    """A copy with `$NAME`, `${NAME}`, `${NAME:-default}` and `$$` replaced in every string, once.

    Raises:
        ConfigurationError: a variable is unset and has no default; names file, JSON path and variable, never a value.
    """
    if isinstance(value, dict):
        return {k: interpolate(v, environment, file, f"{place}.{k}") for k, v in value.items()}
    if isinstance(value, list):
        return [interpolate(v, environment, file, f"{place}[{i}]") for i, v in enumerate(value)]
    if not isinstance(value, str) or "$" not in value:
        return value

    def fill(found: re.Match[str]) -> str:
        if found["dollar"]:
            return "$"
        name, default = found["bare"] or found["name"], found["default"]
        known = environment.get(name)
        if default is not None:
            return known or default
        if known is None:
            raise ConfigurationError(
                f"{file}, {place}: the environment variable {name} is not set",
                hint=f"set {name}, or write ${{{name}:-default}}",
            )
        return known

    return _PLACE.sub(fill, value)


def remember_secrets(record: Fields) -> None:
    """Tell the registry every secret of a credential record, before anything else is done with it."""
    for name, value in record.items():
        if name == "tokenParams" and isinstance(value, dict):
            SECRETS.add(*(v for k, v in value.items() if isinstance(v, str) and is_secret_variable(k)))
        elif name == "additionalHeaders" and isinstance(value, dict):
            for header, secret in value.items():
                SECRETS.add_header(header)
                SECRETS.add(secret if isinstance(secret, str) else None)
        elif isinstance(value, str) and _ALIASES.get(name, name) not in _NOT_SECRET:
            SECRETS.add(value, value.strip())


def credentials_for(
    settings: SourceSettings,
    auth_file: Mapping[str, Fields] | None,
    environment: Mapping[str, str],
    *,
    given: Mapping[str, Fields] | None = None,
    warn: Warn = _silent,
) -> Credentials | None:
    """What the source presents: from `given` (the Python API), the file, the mission, the environment, in this order.

    None: the source has `auth: none`, or nothing is configured and nothing was asked for.

    Raises:
        ConfigurationError: credentials are missing, of another type, or unusable; the hint names what to set.
    """
    records: list[tuple[str, dict[str, Value]]] = []
    for origin, record in (
        ("the API's auth argument", (given or {}).get(settings.name)),
        ("the auth file", (auth_file or {}).get(settings.name)),
        ("the mission", settings.inline),
        ("the environment", discovered(settings.name, environment)),
    ):
        if record:
            remember_secrets(record)
            fields = {_ALIASES.get(k, k): v for k, v in record.items() if v is not None and v != ""}
            if origin == "the mission" and fields:
                fields.setdefault("type", settings.auth or _type_of(fields))
            if fields:
                records.append((origin, fields))
    if settings.auth == "none":
        return None
    try:
        if records:
            return _merged(settings, records, warn)
        _refuse_nothing(settings, [*(given or {}), *(auth_file or {})])
    except ConfigurationError as error:
        error.option, error.source_name = "auth", settings.name
        raise
    custom = settings.auth is not None and settings.auth not in BUILT_IN
    return Credentials(settings.auth or "", {}) if custom else None


def discovered(source: str, environment: Mapping[str, str]) -> dict[str, Value]:
    """The record that `REQON_<SOURCE>_<FIELD>` variables make; empty without any."""
    prefix = variable_prefix(source)
    found: dict[str, Value] = {}
    for variable, name in _VARIABLES.items():
        if value := environment.get(prefix + variable):
            found[name] = value
    if found and (kind := environment.get(f"{prefix}TYPE")):
        found["type"] = kind
    return found


def variable_prefix(source: str) -> str:
    """`REQON_MY_API_` for `My-api`."""
    return f"REQON_{re.sub('[^A-Z0-9]', '_', source.upper())}_"


def _type_of(fields: Fields) -> str:
    if "type" in fields:
        return str(fields["type"])
    if any(name in fields for name in ("accessToken", "refreshToken", "clientId")):
        return "oauth2"
    if "key" in fields:
        return "api_key"
    if "username" in fields:
        return "basic"
    return "bearer" if "token" in fields else "none"


def _refuse_nothing(settings: SourceSettings, named: Collection[str]) -> None:
    """`named`: the sources for which there are credentials."""
    if settings.auth is None or settings.auth not in _NEEDED or (settings.auth == "api_key" and settings.headers):
        return
    meant = nearest(settings.name, named)
    there = f', which has "{meant}"' if meant else ""
    variables = " and ".join(_variable(settings, name) for name in _NEEDED[settings.auth])
    raise ConfigurationError(
        f"source '{settings.name}' has auth: {settings.auth}, but no credentials were found",
        hint=f'set {variables}, or add "{settings.name}" to the file given with --auth{there}',
    )


def _merged(
    settings: SourceSettings, records: Sequence[tuple[str, dict[str, Value]]], warn: Warn
) -> Credentials | None:
    first, kind = records[0][0], _type_of(records[0][1])
    if settings.auth is not None and kind != settings.auth:
        raise ConfigurationError(
            f"source '{settings.name}' has auth: {settings.auth}, but {first} gives credentials of type {kind}",
            hint=f"make the type in {first} '{settings.auth}', or change the source's auth",
        )
    fields: dict[str, Value] = {}
    for origin, record in reversed(records):
        if _type_of(record) == kind:
            fields |= {k: v for k, v in record.items() if k != "type"}
        else:
            warn(
                f"source '{settings.name}': {_type_of(record)} credentials of {origin} are ignored, {first} has {kind}"
            )
    allowed = fields.pop("allowedHosts", None)
    if kind in _FIELDS:
        for name in fields.keys() - _FIELDS[kind]:
            warn(f"source '{settings.name}': '{name}' means nothing for {kind} credentials")
        fields = {k: v for k, v in fields.items() if k in _FIELDS[kind]}
    fields = {k: _clean(settings.name, k, v, warn) for k, v in fields.items()}
    if kind == "none":
        return None
    hosts = frozenset(str(h).lower() for h in ([allowed] if isinstance(allowed, str) else allowed)) if allowed else None
    return _built(settings, kind, fields, hosts)


def _clean(source: str, name: str, value: Value, warn: Warn) -> Value:
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text != value:
        warn(f"source '{source}': white space around '{name}' is cut")
    if _CONTROL.search(text):
        raise ConfigurationError(
            f"source '{source}': the credential '{name}' holds a control character",
            hint="was it read from a file with several lines?",
        )
    return text


def _built(
    settings: SourceSettings, kind: str, fields: dict[str, Value], hosts: frozenset[str] | None
) -> Credentials | None:
    name = settings.name
    if kind == "bearer":
        token = _need(settings, kind, fields, "token")
        return Credentials(kind, fields, (("Authorization", f"Bearer {token}"),), None, hosts)
    if kind == "basic":
        user, password = _need(settings, kind, fields, "username"), str(fields.get("password", ""))
        if ":" in user:
            raise ConfigurationError(f"source '{name}': a user name for basic auth must not hold a colon")
        pair = b64encode(f"{user}:{password}".encode()).decode()
        SECRETS.add(pair)
        return Credentials(kind, fields, (("Authorization", f"Basic {pair}"),), None, hosts)
    if kind == "api_key":
        return _api_key(settings, fields, hosts)
    return Credentials(kind, fields, (), None, hosts)


def _api_key(settings: SourceSettings, fields: dict[str, Value], hosts: frozenset[str] | None) -> Credentials | None:
    if "key" not in fields and settings.headers:
        return None  # the key stands in the source's headers
    key = _need(settings, "api_key", fields, "key")
    header, query = fields.get("header"), fields.get("query")
    if header and query:
        raise ConfigurationError(
            f"source '{settings.name}': an API key goes into a header or a query parameter, not both",
            hint="keep one of 'header' and 'query'",
        )
    extra = tuple((str(k), str(v)) for k, v in (fields.get("additionalHeaders") or {}).items())
    if query:
        SECRETS.add_parameter(str(query))
        return Credentials("api_key", fields, extra, (str(query), key), hosts)
    header = str(header or "X-API-Key")
    for one in (header, *(k for k, _ in extra)):
        if not _HEADER_NAME.fullmatch(one):
            raise ConfigurationError(f"source '{settings.name}': '{one}' is not a header name")
    SECRETS.add_header(header)
    value = f"{str(fields['prefix']).strip()} {key}" if fields.get("prefix") else key
    return Credentials("api_key", fields, ((header, value), *extra), None, hosts)


def _need(settings: SourceSettings, kind: str, fields: Fields, name: str) -> str:
    value = fields.get(name)
    if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
        return str(value)
    variable = _variable(settings, next(v for v, f in _VARIABLES.items() if f == name))
    raise ConfigurationError(
        f"source '{settings.name}': {kind} credentials need '{name}'",
        hint=f"set {variable}, or add '{name}' to \"{settings.name}\" in the file given with --auth",
    )


def _variable(settings: SourceSettings, name: str) -> str:
    """What to set for a field: the variable that the mission reads it from, else ours, `REQON_<SOURCE>_<name>`."""
    return settings.variables.get(_VARIABLES[name], variable_prefix(settings.name) + name)
