"""A small shop with customers and orders, to try missions against: pages, rate limits, failures on demand.

    python examples/api/server.py --port 8765

prints `ready http://127.0.0.1:8765` and answers this machine only. What it holds is made from numbers, so that two
starts hold the same. `GET /` lists what it answers; `POST /_control` makes it misbehave.
"""

import argparse
import asyncio
import json
import math
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

Record = dict[str, Any]

DEFAULT_PORT = 8765
TOKEN = "demo-token"  # what /secure/... wants to see
FIRST_DAY = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
GUIDE = {
    "GET /customers": "page & per_page, or offset & limit, or cursor & limit",
    "GET /customers/{id}": "one of them, with its address",
    "GET /customers/{id}/orders": "all of its orders",
    "GET /orders": "pages as above; modified_since, status",
    "GET /orders/{id}": "one of them",
    "POST /orders/{id}/notes": 'body {"text": …}; the same Idempotency-Key twice makes one note',
    "GET /orders/{id}/notes": "its notes",
    "/secure/...": f"all of that for those with the token {TOKEN}",
    "POST /_alerts, GET /_alerts": "takes any JSON, shows what it took",
    "POST /_control": "fail, times, path, method | hold, at | release | latency_ms | rate_limit | touch",
    "POST /_control/reset": "as after a start",
    "GET /_stats": "how many requests each path saw",
}


# --- what the shop holds ----------------------------------------------------------------------------------------------

_FORENAMES = ("Ada", "Bo", "Chidi", "Dana", "Emre", "Femi", "Greta", "Hana", "Ivo", "Jun", "Kaya")
_SURNAMES = ("Abel", "Brandt", "Costa", "Duval", "Eriksen", "Farkas", "Greco", "Haas", "Ito", "Jansen", "Kowal", "Lind")
_TOWNS = (("Bergen", "NO"), ("Porto", "PT"), ("Graz", "AT"), ("Ghent", "BE"), ("Turku", "FI"))
_GOODS = (("kettle", 39.9), ("lamp", 24.5), ("chair", 89.0), ("rug", 120.0), ("mug", 8.25), ("clock", 31.4))
_STATUSES = ("open", "paid", "shipped", "delivered")


