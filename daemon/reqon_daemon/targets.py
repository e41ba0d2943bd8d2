"""Where alerts go: webhooks, Alertmanager, PagerDuty, Slack, a command, the log (spec/daemon.md 6, reliability.md 7).

A target is a secret: its scheme and host are all that logs and metrics ever show of it.
"""

import asyncio
import hmac
import os
import shlex
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import blake2b, sha256
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import SplitResult, urlsplit

import structlog

from reqon.__about__ import __version__
from reqon.clock import SYSTEM, Clock, rfc3339
from reqon.errors import ConfigurationError
from reqon.secrets import SECRETS
from reqon.values import Record, Value, encode
from reqon_daemon.incidents import Status
from reqon_daemon.notifiers import notifier
from reqon_daemon.outbox import Answer, Entry, Outcome, Sender

if TYPE_CHECKING:
    import aiohttp

TRY_SECONDS = 10.0
COMMAND_SECONDS = 30.0
ANSWER_LIMIT = 4096
PAGERDUTY = "https://events.pagerduty.com/v2/enqueue"
_RETRIED = frozenset((408, 425, 429))
_LONGEST_RETRY_AFTER = 3600.0
_AHEAD = timedelta(minutes=5)
_SECRET_PATH = 20
_ON_SLACK = (
    "action", "step", "location", "error", "hint", "items", "lastSuccess", "missions", "execution", "resume",
)  # fmt: skip
_OUR_SCHEMES = frozenset(
    ("http", "https", "alertmanager+http", "alertmanager+https", "slack+http", "slack+https", "pagerduty")
)
_HINT = (
    "targets are https://…, alertmanager+http://host:9093, pagerduty://KEY, exec:./command, log:,"
    " or a service of the library apprise, such as mailto://…"
)

log = structlog.get_logger(__name__)


def parse_target(text: str, *, secret: str | None = None, clock: Clock = SYSTEM) -> Sender:
    """The target that a URL or `exec:` text means.

    Raises:
        ConfigurationError: it means none; shows no more of it than its scheme.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "exec" and rest.strip():
        return CommandTarget(text, tuple(shlex.split(rest)))
    if scheme == "log":
        return LogTarget()
    if scheme.lower() not in _OUR_SCHEMES and rest.startswith("//"):
        if (found := notifier(text, _key(text), clock=clock)) is not None:
            return found
        raise ConfigurationError(
            f"'{scheme}://…' is no alert target: nothing known here takes it", code="bad-option", hint=_HINT
        )
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        raise ConfigurationError(f"an alert target of the form {scheme}:… is no URL: {error}") from error
    hide_url(text)
    if not host:
        raise ConfigurationError("an alert target is no URL with a host", code="bad-option", hint=_HINT)
    match parts.scheme:
        case "pagerduty":
            # A routing key keeps its case, which `hostname` does not.
            return PagerDutyTarget(text, PAGERDUTY, routing_key=parts.netloc, clock=clock)
        case "alertmanager+http" | "alertmanager+https":
            url = parts._replace(scheme=parts.scheme.removeprefix("alertmanager+"))
            path = url.path.rstrip("/")
            api = path if path.endswith("/api/v2/alerts") else f"{path}/api/v2/alerts"
            return AlertmanagerTarget(text, url._replace(path=api).geturl(), clock=clock)
        case "slack+https" | "slack+http":
            return SlackTarget(text, parts._replace(scheme=parts.scheme.removeprefix("slack+")).geturl(), clock=clock)
        case "https" | "http":
            if host == "hooks.slack.com":
                return SlackTarget(text, text, clock=clock)
            return WebhookTarget(text, text, secret=secret, clock=clock)
    raise AssertionError(parts.scheme)  # _OUR_SCHEMES are those above


def hide_url(text: str) -> None:
    """Let nothing of a URL be shown but its scheme and host."""
    parts = urlsplit(text)
    if parts.path.strip("/") or parts.query:
        SECRETS.add(text)
    # A short path is an ordinary word, which must not be masked wherever it stands.
    SECRETS.add(*(part for part in (parts.path.strip("/"), parts.query) if len(part) >= _SECRET_PATH), parts.password)


def is_plain_text(text: str) -> bool:
    """Whether alerts to this target cross a network unencrypted."""
    parts = urlsplit(text)
    return parts.scheme.endswith("http") and not _loopback(parts)


def _loopback(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _key(text: str) -> str:
    return blake2b(text.encode(), digest_size=6).hexdigest()


# --- over HTTP -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class HttpTarget:
    """A target that takes a POST with JSON. Subclasses say what is in it.

    Connections are its own; redirects are not followed, four KiB of an answer are read, a try takes ten seconds in all.
    """

    kind: ClassVar[str] = "http"

    text: str
    url: str
    clock: Clock = field(default=SYSTEM, kw_only=True)
    seconds: float = field(default=TRY_SECONDS, kw_only=True)
    key: str = field(init=False)
    shown: str = field(init=False)
    _session: "aiohttp.ClientSession | None" = field(default=None, init=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        self.key = _key(self.text)
        self.shown = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")

    def body(self, entry: Entry) -> Value | None:
        """What is sent; None: this kind of target isn't told."""
        raise NotImplementedError

    def signature(self, _body: bytes) -> dict[str, str]:
        """Headers that prove where it comes from."""
        return {}

    async def send(self, entry: Entry) -> Outcome:
        message = self.body(entry)
        if message is None:
            return Outcome(Answer.DELIVERED, "not told of this")
        body = encode(message)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"reqon/{__version__}",
            "Idempotency-Key": entry.id,
            **self.signature(body),
        }
        return await self.post(body, headers)

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """One POST and what its answer means."""
        import aiohttp  # noqa: PLC0415  # 130 ms that a daemon without alerts need not spend

        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)
        limit = aiohttp.ClientTimeout(total=self.seconds)
        try:
            async with self._session.post(
                self.url, data=body, headers=headers, timeout=limit, allow_redirects=False
            ) as answer:
                read = await answer.content.read(ANSWER_LIMIT)
                if not answer.content.at_eof():
                    answer.close()  # whatever else it has to say, the connection isn't worth it
                return self._judge(answer.status, answer.headers, read)
        except TimeoutError:
            return Outcome(Answer.LATER, f"no answer within {self.seconds:.0f} s")
        except (aiohttp.ClientError, OSError) as error:
            return Outcome(Answer.LATER, SECRETS.redact(_unreached(error)))
        except ValueError:
            return Outcome(Answer.REJECTED, "its URL cannot be used")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _judge(self, status: int, headers: Mapping[str, str], read: bytes) -> Outcome:
        if 200 <= status < 300:
            return Outcome(Answer.DELIVERED, f"HTTP {status}")
        if status in _RETRIED or status >= 500:
            return Outcome(Answer.LATER, f"HTTP {status}", self._retry_after(headers.get("Retry-After", "")))
        if 300 <= status < 400:
            return Outcome(Answer.REJECTED, f"HTTP {status}: redirects are not followed; set the final URL")
        said = SECRETS.redact(read[:200].decode("utf-8", "replace")).split("\n")[0].strip()
        return Outcome(Answer.REJECTED, f"HTTP {status}" + (f": {said}" if said else ""))

    @staticmethod
    def _retry_after(text: str) -> float | None:
        return min(float(text), _LONGEST_RETRY_AFTER) if text.isascii() and text.isdigit() else None


