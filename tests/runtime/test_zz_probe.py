import asyncio, json
from typing import Any
import pytest
from reqon.diagnostics import Source
from reqon.lang.loader import load_text
from tests.support.missions import Bench, mission
from tests.support.servers import ScriptedServer, redirect, reply
from tests.runtime.conftest import *
from tests.runtime.test_request_rules import findings

async def count(api, bench, steps, **k):
    api.seen.clear()
    ran = await bench.run(mission(steps, **k))
    return ran, len(api.seen)

@pytest.mark.parametrize(("status","times"), [(408,3),(425,3),(429,3),(400,1),(404,1),(409,1),(500,3),(501,1),(502,3),(503,3),(504,3),(505,1),(507,3),(511,3),(599,3)])
async def test_retry_status(status, times, api, bench):
    api.on("*", reply(status, data={}))
    ran, n = await count(api, bench, 'get "/x" { retry: { maxAttempts: 3 } }')
    assert n == times, ran.error

async def test_default_retry(api, bench):
    api.on("*", reply(500, data={}))
    text = mission('get "/x"').replace(", retry: { maxAttempts: 1 }", "")
    ran = await bench.run(text)
    assert len(api.seen) == 3
    print(bench.clock.slept)
    api.seen.clear()
    await bench.run(mission('get "/x" { retry: { delay: 5 } }', source="").replace("maxAttempts: 1", "maxAttempts: 4, backoff: linear"))
    assert len(api.seen) == 4
    print(bench.clock.slept)

@pytest.mark.parametrize(("status","times"), [(429,3),(503,3),(500,1),(502,1),(504,1),(408,1),(425,1)])
@pytest.mark.parametrize("method", ["post", "patch"])
async def test_post_default(method, status, times, api, bench):
    api.on("*", reply(status, data={}))
    text = mission(f'{method} "/x" {{ body: 1 }}').replace(", retry: { maxAttempts: 1 }", "")
    await bench.run(text)
    assert len(api.seen) == times
    api.seen.clear()
    await bench.run(mission(f'{method} "/x" {{ body: 1 }}').replace("maxAttempts: 1", "maxAttempts: 3"))
    assert len(api.seen) == times, "a source's retry is no consent"
    api.seen.clear()
    await bench.run(mission(f'{method} "/x" {{ body: 1 }}', source=", idempotencyKey: true").replace("maxAttempts: 1", "maxAttempts: 3"))
    assert len(api.seen) == 3
    assert len({s.headers["idempotency-key"] for s in api.seen}) == 1
    for m in ("put", "delete"):
        api.seen.clear()
        await bench.run(mission(f'{m} "/x" {{ body: 1 }}').replace("maxAttempts: 1", "maxAttempts: 3"))
        assert len(api.seen) == 3

async def test_idem_header(api, bench):
    api.on("*", reply(data={}))
    await bench.run(mission('post "/x" { body: 1, headers: { "idem": "mine" } }\nget "/y"\npost "/z"', source=', idempotencyKey: "Idem"'))
    print([s.headers.get("idem") for s in api.seen])

@pytest.mark.parametrize("bad", ["maxAttempts: 0", "maxAttempts: 101", "maxAttempts: 1.5", "jitter: 2", "jitter: -1", "initialDelay: -1", 'backoff: "weird"', "delay: -5"])
def test_retry_options(bad):
    assert findings('auth: none, base: "https://h", retry: { %s }' % bad) , bad
    print(bad, findings('auth: none, base: "https://h", retry: { %s }' % bad), findings('auth: none, base: "https://h"', 'get "/x" { retry: { %s } }' % bad))

async def test_envelope(api, bench):
    api.on("*", reply(404, data={"message": "gone", "code": "E1", "x": 1}))
    r = await bench.run(mission('get "/x"\nmatch response { { code: 404, error: e } -> store { id: 1, e: e, c: response.code, bc: response.body.code, x: response.x, k: response.kind, h: response.headers["content-type"], ra: response.retryAfter } -> out }'))
    print(r.ok().out)
    api.on("*", reply(429, data={}, headers={"Retry-After": "3"}))
    r = await bench.run(mission('get "/x"\nmatch response { { error: "rate_limit" } -> store { id: 1, c: response.code, k: response.kind, ra: response.retryAfter } -> out }'))
    print(r.ok().out)
    api.on("*", reply(500, body=b"<html>", content_type="text/html"))
    r = await bench.run(mission('get "/x"\nlet z = 1\nmatch response { { error: e } -> store { id: 1, e: e, b: response.body } -> out }'))
    print(r.ok().out)
    api.on("*", reply(404, data={"error": {"code": "x"}}))
    r = await bench.run(mission('get "/x"\nlet z = 1\nmatch { response.code == 404 -> store { id: 1, e: response.error } -> out }'))
    print(r.ok().out)
    api.on("*", reply(404, data=[1]))
    r = await bench.run(mission('get "/x"\nmatch response { { code: 404 } -> store { id: 1, e: response.error, b: response.body } -> out }'))
    print(r.ok().out)

@pytest.mark.parametrize("arm", ["_ -> continue", "_ -> store response -> out", "{ code: 500 } -> continue", "_ -> { store { id: 1 } -> out\n let q = 1 }"])
async def test_not_swallowed(arm, api, bench):
    api.on("*", reply(404, data={}))
    r = await bench.run(mission('get "/x"\nmatch response { %s }' % arm))
    assert r.error.type == "http" and r.error.status == 404
    print(r.error.location, r.error.step)

@pytest.mark.parametrize("arm", ['_ -> abort "x"', "_ -> skip", "_ -> queue out { item: {id: 9} }", "_ -> { let q = 1\n skip }", "_ -> jump B then continue"])
async def test_decides(arm, api, bench):
    api.on("*", reply(404, data={}), reply(data={}))
    r = await bench.run(mission('get "/x"\nmatch response { %s }' % arm, actions='action B { let q = 1 }'))
    print(arm, r.record.status, r.record.errors[:1])

async def test_jump_limit(api, bench):
    api.on("*", reply(401, data={}))
    r = await bench.run(mission('get "/x"\nmatch response { { code: 401 } -> jump B then retry, _ -> continue }', actions='action B { let q = 1 }'))
    print(len(api.seen), r.record.errors)

async def test_redirects(api, bench):
    async with ScriptedServer() as other:
        other.on("*", reply(data={"ok": 1}))
        api.on("/x", redirect(f"{other.url}/y"))
        text = mission('get "/x?a=1"', source=', apiKey: "kkkkkkkk", apiKeyQuery: "k", headers: { "X-S": "1" }').replace("auth: none", "auth: api_key")
        r = await bench.run(text)
        print(r.record.errors, other.targets, api.targets)
        text = text.replace('get "/x?a=1"', f'get "/x?a=1"\nget "{other.url}/lit"')
        r = await bench.run(text)
        print(r.record.errors, other.targets, [s.headers for s in other.seen])

async def test_headers_too_large(api, bench):
    api.on("*", reply(data={}, headers={f"X-{i}": "v"*3000 for i in range(30)}))
    r = await bench.run(mission('get "/x"'))
    print(r.error)
    api.on("*", reply(data=[1]*1000))
    r = await bench.run(mission('get "/x"', source=", maxResponseBytes: 100"))
    print(r.error)

async def test_skip_outside(api, bench):
    api.on("*", reply(404, data={}))
    r = await bench.run(mission('get "/x"\nmatch response { { code: 404 } -> skip }\nstore {id: 1} -> out', actions="action B { store {id: 2} -> out }", run="A then B"))
    print(r.ok().out, r.record.actions_run if hasattr(r.record, "actions_run") else "")
