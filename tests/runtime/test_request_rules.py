"""What spec/runtime.md 1 and 2 say of sources, requests and answers, where no other test says it already."""

from typing import Any

import pytest

from reqon.diagnostics import Source
from reqon.lang.loader import load_text
from tests.support.missions import Bench, mission
from tests.support.servers import ScriptedServer, redirect, reply


def findings(source: str, steps: str = 'get "/x"') -> list[str]:
    """The codes that the check reports of a mission with this source, worst first."""
    text = f"mission M {{ source S {{ {source} }} action A {{ {steps} }} run A }}"
    return [d.code for d in load_text(Source("t.vague", text)).all_diagnostics]


# --- sources ---------------------------------------------------------------------------------------------------------


async def test_a_base_keeps_its_path_and_loses_its_slashes(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data={}))
    text = mission('get "/x"\nget "y"').replace('env("API")', 'concat(env("API"), "/v3//")')
    (await bench.run(text)).ok()
    assert api.targets == ["/v3/x", "/v3/y"]


@pytest.mark.parametrize(
    "base", ["http://u:p@h/x", "http://h/x?a=1", "http://h/x#f", "ftp://h", "h/x", "/x", "http://", ""]
)
async def test_a_base_that_is_none_is_a_configuration_error_of_its_source(base: str, bench: Bench) -> None:
    bench.environment = {"B": base}
    ran = await bench.run(mission('get "/x"').replace('env("API")', 'env("B")'))
    assert ran.error.type == "config" and "Api" in ran.error.message and ran.outcome.errors[0].exit_code == 3


@pytest.mark.parametrize("auth", ["bearer", "basic", "api_key", "oauth2"])
def test_credentials_over_plain_http_are_warned_of_once(auth: str) -> None:
    source = f'auth: {auth}, base: "http://api.example.org"'
    assert findings(source, 'get "/x" get "/y"') == ["insecure-basic"]
    for own in ("127.0.0.1:80", "localhost:80", "[::1]:80"):
        assert findings(source.replace("api.example.org", own)) == []
    assert findings('auth: none, base: "http://api.example.org"') == []


async def test_options_of_a_source_are_expressions_of_constants_and_the_environment(
    api: ScriptedServer, bench: Bench
) -> None:
    api.on("*", reply(data={}))
    bench.environment = {"W": "a", "N": "2"}
    source = """, timeout: if env("W") == "a" then 5000 else 1,
        headers: {
          "X-A": match env("W") { "a" => "yes", _ => "no" }, "X-T": env("NOPE"), "X-N": concat("n", env("N")) }"""
    (await bench.run(mission('get "/x"', source=source))).ok()
    assert api.seen[0].headers["x-a"] == "yes" and api.seen[0].headers["x-n"] == "n2"
    assert "x-t" not in api.seen[0].headers
    assert findings("auth: none, base: response.x") == ["undefined-name"]


async def test_headers_of_a_source_are_evaluated_for_each_request(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data={}))
    source = ', headers: { "X-Id": concat("r-", uuid()), "X-Fix": concat("a", "b") }'
    (await bench.run(mission('for i in [1, 2] { get "/x" }', source=source))).ok()
    ids = [s.headers["x-id"] for s in api.seen]
    assert len(set(ids)) == 2 and all(one.startswith("r-") for one in ids)
    assert [s.headers["x-fix"] for s in api.seen] == ["ab", "ab"]


async def test_the_default_source_is_the_first_in_actions_reached_by_jump_too(
    api: ScriptedServer, bench: Bench
) -> None:
    api.on("*", lambda s: reply(404 if s.path == "/two/x" else 200, data={}))
    steps = 'get Two "/x"\nmatch response { { code: 404 } -> jump B then continue, _ -> continue }'
    two = 'source Two { auth: none, base: concat(env("API"), "/two") }'
    (await bench.run(mission(steps, declarations=two, actions='action B { get "/in-b" }'))).ok()
    assert api.targets == ["/two/x", "/in-b"]


def test_a_request_needs_a_source_that_is_declared() -> None:
    assert [d.code for d in load_text(Source("t", 'mission M { action A { get "/x" } run A }')).all_diagnostics] == [
        "no-source"
    ]
    assert findings('auth: none, base: "https://h"', 'get Q "/x"') == ["undefined-source"]


# --- paths and addresses ---------------------------------------------------------------------------------------------

