"""`reqon why` answers in sentences, from the running daemon and from what a daemon left behind."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reqon.events import PER_ITEM, BreakerChanged, Emitted, EventBus, FetchRetried, PageFetched, RateLimitHit
from reqon_daemon.explain import sentences
from reqon_daemon.obstacles import Obstacles
from tests.support.orders_api import OrdersApi
from tests.support.processes import Process, reqon, soon

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RESTING: dict[str, Any] = {
    "mission": "Orders",
    "daemon": True,
    "state": "scheduled",
    "schedule": "every 15 minutes",
    "timezone": "Europe/London",
    "nextDue": "2026-03-01T12:12:00Z",
    "running": [],
    "queued": 0,
    "pause": None,
    "retry": None,
    "consecutiveFailures": 0,
    "lastRun": None,
    "lastSuccess": None,
    "decisions": [],
    "last": None,
}
FAILED: dict[str, Any] = {
    "executionId": "exec_1",
    "status": "failed",
    "trigger": "schedule",
    "startedAt": "2026-03-01T11:59:00Z",
    "completedAt": "2026-03-01T11:59:03Z",
    "durationMs": 3200,
    "itemsProcessed": 1200,
    "activeStep": {"action": "Load", "index": 7},
    "error": {"message": "HTTP 503 from Shop", "location": "orders.vague:7:5", "hint": "ask the shop"},
}


def said(**changes: Any) -> str:
    return "\n".join(sentences({**RESTING, **changes}, NOW, ".vague-data"))


def test_a_mission_that_rests() -> None:
    assert said().splitlines() == [
        "Orders rests.",
        "Schedule: every 15 minutes, Europe/London; the next time is 2026-03-01 12:12:00Z (in 12 minutes).",
        "It has never run here.",
    ]
    assert "It has no schedule: it runs when it is triggered." in said(schedule=None, nextDue=None)


def test_a_failure_says_where_what_and_how_it_goes_on() -> None:
    text = said(
        last=FAILED,
        consecutiveFailures=3,
        lastSuccess="2026-02-28T12:00:00Z",
        retry={"executionId": "exec_1", "attempt": 2, "due": "2026-03-01T12:00:30Z"},
    )
    for line in (
        "The failed run is tried again at 2026-03-01 12:00:30Z (in 30 seconds), attempt 2.",
        "Its last run began 2026-03-01 11:59:00Z (1 minute ago) and failed after 3.2 s, 1,200 items (exec_1).",
        "  orders.vague:7:5: HTTP 503 from Shop",
        "  hint: ask the shop",
        "  It stopped in Load, item 7; a resume goes on there.",
        "That was failure number 3 in a row.",
        "It last succeeded 2026-02-28 12:00:00Z (1 day ago).",
    ):
        assert line in text.splitlines(), text


def test_a_run_that_no_record_tells_of_is_the_last_one_all_the_same() -> None:
    done = {**FAILED, "status": "completed", "error": None, "activeStep": None}
    later = said(
        last=done,
        lastRun="2026-03-01T11:59:30Z",
        lastOutcome="failure",
        lastExecution=None,
        lastDurationSeconds=0.1,
        lastSuccess="2026-03-01T11:59:03Z",
        consecutiveFailures=4,
    ).splitlines()
    assert "Its last run began 2026-03-01 11:59:30Z (30 seconds ago) and failed after 0.1 s." in later
    assert "That was failure number 4 in a row." in later
    assert "It last succeeded 2026-03-01 11:59:03Z (57 seconds ago)." in later
    assert not any("exec_1" in line for line in later)
    same = {"lastRun": "2026-03-01T11:58:59Z", "lastOutcome": "success", "lastExecution": "exec_1"}
    assert "and succeeded after 3.2 s, 1,200 items (exec_1)." in said(last=done, **same)
    by_hand = {"lastRun": "2026-03-01T10:00:00Z", "lastOutcome": "failure", "lastExecution": None}
    assert "and succeeded after 3.2 s, 1,200 items (exec_1)." in said(last=done, **by_hand)


def test_what_it_waits_for() -> None:
    run = {"executionId": "exec_2", "startedAt": "2026-03-01T11:58:00Z", "trigger": "manual", "attempt": 1}
    limit = {"for": "the rate limit", "source": "Shop", "until": "2026-03-01T12:01:00Z", "reason": "/orders"}
    text = said(running=[run], state="running", waitsFor=limit)
    assert "Orders runs since 2026-03-01 11:58:00Z (2 minutes ago), because somebody asked (exec_2)." in text
    assert "It waits for the rate limit of Shop, until 2026-03-01 12:01:00Z (in 1 minute) (/orders)." in text
    assert "waits for a free place" in said(queued=1, state="queued")
    open_one = {"source": "Shop", "state": "open", "since": "2026-03-01T11:50:00Z", "failures": 5}
    assert "No requests go to Shop since 2026-03-01 11:50:00Z (10 minutes ago): 5 in a row failed." in said(
        breakers=[open_one]
    )
    pause = {"since": "2026-03-01T11:00:00Z", "until": None, "reason": "a move"}
    assert "until somebody unpauses it (a move)" in said(pause=pause)


def test_a_broken_edit_is_named_and_due_times_are_listed() -> None:
    slot = {
        "due": "2026-03-01T11:45:00Z",
        "firstDue": "2026-03-01T10:45:00Z",
        "count": 4,
        "outcome": "missed",
        "reason": "the daemon was down",
        "executionId": None,
    }
    text = said(broken=["orders.vague:3:5: error: no such action [undefined-action]\n    run X"], decisions=[slot])
    assert "  orders.vague:3:5: error: no such action [undefined-action]" in text
    assert (
        "  2026-03-01 11:45:00Z  missed     the daemon was down (4 times since 2026-03-01 10:45:00Z)"
        in text.splitlines()
    )


def test_what_came_from_outside_cannot_write_lines_of_its_own() -> None:
    evil = {**FAILED, "error": {"message": "x\n\x1b[2Jfaked"}}
    text = said(last=evil)
    assert "\x1b" not in text
    assert not any(line.startswith("faked") for line in text.splitlines())


def test_waits_end_with_headway_and_cost_nothing_per_item() -> None:
    bus, obstacles = EventBus(), Obstacles()
    obstacles.listen(bus)
    assert not bus.wants(*PER_ITEM)

    def tell(event: Any, mission: str = "M") -> None:
        bus.emit(Emitted(event, 1, "exec_1", mission, NOW))

    tell(RateLimitHit(source="Shop", wait_seconds=30, strategy="pause"))
    wait = obstacles.wait_of("M")
    assert wait is not None
    assert (wait["for"], wait["source"], (wait["until"] - NOW).total_seconds()) == ("the rate limit", "Shop", 30)
    tell(FetchRetried(source="Shop", path="/x", attempt=2, max_attempts=5, reason="http", wait_ms=2000))
    assert (obstacles.wait_of("M") or {})["reason"] == "http, attempt 2 of 5"
    numbers = {"page": 1, "item_count": 1, "total_items": 1, "bytes_received": 9}
    tell(PageFetched(source="Shop", method="GET", path="/x", has_more=False, **numbers))
    assert obstacles.wait_of("M") is None
    tell(BreakerChanged(source="Shop", state="open", previous_state="closed", failures=5))
    assert [b["source"] for b in obstacles.breakers_of("M")] == ["Shop"]
    assert obstacles.breakers_of("Other") == []
    tell(BreakerChanged(source="Shop", state="closed", previous_state="half_open", failures=0))
    assert obstacles.breakers_of("M") == []


MISSION = """
mission Orders {{
  schedule: every 1 hour {{ runImmediately: true }}
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store orders: file("orders")
  action Load {{ get "/orders" store response.orders -> orders {{ key: .id }} }}
  run Load
}}
"""


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=2, orders=5) as running:
        yield running


def test_with_and_without_a_daemon(api: OrdersApi, tmp_path: Path) -> None:
    (tmp_path / "orders.vague").write_text(MISSION.format(url=api.url))
    unknown = reqon("why", "Orders", cwd=tmp_path)
    assert unknown.code == 3
    assert "unknown-mission" in unknown.err
    assert not (tmp_path / ".vague-data").exists()
    api.fail(500, "/orders", times=1)
    with Process(["orders.vague", "--daemon"], cwd=tmp_path) as daemon:
        daemon.said("run ended")
        asked = reqon("why", "Orders", cwd=tmp_path)
        assert asked.code == 0, asked.text
        lines = asked.out.splitlines()
        assert lines[0] == "Orders rests."
        assert lines[1].startswith("Schedule: every 1 hour, ")
        assert any("orders.vague:6:17: " in line and "500" in line for line in lines), asked.out
        assert any(line.endswith("Z  ran        on time, " + line.split(", ")[-1]) for line in lines)
        daemon.signal()
        daemon.wait()
    left = reqon("why", "Orders", cwd=tmp_path)
    assert left.code == 0, left.text
    assert left.out.startswith("No daemon works with .vague-data")
    assert "and failed after" in left.out
    assert "on time" in left.out
    soon(lambda: reqon("why", "Orders", "--json", cwd=tmp_path).json["daemon"] is False, "JSON for machines")
    slip = reqon("why", "Order", cwd=tmp_path)
    assert slip.code == 3
    assert "did you mean 'Orders'?" in slip.err


def test_a_mission_that_only_ran_by_hand_is_known_by_its_records(api: OrdersApi, tmp_path: Path) -> None:
    (tmp_path / "orders.vague").write_text(MISSION.format(url=api.url))
    assert reqon("orders.vague", cwd=tmp_path).code == 0
    told = reqon("why", "Orders", cwd=tmp_path)
    assert "and succeeded after" in told.out
    assert "Due times" not in told.out
    api.fail(500, "/orders", times=9)
    assert reqon("orders.vague", cwd=tmp_path).code == 1
    told = reqon("why", "Orders", cwd=tmp_path)
    assert "and failed after" in told.out and "It last succeeded 20" in told.out, "before, by hand"
