"""The API that workloads talk to. Answers are made once, then written as they are: it is never what is timed.

    python -m benchmarks.api --port 0

`/ITEMS-SIZE-DELAY/customers?page=N` is page N (from 1) of ITEMS customers in pages of SIZE, after DELAY milliseconds;
past the last page `data` is empty. `/ITEMS-SIZE-DELAY/customers/ID` is one of them.
"""

import argparse
import asyncio
import random
import signal
from urllib.parse import parse_qs

import orjson
import uvloop

NAMES = ("Amina", "Bjarne", "Chloé", "Dmitri", "Elif", "Femi", "Greta", "Hiro", "Ines", "Jomo")
FAMILIES = ("Abara", "Berg", "Costa", "Dufour", "Eriksen", "Fischer", "Gallo", "Haas")
PLACES = (("Bergen", "NO"), ("Faro", "PT"), ("Graz", "AT"), ("Lille", "FR"), ("Otaru", "JP"))
STATES = ("ACTIVE", "TRIAL", "SUSPENDED", "CLOSED")


def customer(number: int) -> bytes:
    """One customer of about 500 bytes of JSON, always the same for a number."""
    chance = random.Random(number)
    name, family = chance.choice(NAMES), chance.choice(FAMILIES)
    city, country = chance.choice(PLACES)
    return orjson.dumps(
        {
            "id": f"c{number:08d}",
            "firstName": name,
            "lastName": family,
            "email": f"{family.lower()}{number}@example.com",
            "status": chance.choice(STATES),
            "tags": chance.sample(["vip", "trade", "eu", "beta", "late"], chance.randint(1, 3)),
            "address": {
                "street": f"{chance.randint(1, 90)} Quay Street",
                "floor": f"Floor {chance.randint(1, 12)}",
                "city": city,
                "postcode": f"{chance.randint(10000, 99999)}",
                "country": country,
            },
            "createdAt": f"20{chance.randint(15, 25)}-0{chance.randint(1, 9)}-1{chance.randint(0, 9)}T08:30:00Z",
            "total": round(chance.uniform(0, 25000), 2),
            "currency": "EUR",
            "segment": f"segment-{chance.randint(1, 9)}",
            "note": "Taken over from the old billing system",
        }
    )


class Api:
    """All answers, by request target."""

    def __init__(self) -> None:
        self.customers: list[bytes] = []
        self.answers: dict[bytes, tuple[float, bytes]] = {}

    def answer(self, target: bytes) -> tuple[float, bytes]:
        """The delay in seconds, and the whole response."""
        found = self.answers.get(target)
        if found is None:
            found = self._made(target.decode())
            if len(self.answers) < 20_000:
                self.answers[target] = found
        return found

    def _made(self, target: str) -> tuple[float, bytes]:
        path, _, query = target.partition("?")
        _, shape, *rest = path.split("/")
        items, size, delay = (int(part) for part in shape.split("-"))
        while len(self.customers) < items:
            self.customers.append(customer(len(self.customers) + 1))
        if len(rest) == 2:
            body = self.customers[int(rest[1][1:]) - 1]
        else:
            page = int(parse_qs(query).get("page", ["1"])[0])
            rows = b",".join(self.customers[(page - 1) * size : min(page * size, items)])
            body = b'{"data":[%b],"page":%d,"total":%d}' % (rows, page, items)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        return delay / 1000, head + body


class Connection(asyncio.Protocol):
    def __init__(self, api: Api) -> None:
        self.api = api
        self.left = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        data = self.left + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            target = data.split(b" ", 2)[1]
            data = data[end + 4 :]
            delay, answer = self.api.answer(target)
            if delay:
                asyncio.get_running_loop().call_later(delay, self.write, answer)
            else:
                self.write(answer)
        self.left = data

    def write(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)


async def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, default=0)
    api = Api()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(api), "127.0.0.1", options.parse_args().port, backlog=1024)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(main())
