"""The option keys of the language: which stand where, and which values they take (spec/language.md 2.2-2.8).

One table per brace list. The checker reads constants by it, the planner what was evaluated.
"""

from collections.abc import Mapping

from reqon.lang.kinds import (
    Block,
    Codes,
    Duration,
    Either,
    Expr,
    Fields,
    Flag,
    HeaderName,
    Headers,
    Kind,
    Milliseconds,
    Number,
    Only,
    Origins,
    Paging,
    Param,
    Registered,
    SinceValue,
    SourceName,
    StoreName,
    Table,
    Text,
    Texts,
    Whole,
    Words,
    Zone,
)

AUTH_NAMES = ("none", "bearer", "basic", "api_key", "oauth2")
PAGINATION_NAMES = ("offset", "page", "cursor", "link")
ADAPTER_NAMES = ("file", "memory", "nosql", "postgrest", "sql")
STATE_STORE_NAMES = ("file", "sqlite", "postgres")

BACKOFF = Words(("exponential", "linear", "constant"))
SINCE_FORMAT = Words(
    ("iso", "date-only", "unix", "unix-ms"),
    {"ISO": "iso", "YYYY-MM-DD": "date-only", "timestamp": "unix", "epoch": "unix-ms"},
    open=True,
)

_RETRY_KEYS: Mapping[str, Kind] = {
    "maxAttempts": Whole(1, 100),
    "backoff": BACKOFF,
    "initialDelay": Milliseconds(positive=False),
    "maxDelay": Milliseconds(positive=False),
    "delay": Milliseconds(positive=False),
    "jitter": Number(0, 1),
}
RETRY = Table(place="in retry", keys=_RETRY_KEYS, example="maxAttempts: 5")

_OLD_RETRY_KEYS: Mapping[str, Kind] = {"maxRetries": Whole(0, 100), "delaySeconds": Number(0)}
RETRY_ON_FAILURE = Table(
    place="in retryOnFailure", keys={**_RETRY_KEYS, **_OLD_RETRY_KEYS}, example="maxAttempts: 3, backoff: linear"
)
SCHEDULE_RETRY = Table(
    place="in the retry block of schedule",
    keys={**_OLD_RETRY_KEYS, **_RETRY_KEYS},
    example="maxRetries: 3, delaySeconds: 60",
)

RATE_LIMIT = Table(
    place="in rateLimit",
    keys={
        "requestsPerMinute": Number(0, positive=True),
        "strategy": Words(("pause", "throttle", "fail"), {"queue": "pause"}),
        "maxWait": Milliseconds(positive=False, short=True),
        "adaptive": Flag(),
        "notifyAt": Milliseconds(positive=False),
    },
    aliases={"fallbackRpm": "requestsPerMinute"},
    example="requestsPerMinute: 60",
)

CIRCUIT_BREAKER = Table(
    place="in circuitBreaker",
    keys={
        "failureThreshold": Whole(1),
        "resetTimeout": Milliseconds(short=True),
        "successThreshold": Whole(1),
        "failureWindow": Milliseconds(short=True),
        "failureStatusCodes": Codes(),
        "countNetworkErrors": Flag(),
    },
    example="failureThreshold: 5, resetTimeout: 30 seconds",
)

OAUTH = Table(
    place="in oauth",
    keys={
        "tokenUrl": Text(),
        "clientId": Text(),
        "clientSecret": Text(secret=True),
        "scopes": Texts(single=True),
        "accessToken": Text(secret=True),
        "refreshToken": Text(secret=True),
        "expiresAt": Kind(),
        "refreshBuffer": Number(0),
        "grantType": Words(("client_credentials", "refresh_token")),
        "clientAuth": Words(("post", "basic")),
        "tokenParams": Fields(),
    },
    aliases={"tokenEndpoint": "tokenUrl"},
    example='tokenUrl: "https://…", clientId: env("…"), clientSecret: env("…")',
)

_CREDENTIAL_KEYS: Mapping[str, Kind] = {
    "token": Text(secret=True),
    "username": Text(),
    "password": Text(secret=True),
    "apiKey": Text(secret=True),
    "apiKeyHeader": HeaderName(),
    "apiKeyQuery": Text(),
    "apiKeyPrefix": Text(),
}

SPEC_AUTH = Table(
    place="in specAuth",
    keys={
        "type": Registered("auth", AUTH_NAMES),
        **_CREDENTIAL_KEYS,
        "headers": Headers(),
        "oauth": Block(OAUTH),
        "query": Text(),
        "prefix": Text(),
    },
    aliases={"auth": "type", "key": "apiKey", "header": "apiKeyHeader", "headerName": "apiKeyHeader"},
    example='type: bearer, token: env("…")',
)

