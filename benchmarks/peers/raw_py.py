"""The limit: a workload written by hand, with nothing that is not needed. No retries, no state, no checks of answers.

python benchmarks/peers/raw_py.py w2 --url http://127.0.0.1:8799/10000-100-0 --store json --out DIR --at-once 8
"""

import argparse
import os

import orjson

STATES = {"ACTIVE": "active", "TRIAL": "trial", "SUSPENDED": "on-hold"}


def normal(c):
    result = {
        "id": c["id"],
        "name": c["firstName"] + " " + c["lastName"],
        "label": c["lastName"] + ", " + c["firstName"] + " <" + c["email"] + ">",
        "state": STATES.get(c["status"], "closed"),
        "place": c["address"]["city"] + " (" + c["address"]["country"] + ")",
        "tagCount": len(c["tags"]),
        "cents": round(c["total"] * 100),
        "bigSpender": c["total"] > 20000 and c["status"] == "ACTIVE",
    }
    assert len(result["id"]) == 9 and result["cents"] >= 0 and result["tagCount"] > 0 and len(result["name"]) > 3
    return result


def keep(stores, work, rows):
    for row in rows:
        stores["customers"][row["id"]] = row
        if work in ("w2", "w3"):
            stores["normalized"][row["id"]] = normal(row)


def write(stores, folder):
    """Each store one file, put in place whole, safe from a power loss."""
    os.makedirs(folder, exist_ok=True)
    for name, rows in stores.items():
        path = os.path.join(folder, name + ".json")
        with open(path + ".new", "wb") as file:
            file.write(orjson.dumps(rows))
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".new", path)


async def work(options, stores):
    import asyncio

    import aiohttp

    async def get(path):
        async with session.get(options.url + path) as response:
            return orjson.loads(await response.read())

    async def worker(todo):
        for one in todo:
            if options.work == "w4":
                stores["details"][one] = await get(f"/customers/{one}")
            else:
                keep(stores, options.work, (await get(f"/customers?page={one}"))["data"])

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=options.at_once)) as session:
        if options.work == "w4":
            keep(stores, "w4", (await get("/customers"))["data"])
            todo = iter(list(stores["customers"]))
        else:
            todo = iter(range(1, options.pages + 1))
        await asyncio.gather(*(worker(todo) for _ in range(options.at_once)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["w1", "w2", "w3", "w4", "w5"])
    parser.add_argument("--url")
    parser.add_argument("--pages", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--store", choices=["json", "memory"], default="memory")
    parser.add_argument("--out", default="out")
    options = parser.parse_args()
    if options.work == "w5":
        return
    import uvloop

    stores = {"customers": {}, "normalized": {}, "details": {}}
    uvloop.run(work(options, stores))
    if options.store == "json":
        write({name: rows for name, rows in stores.items() if rows}, options.out)


if __name__ == "__main__":
    main()
