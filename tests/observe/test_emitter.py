"""Emitters: handlers by name, plain or async, that no run notices."""

import asyncio
import logging
from typing import Any

import pytest

from reqon.events import BreakerChanged, Emitted, EventBus, Noticed, Progressed, StageStarted
from reqon.observe.emitter import create_emitter

STAGE = StageStarted(stage_index=0, stage_name="A", total_stages=1, is_parallel=False)


def breaker(state: str) -> BreakerChanged:
    return BreakerChanged(source="S", state=state, previous_state="closed", failures=5)


def test_handlers_hear_what_they_asked_for_in_order_with_fields_as_attributes() -> None:
    emitter = create_emitter("exec_1", "Sync")
    heard: list[Any] = []
    emitter.on("stage.start", lambda e: heard.append(("one", e.stage_name, e.mission, e.execution_id, e.seq)))
    emitter.on_all(lambda e: heard.append(("all", e.type)))
    emitter.on("stage.complete", lambda _: heard.append("never"))
    emitter.emit(STAGE)
    assert heard == [("one", "A", "Sync", "exec_1", 1), ("all", "stage.start")]


def test_circuit_names_are_views_of_the_breaker_s_state() -> None:
    emitter = create_emitter()
    heard: list[str] = []
    for name in ("circuit.open", "circuit.halfopen", "circuit.close", "circuitbreaker.state"):
        emitter.on(name, lambda e, name=name: heard.append(f"{name}={e.state}"))  # type: ignore[misc]
    for state in ("open", "half_open", "closed"):
        emitter.emit(breaker(state))
    assert heard == [
        "circuit.open=open", "circuitbreaker.state=open",
        "circuit.halfopen=half_open", "circuitbreaker.state=half_open",
        "circuit.close=closed", "circuitbreaker.state=closed",
    ]  # fmt: skip


async def test_what_a_handler_raises_is_logged_once_and_nobody_notices(caplog: pytest.LogCaptureFixture) -> None:
    emitter = create_emitter()
    heard: list[Emitted] = []

    def broken(_: Emitted) -> None:
        raise ValueError("mine")

    async def broken_later(_: Emitted) -> None:
        raise ValueError("later")

    emitter.on_all(broken)
    emitter.on_all(broken_later)
    emitter.on_all(heard.append)
    emitter.emit(STAGE)
    emitter.emit(STAGE)
    await emitter.drain()
    assert len(heard) == 2
    logged = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(logged) == 2 and all(r.exc_info for r in logged)


async def test_coroutine_functions_are_scheduled_and_waited_for() -> None:
    emitter = create_emitter()
    heard: list[str] = []

    async def slow(event: Emitted) -> None:
        await asyncio.sleep(0)
        heard.append(event.type)

    emitter.on("stage.start", slow)
    emitter.emit(STAGE)
    assert heard == []
    await emitter.drain()
    assert heard == ["stage.start"]


def test_a_run_s_bus_is_asked_for_exactly_what_handlers_want() -> None:
    bus, emitter = EventBus(), create_emitter()
    heard: list[str] = []
    detach = emitter.attach(bus)
    assert not bus.wants(StageStarted)
    off = emitter.on("stage.start", lambda e: heard.append(e.type))
    assert bus.wants(StageStarted) and not bus.wants(BreakerChanged)
    off()
    assert not bus.wants(StageStarted)
    emitter.on_all(lambda e: heard.append(e.type))
    assert bus.wants(BreakerChanged) and not bus.wants(Progressed) and not bus.wants(Noticed)
    detach()
    assert not bus.wants(StageStarted)
    emitter.clear()
    emitter.emit(STAGE)
    assert heard == []


def test_events_of_one_s_own_have_a_name_and_a_payload() -> None:
    emitter = create_emitter(mission="M")
    heard: list[Emitted] = []
    emitter.on("billing.done", heard.append)
    emitter.emit("billing.done", {"invoices": 3}, action="Bill", duration=12)
    (event,) = heard
    assert (event.type, event.invoices, event.action, event.duration) == ("billing.done", 3, "Bill", 12)
    assert event.to_dict()["payload"] == {"invoices": 3}
    with pytest.raises(AttributeError):
        _ = event.nothing


def test_a_misspelt_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'fetch.complete'"):
        create_emitter().on("fetch.completed", print)