LETS = """let p = "/raw/a%2fb"
    let u = "a&b=c"
    let q = "/a?b=c d?e"
    let n = 3.0"""


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ('concat("/repos/", "a/b c")', "/repos/a/b%20c"),
        ('concat(p, "/x")', "/raw/a%2fb/x"),
        ('"/x/{p}"', "/x/%2Fraw%2Fa%252fb"),
        ("p", "/raw/a%2fb"),
        ('"/x/" + 3 + "/" + true', "/x/3/true"),
        ('"/x/{n}"', "/x/3"),
        ('concat("/x/", pathSegments("a/b c?d"))', "/x/a/b%20c%3Fd"),
        ('"/x/{pathSegments(u)}"', "/x/a%26b%3Dc"),
        ('"/x?q={u}"', "/x?q=a%26b%3Dc"),
        ('"x"', "/x"),
        ('"/x/ü/%C3%BC/%zz"', "/x/%C3%BC/%C3%BC/%25zz"),
        ("q", "/a?b=c%20d?e"),
    ],
)
async def test_a_path_is_built_by_its_rule(path: str, target: str, api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data={}))
    (await bench.run(mission(f"{LETS}\nget {path}"))).ok()
    assert api.targets == [target]


@pytest.mark.parametrize(
    "path",
    [
        '"/x/{null}"', '"/x/{[1]}"', '"/x?q={null}"', '"/x/{e}"', "hash", "back", "relative", "n",
        '"/a/%2e%2e/b"', '"/a/../b"', 'concat("/a/", "../b")', '"/x/{up}"', '"/x/{admin}/scan"',
    ],
)  # fmt: skip
async def test_a_path_that_is_refused_is_told_at_its_step_and_can_be_matched(
    path: str, api: ScriptedServer, bench: Bench
) -> None:
    lets = 'let e = ""\nlet hash = "/a#b"\nlet back = "/a\\\\b"\nlet relative = "x"\nlet n = 3\nlet up = ".."\n'
    lets += 'let admin = "../admin"\n'
    ran = await bench.run(mission(f"{lets}get {path}"))
    error = ran.error
    assert (error.type, error.action, api.targets) == ("bad_path", "A", [])
    assert (
        error.location is not None and error.location.startswith("test.vague:") and (error.step or "").startswith("get")
    )
    ran = await bench.run(
        mission(f'{lets}get {path}\nmatch response {{ {{ kind: "bad_path" }} -> store {{ id: 1 }} -> out }}')
    )
    assert list(ran.ok().out) == ["1"]


async def test_another_origin_gets_nothing_of_the_source(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data={}))
    async with ScriptedServer() as other:
        other.on("*", reply(data={"id": 1}))
        bench.environment = {"OTHER": other.url}
        steps = 'get "/a"\nlet u = concat(env("OTHER"), "/b")\nget u'
        assert (await bench.run(mission(steps))).error.type == "origin_blocked"
        assert other.targets == []
        source = f"""allowOrigins: ["{other.url}"], token: "secret-1", headers: {{ "X-S": "1" }},
            circuitBreaker: {{ failureThreshold: 1 }}, rateLimit: {{ requestsPerMinute: 1, maxWait: 1000 }}"""
        bearing = mission(steps + "\nget u\nget u", source=", " + source).replace("auth: none", "auth: bearer")
        (await bench.run(bearing)).ok()
        assert len(other.seen) == 3, "neither the quota nor the breaker of the source holds it up"
        assert {"authorization", "x-s"} & set(other.seen[0].headers) == set()
        # What a text of the mission names needs no permission.
        (await bench.run(mission(f'get "{other.url}/written"'))).ok()
        assert other.targets[-1] == "/written"
        (await bench.run(mission(f'get "{api.url}/own"', source=', headers: { "X-S": "1" }'))).ok()
        assert api.seen[-1].headers["x-s"] == "1", "the source's own origin, written out, is an ordinary request"


@pytest.mark.parametrize("written", ["HTTPS://198.51.100.1", "https://198.51.100.1/", "https://198.51.100.1:443"])
async def test_an_origin_that_is_allowed_is_one_however_it_is_written(bench: Bench, written: str) -> None:
    steps = 'get concat("https://198.51.", "100.1/b")'
    assert "which is not the origin" in (await bench.run(mission(steps))).error.message
    bench.environment = {"CDN": written}
    ran = await bench.run(mission(steps, source=', allowOrigins: [env("CDN")]'))
    assert "a private address" in ran.error.message, "allowed; that nobody can be there is found next"
    bench.environment = {"CDN": f"{written.rstrip('/')}/files"}
    ran = await bench.run(mission(steps, source=', allowOrigins: [env("CDN")]'))
    assert (ran.error.type, ran.outcome.errors[0].exit_code) == ("config", 3)


