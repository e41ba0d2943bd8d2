"""A stand-in for an OpenTelemetry collector: takes OTLP/HTTP JSON on loopback, reads it with the official messages."""

import base64
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_IDS = ("traceId", "spanId", "parentSpanId")


def parsed(body: bytes) -> ExportTraceServiceRequest:
    """The message that a body stands for. OTLP's JSON writes ids as hex where protobuf's own has base64."""

    def with_base64(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                k: base64.b64encode(bytes.fromhex(v)).decode() if k in _IDS else with_base64(v)
                for k, v in value.items()
            }
        return [with_base64(v) for v in value] if isinstance(value, list) else value

    message = ExportTraceServiceRequest()
    json_format.ParseDict(with_base64(json.loads(body)), message)
    return message


class Collector:
    """Answers `POST /v1/traces` by `status(n)` for the n-th request, 1, 2, …; keeps what it accepted."""

    def __init__(self, status: Callable[[int], int] = lambda _: 200) -> None:
        self._status = status
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.accepted: list[ExportTraceServiceRequest] = []
        self._changed = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the library's name
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with collector._changed:
                    collector.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                    status = collector._status(len(collector.requests))
                    if status == 200:
                        collector.accepted.append(parsed(body))
                    collector._changed.notify_all()
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def spans(self) -> list[Span]:
        """All spans that came, in order."""
        found = [s for m in self.accepted for r in m.resource_spans for scope in r.scope_spans for s in scope.spans]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    def wait_for(self, requests: int) -> None:
        """Until so many requests have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= requests, 60)
