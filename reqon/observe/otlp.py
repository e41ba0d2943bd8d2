"""Spans to a collector as OTLP/HTTP JSON: batches from a bounded queue, sent by a thread of its own.

A run never waits for it and never fails by it. What the queue cannot hold is dropped, oldest first, and counted.
"""

import logging
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Condition, Thread
from typing import Any
from urllib.parse import urlsplit

from reqon.__about__ import __version__
from reqon.clock import SYSTEM
from reqon.errors import ConfigurationError
from reqon.observe.spans import Span, attributes_of
from reqon.secrets import SECRETS
from reqon.values import Value, encode

BATCH = 512
QUEUE = 2048
DELAY_SECONDS = 5.0
FLUSH_SECONDS = 5.0
TRIES = 3
_PAUSE_SECONDS = 0.5
_AGAIN = frozenset((429, 502, 503, 504))

log = logging.getLogger("reqon")


class OTLPExporter:
    """Sends spans to `endpoint`, such as `http://localhost:4318/v1/traces`; without a path, `/v1/traces` is meant.

    `timeout` is in milliseconds, for one try. `exported` and `dropped` count spans.

    Raises:
        ConfigurationError: the endpoint is no http(s) URL.
    """

    def __init__(
        self,
        endpoint: str,
        service_name: str = "reqon",
        service_version: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5000,
        resource_attributes: Mapping[str, Value] | None = None,
    ) -> None:
        try:
            parts = urlsplit(endpoint)
            host, port = parts.hostname, parts.port
        except ValueError:  # half a bracket, a port that is none
            host = None
        if not host or parts.scheme not in ("http", "https"):
            raise ConfigurationError(
                f"'{endpoint}' is no address of a collector", hint="such as http://localhost:4318/v1/traces"
            )
        self._tls = parts.scheme == "https"
        self._host, self._port = host, port
        path = parts.path if parts.path.strip("/") else "/v1/traces"
        self._target = f"{path}?{parts.query}" if parts.query else path
        self._headers = {"Content-Type": "application/json", "User-Agent": f"reqon/{__version__}", **(headers or {})}
        SECRETS.add(*(headers or {}).values())
        self._timeout = timeout / 1000
        self._resource = {
            "service.name": service_name,
            "service.version": service_version or __version__,
            **(resource_attributes or {}),
        }
        self._queue: deque[Span] = deque()
        self._sending = 0
        self._stopped = self._hurry = self._warned = False
        self._changed = Condition()
        self._thread: Thread | None = None
        self.exported = 0
        self.dropped = 0

    def export(self, spans: Sequence[Span]) -> None:
        """Queue ended spans. Returns at once."""
        with self._changed:
            if self._stopped:
                self.dropped += len(spans)
                return
            self._queue.extend(spans)
            while len(self._queue) > QUEUE:
                self._queue.popleft()
                self.dropped += 1
            if self._thread is None:
                self._thread = Thread(target=self._work, name="traces", daemon=True)
                self._thread.start()
            if len(self._queue) >= BATCH:
                self._changed.notify_all()

    def flush(self, timeout_seconds: float = FLUSH_SECONDS) -> bool:
        """Send what is queued now; whether all of it has gone or was given up within the time. Blocks."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: not self._queue and not self._sending, timeout_seconds)
            self._hurry = False
            return done

    def shutdown(self, timeout_seconds: float = FLUSH_SECONDS) -> None:
        """Flush, then send nothing more. Blocks, at most so long."""
        self.flush(timeout_seconds)
        with self._changed:
            self._stopped = True
            lost = len(self._queue) + self._sending
            self.dropped += len(self._queue)
            self._queue.clear()
            self._changed.notify_all()
        if lost and not self._warned:
            log.warning("%s spans could not be delivered in time to %s", lost, self._host)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (batch := self._take()) is not None:
            sent = self._deliver(batch)
            with self._changed:
                self._sending = 0
                if sent:
                    self.exported += len(batch)
                else:
                    self.dropped += len(batch)
                self._changed.notify_all()

    def _take(self) -> list[Span] | None:
        """The next batch: when it is full, or the first of it has waited long enough; None at the end."""
        with self._changed:
            while not self._queue and not self._stopped:
                self._changed.wait()
            if len(self._queue) < BATCH and not self._hurry and not self._stopped:
                self._changed.wait_for(lambda: len(self._queue) >= BATCH or self._hurry or self._stopped, DELAY_SECONDS)
            if self._stopped and not self._queue:
                return None
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            self._sending = len(batch)
            return batch

    def _deliver(self, batch: Sequence[Span]) -> bool:
        body = encode(self._message(batch))
        reason = ""
        for attempt in range(1, TRIES + 1):
            try:
                status = self._post(body)
            except (OSError, HTTPException, ValueError) as error:
                reason = f"{type(error).__name__}: {error}"
            else:
                if 200 <= status < 300:
                    return True
                reason = f"HTTP {status}"
                if status not in _AGAIN:
                    break
            if attempt < TRIES:
                with self._changed:
                    if self._changed.wait_for(lambda: self._stopped, _PAUSE_SECONDS * attempt):
                        break
        if not self._warned:
            self._warned = True
            log.warning("traces cannot be delivered to %s: %s", self._host, SECRETS.redact(reason))
        return False

    def _post(self, body: bytes) -> int:
        connection: HTTPConnection
        if self._tls:
            context = ssl.create_default_context()
            connection = HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)
        else:
            connection = HTTPConnection(self._host, self._port, timeout=self._timeout)
        deadline = SYSTEM.monotonic() + self._timeout
        try:
            connection.request("POST", self._target, body, self._headers)
            answer = connection.getresponse()
            while answer.read(4096) and SYSTEM.monotonic() < deadline:
                pass  # the answer says nothing that we need, but its end keeps the collector's log clean
            return answer.status
        finally:
            connection.close()

    def _message(self, batch: Sequence[Span]) -> dict[str, Any]:
        scope = {"name": "reqon", "version": __version__}
        spans = [span.to_otlp() for span in batch]
        return {
            "resourceSpans": [
                {
                    "resource": {"attributes": attributes_of(self._resource)},
                    "scopeSpans": [{"scope": scope, "spans": spans}],
                }
            ]
        }