# --- query, headers, body --------------------------------------------------------------------------------------------


async def test_later_parameters_replace_all_earlier_ones_of_their_name(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data=[]))
    steps = """let d = parseDate("2026-01-02")
      get "/x?a=1&b=2&b=3&page=9" {
        params: { b: 4, o: { k: [1, null] }, d: d, f: 1.50, big: 12345678901234567890, t: true, l: [], s: "ä +~" },
        body: { a: 5 }, paginate: page(page, 2)
      }"""
    (await bench.run(mission(steps))).ok()
    expected = "/x?b=4&o=%7B%22k%22%3A%5B1%2Cnull%5D%7D&d=2026-01-02T00%3A00%3A00.000Z&f=1.5&big=12345678901234567890"
    assert api.targets == [expected + "&t=true&s=%C3%A4%20%2B~&a=5&page=1"]


async def test_headers_are_sent_in_the_case_written_the_requests_own_on_top(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(401, data={}), reply(data={}))
    steps = """get "/x" { headers: {
        "accept": "text/plain", "X-L": [1, "b"], "User-Agent": null, "Authorization": "mine", "X-Null": null,
        "X-U": "é" } }"""
    source = ', token: "tok-secret", headers: { "x-l": "src", "X-Null": "gone" }'
    ran = await bench.run(mission(steps, source=source).replace("auth: none", "auth: bearer"))
    assert ran.error.status == 401 and len(api.seen) == 1, "a header of the mission's own switches the refresh off"
    lines = api.seen[0].raw.split(b"\r\n")[2:-2]
    assert lines == [
        b"accept: text/plain", b"Accept-Encoding: gzip, deflate, br", b"X-L: 1, b", b"Authorization: mine",
        b"X-U: \xc3\xa9",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-A", r'"a\nb"'), ("X-A", '"\\u20ac"'), ("X A", '"a"'), ("Host", '"h"'), ("content-length", "3"), ("X-A", "{}"),
     ("Transfer-Encoding", '"chunked"'), ("Connection", '"close"')],
)  # fmt: skip
async def test_a_header_that_must_not_be_sent_is_refused(
    name: str, value: str, api: ScriptedServer, bench: Bench
) -> None:
    ran = await bench.run(mission(f'get "/x" {{ headers: {{ "{name}": {value} }} }}'))
    assert ran.error.type == "bad_header" and api.targets == []


async def test_a_body_is_sent_whatever_it_is_and_on_every_page(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data=[{"id": 1}, {"id": 2}]), reply(data=[{"id": 3}]))
    (await bench.run(mission('post "/s" { body: 0, paginate: page(page, 2) }'))).ok()
    assert [s.body for s in api.seen] == [b"0", b"0"]
    api.on("*", reply(data={}))
    for body in ("false", '""', "null", "{}"):
        (await bench.run(mission(f'post "/s" {{ body: {body} }}'))).ok()
        assert api.seen[-1].body == body.encode() and api.seen[-1].headers["content-type"] == "application/json"
    (await bench.run(mission('post "/s"'))).ok()
    assert "content-type" not in api.seen[-1].headers
    assert findings('auth: none, base: "https://h"', 'get "/x" { body: { a: 1 } }') == ["get-with-body"]


