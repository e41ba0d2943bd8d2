"""The example shop answers as its guide says, and misbehaves on demand."""

import asyncio
from collections.abc import Iterator

import aiohttp
import pytest

from tests.support.orders_api import OrdersApi


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=30, orders=120) as running:
        yield running


async def get(url: str, **headers: str) -> tuple[int, dict[str, object]]:
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize("query", ["page={page}&per_page=25", "offset={offset}&limit=25", "cursor={cursor}&limit=25"])
async def test_every_way_of_paging_gives_each_order_once(api: OrdersApi, query: str) -> None:
    seen: list[str] = []
    cursor = ""
    for page in range(1, 7):
        _, body = await get(f"{api.url}/orders?{query.format(page=page, offset=len(seen), cursor=cursor)}")
        orders = body["orders"]
        assert isinstance(orders, list)
        seen += [order["id"] for order in orders]
        cursor = str(body.get("next_cursor") or 10_000)
    assert seen == list(api.orders())


async def test_only_what_changed_since_is_listed(api: OrdersApi) -> None:
    touched = api.touch(3)
    _, body = await get(f"{api.url}/orders?modified_since=2026-03-01T00:00:00Z")
    assert [order["id"] for order in body["orders"]] == touched  # type: ignore[attr-defined]


async def test_the_secure_part_wants_the_token(api: OrdersApi) -> None:
    assert (await get(f"{api.url}/secure/customers/cust_0001"))[0] == 401
    status, body = await get(f"{api.url}/secure/customers/cust_0001", Authorization=f"Bearer {api.token}")
    assert (status, body["id"]) == (200, "cust_0001")


async def test_a_repeated_key_makes_one_note(api: OrdersApi) -> None:
    url = f"{api.url}/orders/ord_00001/notes"
    async with aiohttp.ClientSession() as session:
        for status in (201, 200):
            headers = {"Idempotency-Key": "k1"}
            async with session.post(url, json={"text": "call back"}, headers=headers) as answer:
                assert answer.status == status
    assert [note["text"] for note in api.notes()] == ["call back"]


async def test_it_fails_as_often_as_told(api: OrdersApi) -> None:
    api.fail(503, "/orders", times=2, retry_after=7)
    statuses = [(await get(f"{api.url}/orders?per_page=1"))[0] for _ in range(3)]
    assert statuses == [503, 503, 200]
    assert api.stats() == {"/orders": 3}


@pytest.mark.parametrize("what", ["reset", "cut", "html", "garbage"])
async def test_a_spoiled_answer_is_no_json(api: OrdersApi, what: str) -> None:
    api.fail(what, "/orders", times=2)  # aiohttp's client sends a GET again after a reset
    with pytest.raises((aiohttp.ClientError, ValueError)):
        await get(f"{api.url}/orders")


async def test_a_held_request_waits_for_its_release(api: OrdersApi) -> None:
    api.hold("/orders", at=2)
    assert (await get(f"{api.url}/orders/ord_00001"))[0] == 200
    assert not api.reached.is_set()
    async with asyncio.TaskGroup() as group:
        held = group.create_task(get(f"{api.url}/orders/ord_00002"))
        assert await asyncio.to_thread(api.reached.wait, 10)
        assert not held.done()
        api.release()
    assert held.result()[0] == 200


async def test_the_rate_limit_says_when_to_come_back(api: OrdersApi) -> None:
    api.rate_limit(1)
    async with aiohttp.ClientSession() as session:
        statuses = []
        for _ in range(3):
            async with session.get(f"{api.url}/orders/ord_00001") as answer:
                statuses.append(answer.status)
                retry_after = answer.headers.get("Retry-After")
    assert 429 in statuses[1:]
    assert retry_after is None or 0 < int(retry_after) <= 60
