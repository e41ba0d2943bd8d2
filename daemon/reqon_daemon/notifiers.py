"""Every other service that takes a message, by the library apprise: mail, chats, pagers, phones (spec/daemon.md 6).

Installed by the extra `alerts`; imported when a target needs it. The library blocks and knows no deadline of ours, so
each try has a thread of its own: one at a time per target, left behind after ten seconds, in nobody's way at the end.
"""

import asyncio
import logging
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

from reqon.clock import SYSTEM, Clock
from reqon.errors import ConfigurationError
from reqon.secrets import SECRETS
from reqon_daemon.incidents import Status
from reqon_daemon.outbox import Answer, Entry, Outcome

if TYPE_CHECKING:
    from apprise import NotifyBase

TRY_SECONDS = 10.0
_SHOWN = ("action", "step", "location", "error", "items", "lastSuccess", "missions", "execution", "resume")
_SECRET_PART = 6


@dataclass(slots=True)
class NotifierTarget:
    """One service. Whether it took a message is all that the library tells: what it refused is tried again as well."""

    kind: ClassVar[str] = "notifier"

    key: str
    shown: str
    service: "NotifyBase" = field(repr=False)
    clock: Clock = field(default=SYSTEM, kw_only=True)
    seconds: float = field(default=TRY_SECONDS, kw_only=True)
    _busy: threading.Lock = field(default_factory=threading.Lock)

    async def send(self, entry: Entry) -> Outcome:
        if not self._busy.acquire(blocking=False):
            return Outcome(Answer.LATER, "its last try has not ended yet")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outcome] = loop.create_future()

        def work() -> None:
            try:
                outcome = self._notify(entry)
            finally:
                self._busy.release()
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(lambda: None if answer.done() else answer.set_result(outcome))

        try:
            # No executor: one would wait for a service that hangs when the process ends.
            threading.Thread(target=work, name=f"alert to {self.shown}", daemon=True).start()
        except RuntimeError as error:
            self._busy.release()
            return Outcome(Answer.LATER, str(error))
        try:
            async with asyncio.timeout(self.seconds):
                return await answer
        except TimeoutError:
            return Outcome(Answer.LATER, f"no answer within {self.seconds:.0f} s")

    def _notify(self, entry: Entry) -> Outcome:
        from apprise import NotifyFormat, NotifyType  # noqa: PLC0415  # it is loaded by now

        resolved = entry.status is Status.RESOLVED
        title, body = message(entry)
        with _Overheard() as heard:
            try:
                taken = self.service.notify(
                    body=body,
                    title=title,
                    notify_type=NotifyType.SUCCESS if resolved else NotifyType.FAILURE,
                    body_format=NotifyFormat.TEXT,
                )
            except Exception as error:  # noqa: BLE001  # one of a hundred plugins; its fault is a failed try
                return Outcome(Answer.LATER, SECRETS.redact(f"{type(error).__name__}: {error}"))
        return Outcome(Answer.DELIVERED) if taken else Outcome(Answer.LATER, heard.reason or "not taken")

    async def close(self) -> None:
        pass


def notifier(text: str, key: str, *, clock: Clock = SYSTEM) -> NotifierTarget | None:
    """The service that a URL means to the library; None: it knows none.

    Raises:
        ConfigurationError: the library is not installed.
    """
    scheme = text.partition("://")[0].lower()
    try:
        from apprise import Apprise, AppriseAsset  # noqa: PLC0415  # half a second, for whoever uses it
    except ImportError:
        raise ConfigurationError(
            f"'{scheme}://' needs the library apprise, which is not installed",
            code="missing-extra",
            hint="pip install 'reqon[alerts]'",
        ) from None
    _hide(text)
    # A service that asks for more than its message has is one that nobody wants to be redirected to.
    asset = AppriseAsset(app_id="Reqon", app_desc="Reqon", async_mode=False, http_redirects=False)
    service = Apprise.instantiate(text, asset=asset, suppress_exceptions=True)
    # What stands behind the scheme is a key as often as a host.
    return NotifierTarget(key, f"{scheme}:{key[:6]}", service, clock=clock) if service is not None else None


def message(entry: Entry) -> tuple[str, str]:
    """Title and body for people, as plain text."""
    notice = entry.notice
    if entry.status is Status.RESOLVED:
        return f"Resolved: {notice['summary']}", notice["summary"]
    notes = notice["annotations"]
    lines = [f"{name}: {notes[name]}" for name in _SHOWN if notes.get(name)]
    return f"Firing: {notice['summary']}", "\n".join(lines) or notice["summary"]


def _hide(text: str) -> None:
    """Let nothing of the URL be shown: where others have a host, many services have their key."""
    rest = text.partition("://")[2]
    parts = [part for piece in rest.replace("?", "/").replace("@", "/").replace(":", "/").split("/") if (part := piece)]
    SECRETS.add(text, *(part for part in parts if len(part) >= _SECRET_PART and not part.isdigit()))


class _Overheard(logging.Handler):
    """What the library's own log says in this thread: nowhere else is the reason of a failure told."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.reason = ""
        self._thread = threading.get_ident()
        self._log = logging.getLogger("apprise")

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.reason = SECRETS.redact(record.getMessage())[:500]

    def __enter__(self) -> Self:
        self._log.propagate = False  # it would reach stderr unredacted
        self._log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._log.removeHandler(self)
