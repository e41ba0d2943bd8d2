"""The structured logger: one line an event or call, in every form, masked and escaped."""

import io
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reqon.events import PER_ITEM, Event
from reqon.observe.emitter import create_emitter
from reqon.observe.logger import StructuredLogger, create_structured_logger
from reqon.observe.otlp import OTLPExporter
from reqon.observe.outputs import BufferOutput, ConsoleOutput, EventOutput, JsonLinesOutput, LogEntry, OTelLogOutput
from reqon.secrets import SECRETS
from tests.support.clocks import FakeClock
from tests.support.collector import Collector
from tests.support.missions import Bench, mission
from tests.support.servers import ScriptedServer, reply

SECRET = "structured-lines-secret"


@pytest.fixture
async def api() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
def bench(api: ScriptedServer, tmp_path: Path) -> Bench:
    return Bench(api, tmp_path)


def buffered(level: str = "debug", **more: Any) -> tuple[StructuredLogger, BufferOutput]:
    lines = create_structured_logger(level=level, silent=True, **more)
    output = BufferOutput()
    lines.add_output(output)
    return lines, output


def console(entries: list[LogEntry]) -> str:
    stream = io.StringIO()
    output = ConsoleOutput(colors=False, stream=lambda: stream)
    for entry in entries:
        output.write(entry)
    return stream.getvalue()


def test_console_and_json_lines_have_the_documented_form() -> None:
    stream = io.StringIO()
    lines, buffer = buffered(clock=FakeClock())
    lines.add_output(JsonLinesOutput(stream))
    lines.info("fetch.complete", {"path": "/parcels", "status": 200, "duration": 87})
    assert console(buffer.entries) == '[Reqon] INFO  fetch.complete path="/parcels" status=200 duration=87ms\n'
    line = json.loads(stream.getvalue())
    assert list(line) == ["level", "message", "timestamp", "context"]
    assert line["context"] == {"path": "/parcels", "status": 200, "duration": 87} and line["timestamp"].endswith("Z")


def test_levels_rise_and_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    lines, buffer = buffered("warn")
    for write in (lines.debug, lines.info, lines.warn, lines.error):
        write("x")
    assert [e.level for e in buffer.entries] == ["warn", "error"]
    lines.set_level("debug")
    lines.debug("now")
    assert buffer.find("now") is not None and len(buffer.filter("debug")) == 1
    monkeypatch.setenv("REQON_LOG_LEVEL", "error")
    quiet = create_structured_logger(silent=True)
    quiet.add_output(buffer)
    quiet.warn("not shown")
    assert buffer.find("not shown") is None
    with pytest.raises(ValueError, match="debug, info, warn, error"):
        lines.set_level("loud")
    buffer.clear()
    assert buffer.entries == []


def test_children_and_spans_carry_their_context() -> None:
    clock = FakeClock()
    lines, buffer = buffered(context={"app": "a"}, clock=clock)
    span = lines.child({"part": "p"}).span("import").add_context({"file": "f"})
    span.info("read")
    inner = span.child("parse")
    span.child({"row": 1}).info("row")
    clock.advance(0.25)
    assert inner.end() == 250 and span.end() == 250
    read, row, first, second = buffer.entries
    assert row.context == {"app": "a", "part": "p", "file": "f", "row": 1} and row.span_id == span.id
    assert read.context == {"app": "a", "part": "p", "file": "f"} and read.span_id == span.id
    assert (first.message, first.level, first.duration) == ("span:end", "debug", 250)
    assert (first.parent_span_id, second.parent_span_id) == (span.id, None)
    assert json.loads(json.dumps(first.to_dict()))["parentSpanId"] == span.id


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_is_written_stays_one_line(message: str, value: str) -> None:
    """N8, of the structured logger."""
    stream = io.StringIO()
    lines, buffer = buffered()
    lines.add_output(JsonLinesOutput(stream))
    lines.info(message, {"value": value, "list": [value]})
    for text in (stream.getvalue(), console(buffer.entries)):
        assert text.endswith("\n") and len(text.splitlines()) == 1 and "\x1b" not in text


def test_no_secret_and_no_endless_field_reaches_an_output() -> None:
    """K1, of the structured logger."""
    SECRETS.add(SECRET)
    stream = io.StringIO()
    lines, buffer = buffered(context={"all": SECRET})
    lines.add_output(JsonLinesOutput(stream))
    lines.error(f"token {SECRET}", {"nested": {"deep": [SECRET]}, "long": "x" * 100_000})
    assert SECRET not in stream.getvalue() + console(buffer.entries)
    assert len(stream.getvalue()) < 10_000


