"""A mission's lease beside its run: renewed, lost, given back."""

import asyncio
from typing import Any, cast

import pytest

from reqon.errors import ConfigurationError, StateError
from reqon.runtime.leasing import MissionLease
from reqon.state.backend import StateBackend
from reqon.state.directory import LeaseLostError

SECONDS = 0.6


class Store:
    """The one method that leases need. `answers` is what it says next; the last one stays."""

    def __init__(self, *answers: bool | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[float] = []

    def lease(self, mission: str, owner: str, ttl: float) -> bool:
        self.asked.append(ttl)
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def lease_of(store: Store) -> MissionLease:
    return MissionLease(cast("StateBackend", store), "DepotSync", "here", seconds=SECONDS)


async def forever() -> None:
    await asyncio.Event().wait()


async def test_it_is_renewed_while_the_work_goes_on_and_given_back_at_its_end() -> None:
    store = Store(True)
    lease = lease_of(store)
    assert await lease.take()
    enough = asyncio.Event()

    async def work() -> str:
        while len(store.asked) < 4:
            await asyncio.sleep(0.01)
        enough.set()
        return "done"

    assert await asyncio.wait_for(lease.hold(work()), 30) == "done"
    await lease.give_back()
    await lease.give_back()
    assert store.asked[-1] == 0.0
    assert store.asked.count(0.0) == 1
    assert set(store.asked[:-1]) == {SECONDS}


async def test_work_is_stopped_when_the_lease_went_elsewhere() -> None:
    store = Store(True, False)
    lease = lease_of(store)
    assert await lease.take()
    with pytest.raises(LeaseLostError, match="went to another machine"):
        await asyncio.wait_for(lease.hold(forever()), 30)


async def test_work_is_stopped_before_others_may_begin_when_the_store_cannot_be_reached() -> None:
    store = Store(True, StateError("no route"))
    lease = lease_of(store)
    assert await lease.take()
    with pytest.raises(LeaseLostError, match="could not be renewed: no route"):
        await asyncio.wait_for(lease.hold(forever()), 30)
    assert len(store.asked) > 2, "one failure is not the end"


async def test_what_the_work_raises_comes_out_as_it_is() -> None:
    async def failing(error: BaseException) -> None:
        await asyncio.sleep(0)
        raise error

    for error in (ConfigurationError("no base"), ZeroDivisionError("a bug")):
        lease = lease_of(Store(True))
        with pytest.raises(type(error)) as caught:
            await lease.hold(failing(error))
        assert cast("Any", caught.value) is error


async def test_a_stop_from_outside_is_one_with_its_reason() -> None:
    lease = lease_of(Store(True))
    task = asyncio.create_task(lease.hold(forever()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel("timeout")
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.args == ("timeout",)


async def test_a_lease_that_cannot_be_given_back_ends_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    lease = lease_of(Store(True, StateError("no route")))
    assert await lease.take()
    await lease.give_back()
    assert "ends by itself" in caplog.text