@dataclass(slots=True)
class WebhookTarget(HttpTarget):
    """Alertmanager's webhook body, version 4; signed with HMAC-SHA256 when there is a secret."""

    kind: ClassVar[str] = "webhook"

    secret: str | None = field(default=None, kw_only=True, repr=False)

    def body(self, entry: Entry) -> Value | None:
        notice = entry.notice
        group = {name: notice["labels"][name] for name in ("alertname", "instance", "mission")}
        shown = ", ".join(f'{name}="{value}"' for name, value in group.items())
        return {
            "version": "4",
            "groupKey": "{}:{" + shown + "}",
            "truncatedAlerts": 0,
            "status": _state(entry),
            "receiver": "reqon",
            "groupLabels": group,
            "commonLabels": notice["labels"],
            "commonAnnotations": notice["annotations"],
            "externalURL": "",
            "alerts": [{"status": _state(entry), **_alert(entry)}],
        }

    def signature(self, body: bytes) -> dict[str, str]:
        if self.secret is None:
            return {}
        stamp = str(int(self.clock.now().timestamp()))
        signature = hmac.new(self.secret.encode(), f"{stamp}.".encode() + body, sha256).hexdigest()
        return {"X-Reqon-Timestamp": stamp, "X-Reqon-Signature": f"sha256={signature}"}


@dataclass(slots=True)
class AlertmanagerTarget(HttpTarget):
    """Alertmanager's own API. What fires is sent again every minute with an end five minutes ahead (`refresh`)."""

    kind: ClassVar[str] = "alertmanager"

    def body(self, entry: Entry) -> Value | None:
        return [self.alert(entry.notice, resolved=entry.status is Status.RESOLVED)]

    def alert(self, notice: Record, *, resolved: bool) -> Record:
        """One alert as its API takes it."""
        ends = notice.get("endsAt") if resolved else rfc3339(self.clock.now() + _AHEAD)
        return {
            "labels": notice["labels"],
            "annotations": notice["annotations"],
            "startsAt": notice["startsAt"],
            "endsAt": ends or rfc3339(self.clock.now()),
            "generatorURL": "",
        }

    async def refresh(self, notices: list[tuple[Record, bool]]) -> Outcome:
        """Say again what fires, and what was resolved in the last five minutes: (notice, resolved) pairs."""
        body = encode([self.alert(notice, resolved=resolved) for notice, resolved in notices])
        return await self.post(body, {"Content-Type": "application/json", "User-Agent": f"reqon/{__version__}"})


