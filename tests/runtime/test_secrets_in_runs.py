"""K1, inside one process: a marked secret in twelve places, every end of a run, every form of log, and all files."""

import base64
import io
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import structlog

from reqon.events import Emitted, Event, EventBus
from reqon.observe import logs, traces
from reqon.observe.logger import create_structured_logger
from reqon.observe.otlp import OTLPExporter
from reqon.observe.outputs import ConsoleOutput, JsonLinesOutput
from reqon.observe.spans import Span
from reqon.runner import Runner, RunnerSettings
from reqon.runtime.request import RunRequest
from reqon.state.records import to_json
from reqon.values import encode
from tests.support.clocks import FakeClock
from tests.support.missions import parse_mission
from tests.support.servers import Answer, ScriptedServer, redirect, reply

MARK = 'K1/marked+"secret" välue='


@dataclass(frozen=True)
class Place:
    """Where the secret comes from: the source's options, a credential record, variables, the fetch's options."""

    source: str = "auth: none"
    record: Mapping[str, Any] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    options: str = ""
    token: Callable[[], bytes] | None = None


PLACES: dict[str, Place] = {
    "bearer token": Place("auth: bearer", {"token": MARK}),
    "bearer variable": Place("auth: bearer", None, {"REQON_API_TOKEN": MARK}),
    "inline token": Place('auth: bearer, token: env("MY_TOKEN")', None, {"MY_TOKEN": MARK}),
    "basic password": Place("auth: basic", {"username": "u", "password": MARK}),
    "api key": Place("auth: api_key", {"key": MARK}),
    "api key in the query": Place("auth: api_key", {"key": MARK, "query": "sesame"}),
    "additional header": Place("auth: api_key", {"key": "some-other-key", "additionalHeaders": {"X-Team": MARK}}),
    "source header": Place('auth: none, headers: { "X-Any": env("ANY_SECRET") }', None, {"ANY_SECRET": MARK}),
    "request header": Place(variables={"ANY_SECRET": MARK}, options='headers: { "X-Any": env("ANY_SECRET") }'),
    "parameter": Place(variables={"ANY_SECRET": MARK}, options='params: { q: env("ANY_SECRET") }'),
    "client secret": Place("auth: oauth2", {"clientId": "c", "clientSecret": MARK}, token=lambda: reply(401, data={
        "error": "invalid_client", "error_description": MARK})),
    "rotated token": Place("auth: oauth2", {"clientId": "c", "clientSecret": "cl1ent-secret", "refreshToken": MARK},
        token=lambda: reply(data={"access_token": f"access {MARK}", "refresh_token": f"{MARK}2", "expires_in": 3600})),
}  # fmt: skip


async def hang_up(_: Any, writer: Any) -> None:
    writer.transport.abort()


def written(one: str) -> list[str]:
    """A text as URLs, JSON and base64 hold it."""
    urls = [quote(one, safe=""), quote(one), quote_plus(one)]
    texts = [json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1]]
    packed = [base64.b64encode(one.encode()).decode(), base64.urlsafe_b64encode(one.encode()).decode()]
    lower = [re.sub("%..", lambda m: m[0].lower(), url) for url in urls]
    return [*urls, *lower, *texts, *(text.replace("/", "\\/") for text in texts), *packed]


ENDS: dict[str, Answer] = {
    "success": reply(data=[{"id": "1"}]),
    "400 that echoes it": reply(400, data={"error": f"bad: {MARK}", "echo": [MARK, *written(MARK)]}),
    "401": reply(401, data={"message": MARK}),
    "404 in HTML": reply(404, body=f"<p>{MARK}</p>".encode(), content_type="text/html"),
    "429": reply(429, data={"error": MARK}, headers={"Retry-After": "2"}),
    "500": reply(500, data={"error": {"message": MARK}}),
    "400 that is cut inside it": reply(400, data={"error": "x" * (300 - 12) + MARK}),
    "a value that is cut inside it": reply(data="x" * 25 + MARK),
    "a long value that is cut inside it": reply(data="x" * 50 + MARK),
    "a header line that is cut inside it": b"HTTP/1.1 200 OK\r\nX: " + MARK.encode() * 3000 + b"\r\n\r\n",
    "no JSON": reply(body=f"{{{MARK}".encode()),
    "a broken line": hang_up,
    "a redirect elsewhere": redirect(f"http://elsewhere.invalid/?token={quote(MARK, safe='')}"),
    "a header that echoes it": reply(503, data={}, headers={"X-Echo": MARK, "Set-Cookie": MARK}),
    "another type": reply(body=MARK.encode(), content_type="application/pdf"),
    "data that does not fit": reply(data=[f"{MARK} is no record"]),
}


