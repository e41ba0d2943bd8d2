"""What APIs may answer, end to end: odd JSON is stored exactly or refused by name; no answer leads us anywhere."""

import asyncio
import json
import math
from typing import Any

import pytest

from reqon.clock import SYSTEM
from reqon.values import decode
from reqon.webhooks.server import WebhookServer
from tests.support.missions import Bench, mission
from tests.support.servers import ScriptedServer, reply
from tests.support.webhooks import call

BIG = 2**53 + 1
# Text -> what it is, or None: it must be refused. Compared by Python's own reader where it is taken.
TAKEN = [
    "1", "-0", "0.1", "1e3", "1E-7", "-1.5e+10", "1e308", "5e-324", "123456789012345678901234567890", f"{BIG}",
    f"-{2**63 - 1}", str(2**63), str(2**64), str(-(2**63) - 1), "9" * 399, "0.30000000000000004", "1.0", "100.0",
    "true", "false", "null", '""', '"a"', '"\\u0000"', '"\\ud83d\\ude00"', '"\U0001f600"', '"\\n\\t\\\\\\/"', '"é"',
    '"e\\u0301"', '"\\u2028\\u2029"', '"\\u001b[31m"', '"../../etc/passwd"', '"' + "x" * 100_000 + '"', '"\ufeff"',
    "[]", "{}", "[[]]", "[1, [2, [3]]]", "[" * 200 + "]" * 200, '{"a": {"b": {"c": 1}}}', '{"": 1}', '{"a b": 1}',
    '{"__proto__": {"x": 1}}', '{"constructor": 1}', '{"a": 1, "a": 2}', '{"\\u0061": 1}', '{"id": null}',
    '{"$ref": "#/x"}', '{"_partial": true}', '{"items_": [1]}', '{"a.b": 1}', "  [ 1 , 2 ]  ", "[1,\r\n2]", '["\x7f"]',
]  # fmt: skip
REFUSED = [
    "NaN", "Infinity", "-Infinity", "1e999", "01", "1.", ".5", "+1", "0x10", "1_000", "9" * 401, "[1,]", "{'a': 1}",
    '{"a": 1,}', '"\\ud800"', '"\\udc00x"', '"\x01"', '"\t"', "undefined", "", "[", '{"a"', "[1] [2]", "\u00a01",
    "[" * 251 + "]" * 251, "[" * 100_000, '{"a":' * 300 + "1" + "}" * 300, "nul", "//\n1", '"\\x41"',
]  # fmt: skip


def test_there_are_sixty_documents_and_more() -> None:
    """N2"""
    assert len(TAKEN) + len(REFUSED) >= 60


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same kind: 1 is not true, and a float is not an integer."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return type(one) is type(other) and bool(one == other)


async def test_an_odd_document_is_stored_exactly(api: ScriptedServer, bench: Bench) -> None:
    """N2, R10: what is taken can be stored, and is the same afterwards, in memory and on disk."""
    stores = 'store kept: file("kept")'
    for number, text in enumerate(TAKEN):
        api.on("/x", reply(body=f'{{"v": {text}}}'.encode()))
        steps = f'get "/x"\nstore {{ id: "{number}", v: response.v }} -> kept\nstore response -> out {{ key: "k" }}'
        ran = (await bench.run(mission(steps, stores=stores))).ok()
        expected = json.loads(text)
        assert same(ran.out["k"]["v"], expected), text[:80]
        assert same(ran.stores["kept"][str(number)]["v"], expected), text[:80]
    whole = decode((bench.state / "stores" / "kept.json").read_bytes())
    assert len(whole) == len(TAKEN)


async def test_a_document_that_is_no_json_is_refused_by_name(api: ScriptedServer, bench: Bench) -> None:
    """N2"""
    for text in REFUSED:
        api.on("/x", reply(body=b'{"v": ' + text.encode() + b"}"))
        ran = await bench.run(mission('get "/x"\nstore response -> out { key: "k" }'))
        assert (ran.error.type, ran.out) == ("parse", {}), text[:80]
        assert len(ran.error.message) < 1000 and "/x" in ran.error.message


METADATA = [
    "169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "0xA9.0xFE.0xA9.0xFE",
    "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[fd00:ec2::254]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]",
    "169.254.169.254.",
]  # fmt: skip


@pytest.mark.parametrize("host", METADATA)
async def test_no_data_no_link_and_no_cursor_leads_to_the_metadata_address(
    api: ScriptedServer, bench: Bench, host: str
) -> None:
    """N3: twelve spellings, by a URL in the data, a next link in the body, a Link header, and a redirect of a page."""
    url = f"http://{host}/latest/meta-data"
    api.on("/data", reply(data={"url": url}))
    api.on("/body", reply(data={"items": [1], "next": url}))
    api.on("/link", reply(data=[1], headers={"Link": f'<{url}>; rel="next"'}))
    api.on("/moved", reply(302, body=b"", headers={"Location": url}))
    ways = {
        "data": ('get "/data"\nget response.url', ("origin_blocked", "bad_path")),
        "body": ('get "/body" { paginate: cursor(after, 1, "next") }', ("pagination",)),
        "link": ('get "/link" { paginate: link() }', ("pagination",)),
        "moved": ('get "/moved"', ("origin_blocked", "bad_path")),
    }
    for name, (steps, kinds) in ways.items():
        ran = await bench.run(mission(steps))
        assert ran.error.type in kinds, (name, ran.error.message)
    assert {seen.path for seen in api.seen} == {"/data", "/body", "/link", "/moved"}