@pytest.mark.parametrize(
    ("content_type", "body", "sent"),
    [
        ("text/plain", '"hü"', "hü".encode()),
        ("application/xml", '"<a/>"', b"<a/>"),
        ("application/x-www-form-urlencoded", '{ a: [1, 2], n: null, s: "x y&" }', b"a=1&a=2&s=x+y%26"),
        ("application/x-www-form-urlencoded", '"raw=1"', b"raw=1"),
        ("application/merge-patch+json", "{ a: 1 }", b'{"a":1}'),
        ("application/octet-stream", '"abc"', b"abc"),
        ("text/csv", "{ a: 1 }", None),
        ("application/octet-stream", "[1]", None),
    ],
)
async def test_a_body_is_written_as_its_content_type_says(
    content_type: str, body: str, sent: bytes | None, api: ScriptedServer, bench: Bench
) -> None:
    api.on("*", reply(data={}))
    ran = await bench.run(mission(f'post "/s" {{ headers: {{ "Content-Type": "{content_type}" }}, body: {body} }}'))
    if sent is None:
        assert ran.error.type == "eval" and api.seen == []
    else:
        assert (ran.ok(), api.seen[0].body, api.seen[0].headers["content-type"])[1:] == (sent, content_type)


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (reply(body=b'{"a":1}', content_type=None), {"a": 1}),
        (reply(body=b'{"a":1}\n\n{"a":2}\n', content_type="application/x-ndjson"), [{"a": 1}, {"a": 2}]),
        (reply(body=b"1\n2", content_type="application/jsonl"), [1, 2]),
        (reply(body=b"a=1&b=x+y", content_type="application/x-www-form-urlencoded"), {"a": "1", "b": "x y"}),
        (reply(body=b'{"a":1}', content_type="text/plain"), {"a": 1}),
        (reply(body=b'{"a":1', content_type="text/plain"), '{"a":1'),
        (reply(body=b'\xef\xbb\xbf{"a":1}'), {"a": 1}),
        (reply(body="é".encode("latin-1"), content_type="text/plain; charset=iso-8859-1"), "é"),
        (reply(body=b'{"a":1,"a":2}'), {"a": 2}),
        (reply(body=b"123456789012345678901234567890"), 123456789012345678901234567890),
        (reply(205, body=b""), None),
        (reply(body=b'{"x":1}', content_type="application/vnd.api+json; charset=utf-8"), {"x": 1}),
    ],
)
async def test_an_answer_is_read_as_its_type_says(answer: bytes, value: Any, api: ScriptedServer, bench: Bench) -> None:
    api.on("*", answer)
    ran = await bench.run(mission('get "/x"\nstore { id: "r", r: response } -> out'))
    assert ran.ok().out["r"]["r"] == value


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (reply(body=b"\xff\xfe", content_type="text/plain"), "parse", "the answer is not utf-8"),
        (reply(body=b'{"a":"\xff"}'), "parse", "the answer is not JSON"),
        (reply(body=b"[" * 251 + b"]" * 251), "parse", "the answer cannot be read: JSON is nested deeper than 250"),
        (reply(body=b"1" * 401), "parse", "the answer cannot be read: a number has more than 400 digits"),
        (reply(body=b"x", content_type="text/plain; charset=klingon"), "parse", "charset 'klingon' is unknown"),
        (reply(body=b"%PDF", content_type="application/pdf"), "unsupported_content", "application/pdf"),
        (reply(300, data={}), "redirect", "300 Multiple Choices"),
        (redirect("", 302), "redirect", "302 Found"),
    ],
)
async def test_an_answer_that_has_no_value_fails_by_its_kind(
    answer: bytes, kind: str, says: str, api: ScriptedServer, bench: Bench
) -> None:
    api.on("*", answer)
    error = (await bench.run(mission('get "/x"\nstore response -> out'))).error
    assert error.type == kind and says in error.message and len(api.seen) == 1


async def test_what_stands_beside_a_body_is_no_part_of_it(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data={"a": 1}, headers={"X-Foo": "bar", "Set-Cookie": "s=1"}))
    steps = """get "/x"
      let h = response.headers
      store { id: "v", code: response.code, foo: h["X-FOO"], none: h["set-cookie"], spread: { ...response },
        all: response } -> out
      match response { { code: 200, headers: h } -> store { id: "m", foo: h["x-foo"] } -> out }
      map response -> T { code: .code, a: .a }
      store { id: "t", ...response } -> out"""
    assert (await bench.run(mission(steps))).ok().out == {
        "v": {"id": "v", "code": 200, "foo": "bar", "none": None, "spread": {"a": 1}, "all": {"a": 1}},
        "m": {"id": "m", "foo": "bar"},
        "t": {"id": "t", "code": None, "a": 1},
    }
    api.on("*", reply(data={"a": 1, "code": "own", "headers": 3}))
    ran = await bench.run(mission('get "/x"\nstore { id: "v", c: response.code, h: response.headers } -> out'))
    assert ran.ok().out["v"] == {"id": "v", "c": "own", "h": 3}