def test_a_broken_output_is_dropped_with_one_note(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def write(self, entry: LogEntry) -> None:
            raise OSError("full")

    lines, buffer = buffered()
    lines.add_output(Broken())
    lines.info("one")
    lines.info("two")
    assert len(buffer.entries) == 2
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "the log output Broken is dropped: full"
    ]


def test_lines_become_events_and_a_handler_that_logs_hears_no_echo() -> None:
    emitter = create_emitter()
    lines = create_structured_logger(silent=True)
    lines.add_output(EventOutput(emitter))
    heard: list[Any] = []

    def handler(event: Any) -> None:
        heard.append((event.level, event.message))
        lines.info("from the handler")

    emitter.on("log", handler)
    lines.warn("hello")
    assert heard == [("warn", "hello")]


def test_spans_of_the_logger_reach_a_collector() -> None:
    with Collector() as collector:
        exporter = OTLPExporter(collector.endpoint)
        lines, _ = buffered()
        lines.add_output(OTelLogOutput(exporter))
        work = lines.span("work")
        work.info("step", {"n": 1})
        child = work.span("inner")
        child.error("broke")
        child.end()
        work.end()
        lines.info("alone")
        exporter.shutdown(30)
        by_name = {s.name: s for s in collector.spans()}
        assert set(by_name) == {"work", "inner", "alone"}
        assert by_name["inner"].parent_span_id == by_name["work"].span_id
        assert by_name["inner"].status.code == 2 and [e.name for e in by_name["work"].events] == ["step"]


def test_spans_that_never_end_are_given_away_in_the_end() -> None:
    with Collector() as collector:
        exporter = OTLPExporter(collector.endpoint)
        lines, _ = buffered()
        output = OTelLogOutput(exporter)
        lines.add_output(output)
        first = lines.span("first")
        first.error("broke", {"n": 1})
        for _ in range(1_500):
            lines.span("lost").info("begun")
        assert len(output._lines) == 1_000
        exporter.flush(30)
        exporter.shutdown(30)
        (span,) = [s for s in collector.spans() if s.span_id.hex() == first.id]
        assert span.status.code == 2 and [e.name for e in span.events] == ["broke"]
        assert {a.key for a in span.attributes} >= {"reqon.unended"}


def test_the_console_has_the_form_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = {}
    for form in ("text", "json", "logfmt"):
        monkeypatch.setenv("REQON_LOG_FORMAT", form)
        lines = create_structured_logger(context={"service": "orders"}, clock=FakeClock())
        lines.warn("late run", {"minutes": 12, "why": 'a "b"\n', "path": "/x"})
        shown[form] = capsys.readouterr().err
    assert shown["text"] == '[Reqon] WARN  late run service="orders" minutes=12 why="a \\"b\\"\\n" path="/x"\n'
    assert json.loads(shown["json"])["context"] == {"service": "orders", "minutes": 12, "why": 'a "b"\n', "path": "/x"}
    assert shown["logfmt"] == (
        'level=warn message="late run" timestamp=2026-03-01T08:15:00.000Z service=orders minutes=12 '
        'why="a \\"b\\"\\n" path=/x\n'
    )


async def test_every_event_of_a_run_is_a_line_of_its_level(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data={"id": "1"}))
    steps = 'get "/x"\nvalidate response { assume .id == "2" }\nstore response -> out\nget "/none"'
    lines, buffer = buffered()
    bench.on_bus = lines.attach
    bench.listen = (Event,)
    ran = await bench.run(mission(steps))
    assert [e.message for e in buffer.entries if e.message != 'constraint violated: .id == "2"'] == [
        e.type for e in ran.events if not e.event.internal
    ]
    levels = {e.message: e.level for e in buffer.entries}
    assert levels["mission.start"] == levels["stage.start"] == levels["fetch.complete"] == "info"
    assert levels["data.store"] == "info"
    assert levels["data.validate"] == "warn" and levels["step.start"] == levels["fetch.start"]
    assert levels["fetch.error"] == levels["mission.failed"] == "error" and levels["step.start"] == "debug"
    fetched = buffer.find("fetch.complete")
    assert fetched is not None and fetched.about == {
        "mission": "M", "execution_id": ran.record.execution_id, "action": "A",
    }  # fmt: skip
    assert "duration" in fetched.context


async def test_at_info_no_event_of_an_item_is_even_built(api: ScriptedServer, bench: Bench) -> None:
    lines, _ = buffered("info")
    bench.on_bus = lines.attach
    await bench.run(mission("let x = 1"))
    assert bench.runner is not None and not bench.runner.bus.wants(*PER_ITEM)