SOURCE = Table(
    place="for source",
    keys={
        "auth": Registered("auth", AUTH_NAMES),
        "base": Text(),
        "headers": Headers(),
        "timeout": Milliseconds(),
        "connectTimeout": Milliseconds(),
        "retry": Block(RETRY),
        "rateLimit": Block(RATE_LIMIT),
        "circuitBreaker": Either((Block(CIRCUIT_BREAKER), Flag())),
        "validateResponses": Flag(),
        "validationMode": Words(("warn", "strict", "off")),
        "specAuth": Block(SPEC_AUTH),
        **_CREDENTIAL_KEYS,
        "oauth": Block(OAUTH),
        "idempotencyKey": Either((Flag(), HeaderName())),
        "allowOrigins": Origins(),
        "maxResponseBytes": Whole(1),
        "maxRedirects": Whole(0),
        "propagateTrace": Flag(),
    },
)

PAGINATE = Table(
    place="in paginate",
    keys={
        "type": Registered("pagination", PAGINATION_NAMES),
        "param": Param(),
        "pageSize": Whole(1),
        "cursorPath": Text(),
        "rel": Text(),
    },
    example="type: cursor, param: after, pageSize: 100",
)

SINCE = Table(
    place="in since",
    keys={"param": Text(), "format": SINCE_FORMAT, "updateFrom": Text(), "key": Text()},
)

_FETCH_KEYS: Mapping[str, Kind] = {
    "source": SourceName(),
    "params": Fields(),
    "headers": Headers(),
    "body": Expr(),
    "paginate": Paging(),
    "until": Expr(),
    "retry": Block(RETRY),
    "since": SinceValue(),
    "sinceParam": Text(),
    "sinceFormat": SINCE_FORMAT,
    "syncKey": Text(),
    "timeout": Milliseconds(),
    "rateLimit": Block(RATE_LIMIT),
    "items": Text(),
    "maxPages": Whole(1),
    "sinceOverlap": Milliseconds(positive=False),
}


def fetch_table(word: str) -> Table:
    """The options of a request; `word` is its method or `call`, for messages."""
    return _FETCH_TABLES[word]


_FETCH_TABLES = {
    word: Table(place=f"for {word}", keys=_FETCH_KEYS, aliases={"query": "params"})
    for word in ("get", "post", "put", "patch", "delete", "call")
}

RETRY_STEP = Table(place="for retry", keys=_RETRY_KEYS)
STORE_STEP = Table(place="for store", keys={"key": Expr(), "upsert": Flag(), "partial": Flag()})
QUEUE = Table(place="for queue", keys={"item": Expr(), "key": Expr()})

STORAGE = Table(place="in storage", keys={"target": StoreName(), "key": Expr()}, example="target: events, key: .id")
SIGNATURE = Table(
    place="in signature",
    keys={
        "secret": Text(secret=True),
        "header": HeaderName(received=True),
        "algorithm": Words(("sha256", "sha1", "sha512")),
        "encoding": Words(("hex", "base64")),
        "prefix": Text(),
        "timestampHeader": HeaderName(received=True),
        "tolerance": Milliseconds(positive=False),
    },
    example='secret: env("…"), header: "X-Signature"',
)
WAIT = Table(
    place="for wait",
    keys={
        "path": Text(),
        "timeout": Milliseconds(positive=False),
        "expectedEvents": Either((Whole(1), Texts())),
        "eventFilter": Expr(),
        "storage": Either((StoreName(), Block(STORAGE))),
        "retryOnTimeout": Either((Block(RETRY), Only(value=False))),
        "token": Words(("auto", "required", "none")),
        "signature": Block(SIGNATURE),
    },
    aliases={"retry": "retryOnTimeout"},
)

ACTION = Table(place="for action", keys={"concurrency": Whole(1)})

# What a mission and its schedule block share; written in both it is an error.
_SHARED_KEYS: Mapping[str, Kind] = {
    "timezone": Zone(),
    "maxConcurrency": Whole(1),
    "skipIfRunning": Flag(),
    "runImmediately": Flag(),
    "jitter": Milliseconds(positive=False),
    "catchUp": Words(("none", "last", "all")),
    "retryOnFailure": Either((Whole(0, 100), Block(RETRY_ON_FAILURE))),
}
SCHEDULE = Table(place="in schedule", keys={**_SHARED_KEYS, "retry": Block(SCHEDULE_RETRY)})
MISSION = Table(
    place="for mission",
    keys={
        **_SHARED_KEYS,
        "timeout": Milliseconds(),
        "stuckAfter": Milliseconds(),
        "freshWithin": Milliseconds(),
        "parallelMode": Words(("all", "fail-fast"), {"collect": "all"}),
        "enableState": Flag(),
        "stateRetention": Duration(),
        "stateStore": Registered("state store", STATE_STORE_NAMES),
        "alert": Texts(single=True),
    },
)

FILE_STORE = Table(
    place="for file()",
    keys={
        "dir": Text(),
        "pretty": Flag(),
        "persist": Words(("immediate", "batch", "debounce")),
        "debounceMs": Milliseconds(positive=False),
    },
)
# The options of the built-in adapters that have some of their own.
STORE_TABLES = {"file": FILE_STORE}