async def test_request_shows_the_attempt_and_no_secret(api: ScriptedServer, bench: Bench) -> None:
    bench.environment = {"MY_TOKEN": "t0p-s3cret-7"}
    api.on("*", reply(503, data={}), reply(503, data={}), reply(data={}), reply(503, data={}), reply(data={}))
    steps = """post "/x?sig=abcdefgh" {
        params: { api_key: "keykeykey", q: 1 }, body: { t: env("MY_TOKEN"), a: 1 }, retry: { maxAttempts: 5 } }
      store { id: "first", r: request, o: currentOperation } -> out
      get "/y" { retry: { maxAttempts: 1 } }
      match response {
        { code: 503 } -> { store { id: "failed", n: currentRequest.attempt } -> out
                           retry { maxAttempts: 3 } },
        _ -> store { id: "second", n: currentRequest.attempt } -> out
      }"""
    out = (await bench.run(mission(steps))).ok().out
    assert out["first"]["r"] == {
        "method": "POST", "source": "Api", "path": "/x?sig=***", "params": {"api_key": "***", "q": 1},
        "body": {"t": "***", "a": 1}, "operationId": None, "attempt": 3,
    }  # fmt: skip
    assert out["first"]["o"] == "POST /x?sig=***"
    assert (out["failed"]["n"], out["second"]["n"]) == (1, 2)


# --- options that are computed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ('timeout: env("TEXT")', "timeout must be milliseconds or a duration"),
        ('connectTimeout: env("TEXT")', "connectTimeout must be milliseconds or a duration"),
        ('rateLimit: { requestsPerMinute: env("TEXT") }', "requestsPerMinute must be a number above 0, not 'abc'"),
        ('rateLimit: { strategy: env("TEXT") }', "strategy must be pause, throttle or fail, not 'abc'"),
        ('rateLimit: env("TEXT")', "rateLimit must be a block"),
        ('circuitBreaker: env("TEXT")', "circuitBreaker must be a block"),
        ('headers: env("TEXT")', "headers must be an object"),
        ('maxRedirects: env("TEXT")', "maxRedirects must be a whole number"),
        ('validateResponses: env("TEXT")', "validateResponses must be true or false"),
        ('idempotencyKey: concat(env("TEXT"), " d")', "the name of a header that can be sent, not 'abc d'"),
    ],
)
async def test_a_computed_option_of_a_source_is_looked_at_before_the_first_request(
    option: str, says: str, api: ScriptedServer, bench: Bench
) -> None:
    bench.environment = {"TEXT": "abc"}
    ran = await bench.run(mission('get "/x"', source=f", {option}"))
    assert ran.error.type == "config" and says in ran.error.message and api.seen == []
    assert (ran.error.location or "").startswith("test.vague:2:")


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ('timeout: env("TEXT")', "timeout must be milliseconds or a duration"),
        ('retry: { maxAttempts: env("TEXT") }', "maxAttempts must be a whole number"),
        ('retry: env("TEXT")', "retry must be a block"),
        ('rateLimit: { requestsPerMinute: env("TEXT") }', "requestsPerMinute must be a number above 0"),
        ('paginate: page(p, 5), maxPages: env("TEXT")', "maxPages must be a whole number"),
    ],
)
async def test_a_computed_option_of_a_request_is_looked_at(
    option: str, says: str, api: ScriptedServer, bench: Bench
) -> None:
    bench.environment = {"TEXT": "abc"}
    ran = await bench.run(mission(f'get "/x" {{ {option} }}'))
    assert ran.error.type == "eval" and says in ran.error.message and api.seen == []


async def test_what_the_environment_gives_as_text_counts_as_what_it_says(api: ScriptedServer, bench: Bench) -> None:
    bench.environment = {"FOUR": "4", "MS": "1500", "NO": "false"}
    api.on("*", reply(503, data={}))
    options = 'timeout: env("MS"), circuitBreaker: env("NO"), maxRedirects: env("FOUR")'
    source = mission("", source=f", {options}").replace("maxAttempts: 1", 'maxAttempts: env("FOUR"), delay: env("MS")')
    text = source.replace("run A", 'action A { get "/x" } run A')
    ran = await bench.run(text)
    assert ran.error.status == 503 and len(api.seen) == 4 and bench.clock.slept == [1.5, 1.5, 1.5]
    assert bench.runner is not None
    api.seen.clear()
    bench.clock.slept.clear()
    ran = await bench.run(mission('get "/x" { retry: { maxAttempts: env("FOUR"), delay: 250 ms } }'))
    assert len(api.seen) == 4 and bench.clock.slept == [0.25, 0.25, 0.25]