@dataclass(slots=True)
class PagerDutyTarget(HttpTarget):
    """PagerDuty Events API v2: trigger and resolve under one deduplication key."""

    kind: ClassVar[str] = "pagerduty"

    routing_key: str = field(default="", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        SECRETS.add(self.routing_key)
        # Spelled out: super() in a slotted dataclass means the class before its slots.
        HttpTarget.__post_init__(self)

    def body(self, entry: Entry) -> Value | None:
        notice = entry.notice
        labels = notice["labels"]
        event: Record = {"routing_key": self.routing_key, "dedup_key": notice["dedup"], "client": "reqon"}
        if entry.status is Status.RESOLVED:
            return {**event, "event_action": "resolve"}
        return {
            **event,
            "event_action": "trigger",
            "payload": {
                "summary": notice["summary"][:1024],
                "source": labels["instance"],
                "severity": labels["severity"],
                "timestamp": notice["startsAt"],
                "component": labels["mission"],
                "class": labels["kind"],
                "custom_details": notice["annotations"],
            },
        }


@dataclass(slots=True)
class SlackTarget(HttpTarget):
    """A Slack incoming webhook, or a service that takes the same."""

    kind: ClassVar[str] = "slack"

    def body(self, entry: Entry) -> Value | None:
        mark = {Status.RESOLVED: ":white_check_mark: resolved"}.get(entry.status, ":rotating_light: firing")
        lines = [f"{mark}: *{_slack(entry.notice['summary'])}*"]
        if entry.status is not Status.RESOLVED:
            notes = entry.notice["annotations"]
            lines += [f"{name}: {_slack(notes[name])}" for name in _ON_SLACK if notes.get(name)]
        return {"text": "\n".join(lines)}


def _slack(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _state(entry: Entry) -> str:
    return "resolved" if entry.status is Status.RESOLVED else "firing"


def _alert(entry: Entry) -> Record:
    notice = entry.notice
    return {
        "labels": notice["labels"],
        "annotations": notice["annotations"],
        "startsAt": notice["startsAt"],
        "endsAt": notice.get("endsAt") or "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": notice["fingerprint"],
    }


# --- a command, the log ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class CommandTarget:
    """A program that gets the notice as JSON on its standard input, without a shell, with a clean environment.

    Exit 0 is delivered; anything else is tried again later. After 30 s its process group is killed.
    """

    kind: ClassVar[str] = "exec"
    KEPT: ClassVar[tuple[str, ...]] = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR")

    text: str
    command: tuple[str, ...]
    seconds: float = COMMAND_SECONDS
    key: str = field(init=False)
    shown: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = _key(self.text)
        self.shown = f"exec:{Path(self.command[0]).name}"

    async def send(self, entry: Entry) -> Outcome:
        environment = {name: os.environ[name] for name in self.KEPT if name in os.environ}
        environment |= {"REQON_ALERT_ID": entry.id, "REQON_ALERT_STATUS": _state(entry)}
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            return Outcome(Answer.LATER, f"cannot be started: {error.strerror}")
        body = encode({"id": entry.id, "status": _state(entry), "event": entry.status, **entry.notice}) + b"\n"
        try:
            async with asyncio.timeout(self.seconds):
                await process.communicate(body)
        except TimeoutError:
            return Outcome(Answer.LATER, f"did not end within {self.seconds:.0f} s")
        except (BrokenPipeError, ConnectionResetError):
            await process.wait()
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode == 0:
            return Outcome(Answer.DELIVERED, "exit 0")
        return Outcome(Answer.LATER, f"exit {process.returncode}")

    async def close(self) -> None:
        pass


@dataclass(slots=True)
class LogTarget:
    """The daemon's own log: errors while it fires, a line of information when it is over."""

    kind: ClassVar[str] = "log"

    key: str = "log"
    shown: str = "log"

    async def send(self, entry: Entry) -> Outcome:
        log_notice(entry)
        return Outcome(Answer.DELIVERED)

    async def close(self) -> None:
        pass


def log_notice(entry: Entry) -> None:
    """Say a notice in the log, with the keys that log lines have."""
    notes = {
        name: value
        for name, value in entry.notice["annotations"].items()
        if name in ("action", "step", "location", "error", "hint", "lastSuccess", "missions", "resume") and value
    }
    say = log.info if entry.status is Status.RESOLVED else log.error
    labels = entry.notice["labels"]
    say(
        f"alert {_state(entry)}: {entry.notice['summary']}",
        mission=labels["mission"],
        kind=labels["kind"],
        execution_id=entry.notice["annotations"].get("execution"),
        alert_id=entry.id,
        **notes,
    )


def _unreached(error: Exception) -> str:
    """Why a target gave no answer."""
    from aiohttp import ClientConnectorDNSError, ClientConnectorError  # noqa: PLC0415  # loaded by whoever raised it

    match error:
        case ClientConnectorDNSError():
            return f"the name '{error.host}' cannot be resolved"
        case ClientConnectorError():
            number = error.os_error.errno
            reason = os.strerror(number) if number else f"{error.os_error}"
            return f"{error.host}:{error.port} cannot be reached: {reason}"
        case _:
            return f"{type(error).__name__}: {error}"
