"""Log lines: one line each, in the asked-for form, with every secret masked."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from reqon.diagnostics import escape_controls
from reqon.errors import ConfigurationError
from reqon.events import (
    Emitted,
    Event,
    EventBus,
    FetchFailed,
    LoopIteration,
    MissionFailed,
    MissionStarted,
    Noticed,
    PageFetched,
    Progressed,
)
from reqon.observe import logs
from reqon.observe.levels import level_of
from reqon.observe.plain import FIELD_LIMIT, PlainWarnings
from reqon.secrets import SECRETS

SECRET = "s3cr3t-token-of-the-log-tests"


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    names = ("reqon", "reqon_daemon")
    before = [(logging.getLogger(n), list(logging.getLogger(n).handlers), logging.getLogger(n).level) for n in names]
    yield
    structlog.reset_defaults()
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = True


def configured(form: str, level: str = "debug") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(stream=stream, form=form, level=level, environment={})
    return stream


def emitted(event: Event) -> Emitted:
    at = datetime(2026, 3, 1, 8, 15, tzinfo=UTC)
    return Emitted(event, 1, "exec_1", "Sync", at, "Pull", None)


def test_instants_are_written_as_in_records() -> None:
    stream = configured("json")
    structlog.get_logger("reqon").info("x", due=datetime(2026, 3, 1, 8, 15, tzinfo=UTC))
    assert json.loads(stream.getvalue())["due"] == "2026-03-01T08:15:00.000Z"


def test_a_json_line_has_time_level_message_and_its_fields_in_order() -> None:
    stream = configured("json")
    structlog.get_logger("reqon").info("run ended", items=3, mission="Sync")
    line = json.loads(stream.getvalue())
    assert list(line) == ["timestamp", "level", "message", "mission", "items"]
    assert line["timestamp"].endswith("Z")
    assert (line["level"], line["message"], line["items"]) == ("info", "run ended", 3)


@pytest.mark.parametrize("form", logs.FORMATS)
def test_standard_library_loggers_take_the_same_way(form: str) -> None:
    stream = configured(form)
    logging.getLogger("reqon.catalog").warning("file %s is broken", "a.vague")
    assert "file a.vague is broken" in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("form", logs.FORMATS)
def test_no_secret_reaches_a_line_nor_a_traceback(form: str) -> None:
    """K1, of log lines: message, field, nested field, traceback and its locals."""
    SECRETS.add(SECRET)
    stream = configured(form)
    log = structlog.get_logger("reqon")
    message = f"token {SECRET} refused"
    log.warning(message, url=f"https://x/?a={SECRET}", nested={"deep": [SECRET]})
    local_value = SECRET
    try:
        raise ValueError(local_value)  # noqa: TRY301  # its locals are the point
    except ValueError:
        log.exception("failed")
    text = stream.getvalue()
    assert "refused" in text
    assert "ValueError" in text
    assert SECRET not in text


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_is_logged_stays_one_line(message: str, value: str) -> None:
    """N8, of log lines."""
    for form in logs.FORMATS:
        stream = configured(form)
        structlog.get_logger("reqon").info(message, value=value)
        text = stream.getvalue()
        assert text.endswith("\n")
        assert len(text.splitlines()) == 1
        assert "\x1b" not in text


def test_a_long_field_is_cut() -> None:
    stream = configured("json")
    structlog.get_logger("reqon").info("long", value="x" * 100_000)
    assert len(json.loads(stream.getvalue())["value"]) == FIELD_LIMIT + 1


def test_a_closed_stream_ends_nothing() -> None:
    """L5, of stderr."""
    stream = configured("text")
    stream.close()
    structlog.get_logger("reqon").error("nobody hears this")


def test_an_unknown_format_or_level_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="json, logfmt or text"):
        logs.configure(stream=io.StringIO(), form="xml", environment={})
    with pytest.raises(ConfigurationError, match="debug, info, warn or error"):
        logs.configure(stream=io.StringIO(), level="loud", environment={})


def test_events_become_lines_of_their_level() -> None:
    assert level_of(Noticed(level="warning", message="m")) == "warning"
    failed = MissionFailed(
        status="failed",
        stages_completed=0,
        error_count=1,
        items_processed=0,
        duration_seconds=1.0,
        error="e",
        error_type="http",
    )
    assert level_of(failed) == "error"
    for delivered, kind, level in ((True, "http", "debug"), (False, "http", "error"), (True, "bad_path", "error")):
        event = FetchFailed(
            source="S",
            method="GET",
            path="/p",
            url="u",
            error="e",
            kind=kind,
            retryable=False,
            delivered=delivered,
            attempts=1,
        )
        assert level_of(event) == level


def test_a_line_of_an_event_names_execution_mission_and_action_once() -> None:
    stream = configured("json")
    bus = EventBus()
    logs.EventLog(bus)
    bus.emit(emitted(MissionStarted(stage_count=2, is_resume=False, trigger="manual")))
    line = json.loads(stream.getvalue())
    assert line["message"] == "mission.start"
    assert (line["mission"], line["execution_id"], line["action"]) == ("Sync", "exec_1", "Pull")
    assert (line["stageCount"], line["isResume"]) == (2, False)
    assert "type" not in line


def test_events_that_no_line_would_show_are_not_even_wanted() -> None:
    bus = EventBus()
    logs.EventLog(bus)
    assert not bus.wants(LoopIteration)
    assert not bus.wants(Progressed)
    assert not bus.wants(PageFetched)
    assert bus.wants(MissionStarted)


@given(st.text())
def test_escaped_text_moves_no_cursor(text: str) -> None:
    shown = escape_controls(text)
    assert all(c.isprintable() or c == " " or ord(c) > 0x9F for c in shown)
    assert len(shown.splitlines()) <= 1


def test_a_traceback_in_plain_warnings_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """N8: an error's text may quote what an API said."""
    logger = logging.getLogger("reqon")
    before = (list(logger.handlers), logger.propagate)
    try:
        PlainWarnings(EventBus())
        try:
            raise ValueError("\x1b[2J\r\nFAKE: done\x85FAKE: done\u2028FAKE")  # noqa: TRY301
        except ValueError:
            logger.exception("a bug\x1b[2J\nFAKE: done")
    finally:
        logger.handlers[:], logger.propagate = before
    shown = capsys.readouterr().err
    assert "ValueError" in shown and "Traceback" in shown
    assert not set("\x1b\r\x85\u2028") & set(shown)
    assert not [line for line in shown.splitlines() if line.startswith("FAKE")]