async def test_no_webhook_leads_to_the_metadata_address(api: ScriptedServer, bench: Bench) -> None:
    """N3: the same spellings, by what a webhook brings."""
    async with WebhookServer(port=0) as server:
        bench.webhooks, bench.clock = server, SYSTEM
        for number, host in enumerate(METADATA):
            path = f"/hook/{number}"
            steps = f'wait {{ path: "{path}", timeout: 60000 }}\nget response.url'
            async with asyncio.TaskGroup() as group:
                run = group.create_task(bench.run(mission(steps)))
                while not server.desk.endpoints():
                    await asyncio.sleep(0.01)
                said = await call(f"{server.url}{path}", {"url": f"http://{host}/latest/meta-data"})
            assert said.status == 200 and run.result().error.type in ("origin_blocked", "bad_path")
    assert api.seen == []


NUMBERS = [
    "9" * 16, "9" * 400, "1e999", "-1", "nan", "", "1.5", "\xb2", "Thu, 01 Jan 99999 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 GMT", '"a";r=9;t=9, "b";r=8;t=9999999999999999',
]  # fmt: skip
HEADERS = [
    "Retry-After", "Date", "RateLimit", "RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Link"
]  # fmt: skip


@pytest.mark.parametrize("statuses", [[429], [200, 503]])
@pytest.mark.parametrize("header", HEADERS)
async def test_no_number_in_a_header_is_too_much(
    api: ScriptedServer, bench: Bench, header: str, statuses: list[int]
) -> None:
    """N1: whatever a header says, with whatever status, the answer is one of its status."""
    steps = f"""for status in {statuses} {{
      get "/{{status}}"
      match response {{ {{ error: _, code: c }} -> store {{ id: concat("s", c) }} -> out, _ -> continue }}
    }}"""
    text = mission(steps, source=", rateLimit: { requestsPerMinute: 6000, maxWait: 2000 }")
    for number, value in enumerate(NUMBERS):
        bench.state = bench.state.with_name(f"{number}")  # nothing is remembered of the one before
        for status in statuses:
            more = {"X-RateLimit-Remaining": "0"} if "Reset" in header else {}
            api.on(f"/{status}", reply(status, data=[{"id": number}], headers={**more, header: value}))
        ran = await bench.run(text)
        assert [(error.type, error.message) for error in ran.record.errors] == [], value
        assert set(ran.out) <= {"s0", "s429", "s503"}


KEYS = [
    123456789012345678901234567890, 123456789012345678901234567891, 2**53, 2**53 + 1, 1, '"1"', "1.0", "01", "Ada",
    "ada", "\u00e9", "e\u0301", "__proto__", "constructor", "toString", " ", "a/b", "a\\b", "%61", "\u0001",
    "\U0001f600",
]  # fmt: skip


async def test_records_with_keys_that_look_alike_never_merge(api: ScriptedServer, bench: Bench) -> None:
    """R10: from the API's answer to memory, a file and a table, and back."""
    api.on("*", reply(data=[{"id": key, "n": n} for n, key in enumerate(KEYS)]))
    stores = 'store file: file("file")\nstore table: sql("table")'
    steps = """get "/x"
      store response -> out
      store response -> file
      store response -> table
      for r in response { store { ...file[r.id], same: file[r.id].n == r.n and table[r.id].n == r.n } -> out }"""
    ran = (await bench.run(mission(steps, stores=stores))).ok()
    assert list(ran.out) == list(ran.stores["file"]) == [str(key) for key in KEYS]
    assert [record["n"] for record in ran.out.values()] == list(range(len(KEYS)))
    assert all(record["same"] for record in ran.out.values())


ODD = [
    "../x",
    "..%2fx",
    "a?b=1",
    "a#b",
    "a b",
    "a\r\nX: y",
    "a\0b",
    "ü",
    "\u2028",
    "%2e%2e",
    "a/b",
    "a\\b",
    "a;b",
    "a&b=c",
]


@pytest.mark.parametrize("value", ODD)
async def test_an_odd_value_stays_where_it_was_put(api: ScriptedServer, bench: Bench, value: str) -> None:
    """N4: in path, query, header, key: one request as it was meant or a named error, never another request or file."""
    api.on("*", reply(data={"ok": True}))
    bench.environment = {"VALUE": value}
    let = 'let v = env("VALUE")\n'
    by_path = await bench.run(mission(let + 'get "/in/{v}/end"'))
    if by_path.record.errors:
        assert by_path.error.type == "bad_path"
    else:
        (seen,) = api.seen
        parts = seen.path.split("/")
        assert parts[1] == "in" and parts[-1] == "end" and len(parts) == 4 and ".." not in parts
    api.seen.clear()
    (await bench.run(mission(let + 'get "/q" { params: { v: v } }'))).ok()
    assert api.seen[0].query == {"v": value} and api.seen[0].path == "/q" and len(api.seen) == 1
    api.seen.clear()
    by_header = await bench.run(mission(let + 'get "/h" { headers: { "X-V": v } }'))
    if by_header.record.errors:
        assert by_header.error.type == "bad_header" and api.seen == []
    else:
        assert "y" not in api.seen[0].headers and api.seen[0].raw.count(b"\r\n\r\n") == 1
    stored = await bench.run(mission(let + "store { v: v } -> kept { key: v }", stores='store kept: file("kept")'))
    assert stored.ok().stores["kept"][value] == {"v": value}
    assert sorted(p.name for p in (bench.state / "stores").iterdir() if p.suffix == ".json") == ["kept.json"]