def text_of(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def customer(number: int) -> Record:
    name = f"{_FORENAMES[number % len(_FORENAMES)]} {_SURNAMES[number % len(_SURNAMES)]}"
    town, country = _TOWNS[number % len(_TOWNS)]
    return {
        "id": f"cust_{number:04d}",
        "name": name,
        "email": f"{name.lower().replace(' ', '.')}.{number}@shop.example",
        "tier": "gold" if number % 10 == 1 else "standard",
        "active": number % 7 != 0,
        "address": {"street": f"{number} Harbour Road", "town": town, "country": country},
        "created_at": text_of(FIRST_DAY + timedelta(hours=number)),
    }


def order(number: int, customers: int) -> Record:
    goods, price = _GOODS[number % len(_GOODS)]
    quantity = 1 + number % 4
    placed = text_of(FIRST_DAY + timedelta(minutes=7 * number))
    return {
        "id": f"ord_{number:05d}",
        # Real data is never clean: each hundredth order has lost its customer.
        "customer_id": None if number % 100 == 0 else f"cust_{1 + number * 13 % customers:04d}",
        "status": _STATUSES[number % len(_STATUSES)],
        "lines": [{"sku": goods, "quantity": quantity, "unit_price": price}],
        "total": round(quantity * price, 2),
        "currency": "EUR",
        "placed_at": placed,
        "modified_at": placed,
    }


@dataclass
class Shop:
    """All that the server holds; `reset` makes it anew."""

    customer_count: int = 250
    order_count: int = 600
    customers: dict[str, Record] = field(default_factory=dict)
    orders: dict[str, Record] = field(default_factory=dict)
    notes: dict[str, list[Record]] = field(default_factory=dict)
    notes_by_key: dict[str, Record] = field(default_factory=dict)
    alerts: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.customers = {c["id"]: c for c in map(customer, range(1, self.customer_count + 1))}
        self.orders = {o["id"]: o for o in (order(n, self.customer_count) for n in range(1, self.order_count + 1))}
        self.notes, self.notes_by_key, self.alerts = {}, {}, []

    def touch(self, count: int) -> list[str]:
        """Change the orders that were changed longest ago, as if somebody had worked on them now."""
        oldest = sorted(self.orders.values(), key=lambda o: (o["modified_at"], o["id"]))[:count]
        for found in oldest:
            status = _STATUSES[(_STATUSES.index(found["status"]) + 1) % len(_STATUSES)]
            self.orders[found["id"]] = {**found, "status": status, "modified_at": text_of(datetime.now(UTC))}
        return [found["id"] for found in oldest]

    def add_note(self, order_id: str, text: str, key: str | None) -> tuple[Record, bool]:
        """The note, and whether it is new: a key that was seen before answers what it answered then."""
        if key and key in self.notes_by_key:
            return self.notes_by_key[key], False
        notes = self.notes.setdefault(order_id, [])
        note = {"id": f"{order_id}-note-{len(notes) + 1}", "order_id": order_id, "text": text}
        notes.append(note)
        if key:
            self.notes_by_key[key] = note
        return note, True


# --- how it misbehaves ------------------------------------------------------------------------------------------------


@dataclass
class Fault:
    """What happens to the next requests of a path: a status, or a word of `FAULTS`."""

    what: str
    path: str = "/"
    method: str = ""
    times: int = 1
    retry_after: float | None = None

    def takes(self, request: web.Request) -> bool:
        """Whether this request is one of them; counts it."""
        fits = request.path.startswith(self.path) and self.method in ("", request.method)
        if not fits or self.times <= 0:
            return False
        self.times -= 1
        return True


FAULTS = ("garbage", "html", "silence", "reset", "cut")


@dataclass
class Hold:
    """Lets the `at`-th next request of a path wait until it is released; `reached` tells that it came."""

    path: str
    at: int = 1
    method: str = ""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def takes(self, request: web.Request) -> bool:
        if self.at > 0 and request.path.startswith(self.path) and self.method in ("", request.method):
            self.at -= 1
            return self.at == 0
        return False


@dataclass
class Mood:
    """How the server treats its callers just now."""

    faults: list[Fault] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    latency_seconds: float = 0.0
    rate_limit: int = 0  # requests a minute; 0: none
    seen: Counter[str] = field(default_factory=Counter)
    requests: list[Record] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    on_reached: Callable[[], None] = lambda: None
    _window: tuple[int, int] = (0, 0)

    def reset(self) -> None:
        self.release()
        self.faults, self.holds, self.requests = [], [], []
        self.latency_seconds, self.rate_limit, self._window = 0.0, 0, (0, 0)
        self.seen.clear()

    def release(self) -> None:
        for hold in self.holds:
            hold.released.set()

    def count(self, limit: int) -> tuple[int, int]:
        """Requests left in this minute, and seconds to the next."""
        minute, second = divmod(time.time(), 60)
        start, used = self._window
        used = used + 1 if start == int(minute) else 1
        self._window = int(minute), used
        return limit - used, 60 - int(second)


SHOP = web.AppKey("shop", Shop)
MOOD = web.AppKey("mood", Mood)


@web.middleware
async def misbehave(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    """Count the request, then hold, delay, refuse or spoil it as the mood says."""
    if request.path.startswith("/_"):
        response: web.StreamResponse = await handler(request)
        return response
    mood = request.app[MOOD]
    mood.seen[request.path] += 1
    mood.requests.append({"method": request.method, "path": request.path, "query": dict(request.query)})
    for hold in mood.holds:
        if hold.takes(request):
            hold.reached.set()
            mood.on_reached()
            await hold.released.wait()
    if mood.latency_seconds:
        await asyncio.sleep(mood.latency_seconds)
    headers = {}
    if mood.rate_limit:
        left, seconds = mood.count(mood.rate_limit)
        headers = {
            "X-RateLimit-Limit": str(mood.rate_limit),
            "X-RateLimit-Remaining": str(max(0, left)),
            "X-RateLimit-Reset": str(math.ceil(time.time()) + seconds),
        }
        if left < 0:
            headers["Retry-After"] = str(seconds)
            return failure(429, "rate limit reached", headers)
    for fault in mood.faults:
        if fault.takes(request):
            return await spoiled(request, fault)
    response = await handler(request)
    response.headers.update(headers)
    return response


async def spoiled(request: web.Request, fault: Fault) -> web.StreamResponse:
    """The answer that a fault gives instead of ours."""
    if fault.what == "silence":
        await request.app[MOOD].stopping.wait()
        return web.Response(status=503)
    if fault.what == "reset":
        assert request.transport is not None
        # Closed without lingering, a connection ends with a reset instead of a goodbye.
        request.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        request.transport.abort()
        return web.Response(status=500)
    if fault.what == "garbage":
        return web.Response(text='{"orders": [{"id": "ord_', content_type="application/json")
    if fault.what == "html":
        return web.Response(text="<html><body>Down for maintenance</body></html>", content_type="text/html")
    if fault.what == "cut":
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"orders": [')
        assert request.transport is not None
        request.transport.close()
        return response
    headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
    return failure(int(fault.what), f"made to fail with {fault.what}", headers)


def failure(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": message, "status": status}, status=status, headers=headers)


# --- what it answers --------------------------------------------------------------------------------------------------


def page_of(request: web.Request, name: str, records: Iterable[Record]) -> web.Response:
    """One page in the manner that the query asks for: page number, offset or cursor. 50 records unless told."""
    query, found = request.query, list(records)
    if "cursor" in query or ("limit" in query and "offset" not in query):
        size, start = number(query.get("limit"), 50), number(query.get("cursor") or None, 0)
        more = start + size < len(found)
        return web.json_response(
            {name: found[start : start + size], "next_cursor": str(start + size) if more else None}
        )
    if "offset" in query:
        size, start = number(query.get("limit"), 50), number(query["offset"], 0)
        return web.json_response({name: found[start : start + size], "total": len(found), "offset": start})
    size, page = max(1, number(query.get("per_page"), 50)), max(1, number(query.get("page"), 1))
    pages = math.ceil(len(found) / size)
    return web.json_response(
        {name: found[(page - 1) * size : page * size], "page": page, "pages": pages, "total": len(found)}
    )


def number(text: str | None, default: int) -> int:
    if text is None:
        return default
    try:
        return max(0, int(text))
    except ValueError:
        raise web.HTTPBadRequest(text=json.dumps({"error": f"'{text}' is no number"})) from None


routes = web.RouteTableDef()


@routes.get("/")
async def guide(_: web.Request) -> web.Response:
    return web.json_response(GUIDE)


@routes.get("/customers")
async def customers(request: web.Request) -> web.Response:
    # A list shows less than the record itself, as lists do; the address is in /customers/{id}.
    listed = ({k: v for k, v in c.items() if k != "address"} for c in request.app[SHOP].customers.values())
    return page_of(request, "customers", listed)


@routes.get("/customers/{id}")
async def one_customer(request: web.Request) -> web.Response:
    return one(request.app[SHOP].customers, request.match_info["id"])


@routes.get("/customers/{id}/orders")
async def orders_of_customer(request: web.Request) -> web.Response:
    shop, wanted = request.app[SHOP], request.match_info["id"]
    if wanted not in shop.customers:
        return failure(404, f"there is no {wanted}")
    return web.json_response({"orders": [o for o in shop.orders.values() if o["customer_id"] == wanted]})


@routes.get("/orders")
async def orders(request: web.Request) -> web.Response:
    found: Iterable[Record] = request.app[SHOP].orders.values()
    if since := request.query.get("modified_since"):
        try:
            instant = datetime.fromisoformat(since)
        except ValueError:
            return failure(400, f"modified_since is no instant: {since}")
        earliest = text_of((instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC))
        found = [o for o in found if o["modified_at"] >= earliest]
    if status := request.query.get("status"):
        found = [o for o in found if o["status"] == status]
    return page_of(request, "orders", found)


@routes.get("/orders/{id}")
async def one_order(request: web.Request) -> web.Response:
    return one(request.app[SHOP].orders, request.match_info["id"])


def one(records: dict[str, Record], wanted: str) -> web.Response:
    found = records.get(wanted)
    return web.json_response(found) if found else failure(404, f"there is no {wanted}")


@routes.get("/orders/{id}/notes")
async def notes(request: web.Request) -> web.Response:
    return web.json_response({"notes": request.app[SHOP].notes.get(request.match_info["id"], [])})


@routes.post("/orders/{id}/notes")
async def add_note(request: web.Request) -> web.Response:
    shop, wanted = request.app[SHOP], request.match_info["id"]
    if wanted not in shop.orders:
        return failure(404, f"there is no {wanted}")
    body = await request.json()
    if not isinstance(body, dict) or not isinstance(body.get("text"), str):
        return failure(422, "a note has a text")
    note, new = shop.add_note(wanted, body["text"], request.headers.get("Idempotency-Key"))
    return web.json_response(note, status=201 if new else 200)


@routes.post("/_alerts")
async def take_alert(request: web.Request) -> web.Response:
    request.app[SHOP].alerts.append(await request.json())
    return web.json_response({"taken": len(request.app[SHOP].alerts)}, status=202)


@routes.get("/_alerts")
async def alerts(request: web.Request) -> web.Response:
    return web.json_response({"alerts": request.app[SHOP].alerts})


@routes.get("/_stats")
async def stats(request: web.Request) -> web.Response:
    shop, mood = request.app[SHOP], request.app[MOOD]
    return web.json_response(
        {
            "requests": sum(mood.seen.values()),
            "paths": dict(mood.seen),
            "notes": sum(map(len, shop.notes.values())),
            "idempotency_keys": len(shop.notes_by_key),
            "alerts": len(shop.alerts),
            "held": sum(hold.reached.is_set() and not hold.released.is_set() for hold in mood.holds),
        }
    )


@routes.post("/_control")
async def control(request: web.Request) -> web.Response:
    """Any of: fail, hold, release, latency_ms, rate_limit, touch."""
    wish = await request.json()
    shop, mood = request.app[SHOP], request.app[MOOD]
    path, method = wish.get("path", "/"), wish.get("method", "").upper()
    if "fail" in wish:
        what = str(wish["fail"])
        if what not in FAULTS and not (what.isdigit() and 400 <= int(what) <= 599):
            return failure(422, f"fail is one of {', '.join(FAULTS)} or a status from 400 to 599")
        mood.faults.append(Fault(what, path, method, int(wish.get("times", 1)), wish.get("retry_after")))
    if "hold" in wish:
        mood.holds.append(Hold(str(wish["hold"]), int(wish.get("at", 1)), method))
    if wish.get("release"):
        mood.release()
    mood.latency_seconds = float(wish.get("latency_ms", mood.latency_seconds * 1000)) / 1000
    mood.rate_limit = int(wish.get("rate_limit", mood.rate_limit))
    touched = shop.touch(int(wish.get("touch", 0)))
    return web.json_response({"ok": True, "touched": touched})


@routes.post("/_control/reset")
async def reset(request: web.Request) -> web.Response:
    request.app[SHOP].reset()
    request.app[MOOD].reset()
    return web.json_response({"ok": True})


# --- the server -------------------------------------------------------------------------------------------------------


@web.middleware
async def guard(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    """`/secure/...` wants the token."""
    if request.path.startswith("/secure/") and request.headers.get("Authorization") != f"Bearer {TOKEN}":
        return failure(401, "a valid token is needed", {"WWW-Authenticate": "Bearer"})
    response: web.StreamResponse = await handler(request)
    return response


def make_app(shop: Shop, mood: Mood, *, touch_every_seconds: float = 0.0) -> web.Application:
    """The shop as an application of aiohttp; with `touch_every_seconds` an order changes so often."""
    app = web.Application(middlewares=[misbehave, guard])
    app[SHOP], app[MOOD] = shop, mood
    app.add_routes(routes)
    for route in routes:
        if isinstance(route, web.RouteDef) and not route.path.startswith("/_"):
            app.router.add_route(route.method, "/secure" + route.path, route.handler)

    async def stop_waiting(_: web.Application) -> None:
        mood.release()
        mood.stopping.set()

    async def stay_busy(_: web.Application) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(keep_touching(shop, touch_every_seconds))
            yield
            task.cancel()

    app.on_shutdown.append(stop_waiting)
    if touch_every_seconds:
        app.cleanup_ctx.append(stay_busy)
    return app


async def keep_touching(shop: Shop, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        shop.touch(1)


async def start(app: web.Application, port: int) -> tuple[web.AppRunner, str]:
    """Answer this machine's requests; the runner to clean up, and the address."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def serve(port: int, shop: Shop, mood: Mood, touch_every_seconds: float) -> None:
    try:
        runner, url = await start(make_app(shop, mood, touch_every_seconds=touch_every_seconds), port)
    except OSError as error:
        sys.exit(f"cannot listen on 127.0.0.1:{port}: {error.strerror}")
    try:
        print(f"ready {url}", flush=True)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description="A small shop to try missions against.")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0: any free one (default: %(default)s)")
    parser.add_argument("--customers", type=int, default=250)
    parser.add_argument("--orders", type=int, default=600)
    parser.add_argument("--latency-ms", type=float, default=0.0, help="added to every answer")
    parser.add_argument("--rate-limit", type=int, default=0, help="requests a minute; 0: none")
    parser.add_argument("--touch-every", type=float, default=0.0, metavar="SECONDS", help="change an order so often")
    args = parser.parse_args()
    mood = Mood(latency_seconds=args.latency_ms / 1000, rate_limit=args.rate_limit)
    try:
        asyncio.run(serve(args.port, Shop(args.customers, args.orders), mood, args.touch_every))
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