def forms() -> set[str]:
    plain = {MARK, f"access {MARK}", f"{MARK}2"}
    out = plain | {one[:10] for one in plain}  # half of one, too
    for one in plain:
        out |= {*written(one), encode(one).decode()[1:-1]}
        out |= {base64.b64encode(f"{name}:{one}".encode()).decode() for name in "uc"}
    return out


FORMS = forms()


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    before = [(logging.getLogger(n), list(logging.getLogger(n).handlers), logging.getLogger(n).level)
              for n in ("reqon", "reqon_daemon")]  # fmt: skip
    yield
    structlog.reset_defaults()
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = True


class Kept(OTLPExporter):
    """Keeps what would go to a collector."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9")
        self.sent = b""

    def export(self, spans: Any) -> None:
        assert all(isinstance(span, Span) for span in spans)
        self.sent += encode(self._message(spans))


def text_of(place: Place) -> str:
    options = f"{{ {place.options} }}" if place.options else ""
    return f"""
mission M {{
  source Api {{ {place.source}, base: env("API"), retry: {{ maxAttempts: 2, initialDelay: 1 }} }}
  store out: memory("out")
  store later: file("later")
  action A {{
    get "/x" {options}
    store response -> out {{ key: .id }}
    get "/x" {options}
    match response {{ {{ error: e }} -> queue later, _ -> continue }}
  }}
  run A
}}
"""


async def shown_by(api: ScriptedServer, place: Place, state: Path, form: str) -> str:
    """Everything that one run shows: logs, events, spans, errors, its record, and its files but `tokens.json`."""
    stream, more = io.StringIO(), io.StringIO()
    logs.configure(stream=stream, form=form, level="debug", environment={})
    bus, heard, spans = EventBus(), list[Emitted](), Kept()
    bus.on(Event, heard.append)
    logs.EventLog(bus, level="debug")
    logger = create_structured_logger(level="debug", silent=True)
    logger.add_output(ConsoleOutput(colors=False, stream=lambda: more))
    logger.add_output(JsonLinesOutput(more))
    logger.attach(bus)
    traces.listen(bus, spans)
    record = place.record
    if record is not None and place.token is not None:
        api.on("/token", place.token())
        record = {**record, "tokenUrl": f"{api.url}/token"}
    runner = Runner(
        RunnerSettings(state_directory=state, auth={"Api": record} if record else None),
        clock=FakeClock(), bus=bus, environment={"API": api.url, **place.variables}, random=lambda: 0.5,
    )  # fmt: skip
    program = parse_mission(text_of(place))
    try:
        outcome = await runner.execute(
            runner.plan(program), RunRequest(mission="M", path="m", definition_hash=program.definition_hash)
        )
    finally:
        await runner.close()
    errors = [f"{e} {e!r} {e.format()} {e.to_dict()} {e.__cause__!r}" for e in outcome.errors]
    events = [str(e.to_dict()) + repr(e) for e in heard]
    files = [
        f"{path}\n{path.read_bytes().decode(errors='replace')}"
        for path in state.rglob("*")
        if path.is_file() and path.name != "tokens.json"
    ]
    whole = [stream.getvalue(), more.getvalue(), spans.sent.decode(), *errors, *events, *files]
    return "\n".join([*whole, str(to_json(outcome.record)), repr(outcome.record)])


@pytest.mark.parametrize("place", PLACES)
async def test_a_marked_secret_is_shown_nowhere_however_a_run_ends(place: str, tmp_path: Path) -> None:
    """K1: one of twelve places, twelve ends, three forms of log at debug, structured log, events, spans and files."""
    async with ScriptedServer() as api:
        for number, (end, answer) in enumerate(ENDS.items()):
            api.on("/x", answer)
            form = logs.FORMATS[number % len(logs.FORMATS)]
            shown = await shown_by(api, PLACES[place], tmp_path / str(number), form)
            leaked = [one for one in FORMS if one in shown]
            assert leaked == [], (end, [shown[max(0, shown.index(o) - 200) : shown.index(o) + 80] for o in leaked[:1]])
            assert "mission" in shown and api.seen
