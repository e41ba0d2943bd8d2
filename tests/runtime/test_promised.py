"""What the original's documents promise and the original does not do (spec/language.md 8.2, 8.3), row by row.

Rows about files and folders are in test_loader.py, those about `wait` in test_waiting.py, findings in the corpus.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.missions import Bench, mission
from tests.support.servers import Answer, ScriptedServer, reply

pytestmark = pytest.mark.filterwarnings("error")


@dataclass(slots=True)
class Row:
    """A mission, what it is answered, and what it leaves in the store `out`.

    Attributes:
        steps: of action `A`; expressions are stored as `v` by `value`.
        out: the records by key, or the list of their `v`.
        asked: the targets that the server saw, if they matter.
    """

    steps: str
    out: Any = None
    served: dict[str, Answer | list[Answer]] = field(default_factory=dict)
    asked: list[str] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    parts: dict[str, Any] = field(default_factory=dict)


def value(expression: str, expected: Any, **more: Any) -> Row:
    """A row of one expression."""
    return Row(f'store {{ id: "v", v: {expression} }} -> out', [expected], **more)


BOATS = reply(data={"boats": [{"id": "a", "n": 1}, {"id": "b", "n": 2}]})

ROWS: dict[str, Row] = {
    "comments and quotes": Row(
        """/* first
        lines */ # second
        store { id: 'it', v: "is" } -> out // third""",
        ["is"],
    ),
    "keywords as names": Row(
        """let key = 1
        let page = 2
        let source = { path: 3, store: 4 }
        for get in [{ id: "x", match: 5 }] {
          store { id: get.id, v: [key, page, source.path, source.store, get.match] } -> out }""",
        [[1, 2, 3, 4, 5]],
    ),
    "keywords as store names": Row(
        'store { id: "x", v: 1 } -> page\nfor p in page { store p -> out }',
        [1],
        parts={"stores": 'store page: memory("page")'},
    ),
    "durations": value("[7 days == 168 hours, 1 hour > 59 minutes]", [True, True]),
    "unequal and not": value('[1 != 2, !(1 != 2), !""]', [True, False, True]),
    "operators": value(
        '[7 % 4, null ?? 3, 2 in [1, 2], [1, 2] contains 3, "abc" startsWith "ab", "abc" endsWith "c"]',
        [3, 3, True, False, True, True],
    ),
    "if in expressions": value('if 1 > 2 then "a" else if 2 > 1 then "b" else "c"', "b"),
    "indexing": Row(
        """store { id: "k", v: 9 } -> other
        let xs = [1, 2, 3]
        store { id: "v", v: [xs[0], xs[-1], xs[7], other["k"].v, other["no"]] } -> out""",
        [[1, 3, None, 9, None]],
        parts={"stores": 'store other: memory("other")'},
    ),
    "literals": Row(
        """let o = { a: 1, b: 2, }
        let xs = [1, 2,]
        map { z: 0 } -> row { id: "v", ...o, v: [[], { ...o, b: 3 }, [...xs, 3]] }
        store row -> out""",
        {"v": {"id": "v", "a": 1, "b": 2, "v": [[], {"a": 1, "b": 3}, [1, 2, 3]]}},
    ),
    "lambdas and methods": Row(
        """store { id: "k", v: 4 } -> other
        let xs = [1, 2, 3]
        store { id: "v", v: [map(xs, x => x * 2), xs.filter((x) => x > 1), other.get("k").v] } -> out""",
        [[[2, 4, 6], [2, 3], 4]],
        parts={"stores": 'store other: memory("other")'},
    ),
    "pipe": Row('let xs = [3, 1, 2]\nstore { id: "v", v: xs | sort() | first() } -> out', [1]),
    "where, projection, length, element-wise": Row(
        """let xs = [{ f: 1 }, { f: 2 }, { f: 3 }]
        store { id: "v", v: [(xs where .f > 1).f, xs.f, xs.length, xs.f * 10] } -> out""",
        [[[2, 3], [1, 2, 3], 3, [10, 20, 30]]],
    ),
    "match as expression": Row(
        """let o = { kind: "car", n: 4 }
        store { id: "v", v: [
          match o.kind { "car" => 1, _ => 2 },
          match uppercase(o.kind) { "BUS" => 1, other => other },
          match o { { n: n } where n > 3 => concat("big ", n), _ => "small" },
          match { o.n > 9 => "a", o.n > 3 => "b", _ => "c" } ] } -> out""",
        [[1, "CAR", "big 4", "b"]],
    ),
    "is": value(
        '[null is null, 3 is int, 3.5 is int, 3.5 is decimal, "2024-05-01" is date, parseDate("2024-05-01") is date]',
        [True, True, False, True, True, True],
    ),
    "functions": value(
        '[round(3.14159, 2), uppercase("a"), split("a,b", ","), unique([1, 1]), abs(-2)]',
        [3.14, "A", ["a", "b"], [1], 2],
    ),
    "default by or": value('["x" or "y", "" or "y", null or 0 or 5]', ["x", "y", 5]),
    "absent equals null": Row(
        'let o = { a: 1 }\nstore { id: "v", v: [o.b == null, o.a == null] } -> out', [[True, False]]
    ),
    "order of dates, texts, null": value(
        '[parseDate("2024-05-02") > parseDate("2024-05-01"), "a" < "b", null < 3, 3 > null]', [True, True, False, False]
    ),
    "datetime arithmetic": value(
        '[parseDate("2024-05-01T00:00:00Z") + 1 day == parseDate("2024-05-02T00:00:00Z"), '
        'parseDate("2024-05-02T00:00:00Z") - parseDate("2024-05-01T00:00:00Z") == 24 hours]',
        [True, True],
    ),
    "store names in expressions": Row(
        """store { id: "k" } -> other
        match other { [] -> abort "empty", [one] -> store { id: "v", v: length(other) } -> out }""",
        [1],
        parts={"stores": 'store other: memory("other")'},
    ),
    "schema types": Row(
        """for x in [
          { id: "a", n: 1, d: "2024-05-01", p: { q: "r" }, l: [1, 2], u: 3, r: 5, w: 2 },
          { id: "b", n: 1.5, d: "2024-05-01", p: { q: "r" }, l: [1, 2], u: "t", r: 5, w: 2 },
          { id: "c", n: 1, d: "2024-05-01", p: { q: "r" }, l: [1, "2"], u: 3, r: 5, w: 2 },
          { id: "d", n: 1, d: "2024-05-01", p: { q: "r" }, l: [1, 2], u: 3, r: 50, w: 2 },
          { id: "e", n: 1, d: "2024-05-01", p: { q: "r" }, l: [1, 2], u: 3, r: 5, w: 0 },
          { n: 1, d: "2024-05-01", p: { q: "r" }, l: [1, 2], u: 3, r: 5, w: 2 }
        ] { match x { Full -> store { id: x.id, v: "full" } -> out, _ -> continue } }""",
        ["full"],
        parts={
            "declarations": """schema Base { id: string }
            schema Full { ...Base, n: int, d: date, m: decimal?, x: any?, p: { q: string }, l: array<int>,
              u: string | int, r: int in 1..10, w: int where .w > 0 }"""
        },
    ),
    "optional fields": Row(
        'match ({ id: "v", v: 1 }) { S -> store { id: "v", v: "S" } -> out, _ -> abort }',
        ["S"],
        parts={"declarations": "schema S { id: string, gone: string? }"},
    ),
    "source options": Row(
        'get "/x"\nstore { id: "v", v: response.n } -> out',
        [1],
        served={"/v2/x": reply(data={"n": 1})},
        headers={"Authorization": "Basic dTpw", "X-Team": "blue"},
        environment={"U": "u", "P": "p"},
        parts={
            "options": """source Own { base: concat(env("API"), "/v2"), auth: basic,
              username: env("U"), password: env("P"),
              timeout: 5000, retry: { maxAttempts: 2 }, headers: { "X-Team": "blue" },
              rateLimit: { requestsPerMinute: 6000, adaptive: true, strategy: "pause" } }""",
            "steps_source": "Own",
        },
    ),
    "api keys": Row(
        'get Own "/x"\nstore { id: "v", v: response.n } -> out',
        [1],
        served={"/x": reply(data={"n": 1})},
        headers={"X-API-Key": "k-123456"},
        environment={"K": "k-123456"},
        parts={"options": 'source Own { base: env("API"), auth: api_key, apiKey: env("K") }'},
    ),
    "store options": Row(
        'store { id: "v", v: 1 } -> chosen\nfor x in chosen { store x -> out }',
        [1],
        parts={
            "stores": 'store chosen: match env("WHERE") { "disk" => file("chosen"), _ => memory("chosen") }',
        },
    ),
    "singular units": Row(
        'store { id: "v", v: 1 } -> out', [1], parts={"options": "schedule: every 1 hour { maxConcurrency: 1 }"}
    ),
    "mission options and variables": Row(
        'store { id: "v", v: limit } -> out',
        [3],
        parts={"options": "timeout: 10 minutes", "declarations": "let limit = 3"},
    ),
    "fetch options": Row(
        """let t = "T"
        get "/boats" { params: { a: [1, 2], b: null }, query: { c: "d" }, headers: { "X-T": t }, timeout: 5000,
          since: lastSync, sinceParam: "changed", sinceFormat: unix, syncKey: "boats" }
        store { id: "v", v: length(response.boats) } -> out""",
        [2],
        served={"/boats": BOATS},
        asked=["/boats?a=1&a=2&c=d"],
        headers={"X-T": "T"},
    ),
    "three ways to name a source": Row(
        """get Api "/boats"
        get "/boats" from Api
        get "/boats" { source: "Api" }
        get "/boats" { source: Api }
        store { id: "v", v: length(response.boats) } -> out""",
        [2],
        served={"/boats": BOATS},
        asked=["/boats"] * 4,
    ),
    "computed paths": Row(
        'let n = "a b"\nget concat("/x/", n)\nget "/x/{n}/{upper}" { params: { upper: "U", q: 1 } }\n'
        'store { id: "v", v: response } -> out',
        [7],
        served={"/x/a%20b": reply(data=1), "/x/a%20b/U": reply(data=7)},
        asked=["/x/a%20b", "/x/a%20b/U?q=1"],
    ),
    "bodies": Row(
        """get "/x" { body: { a: 1 } }
        post "/list" { body: { page: 1 }, paginate: page(page, 1), until: length(response) == 0 }
        store { id: "v", v: response } -> out""",
        [[1]],
        served={"/x": reply(data=0), "/list": [reply(data=[1]), reply(data=[])]},
        asked=["/x?a=1", "/list?page=1", "/list?page=2"],
    ),
    "status and headers": Row(
        'get "/boats"\nstore { id: "v", v: [response.code, response.headers["x-a"]] } -> out',
        [[200, "b"]],
        served={"/boats": reply(data={"boats": []}, headers={"X-A": "b"})},
    ),
    "an unhandled failure": Row(
        'get "/boats"\nstore response -> out',
        {},
        served={"/boats": reply(404, data={"id": "no data"})},
        error="http",
    ),
    "cursors": Row(
        """get "/c" { paginate: cursor(.next) }
        for x in response { store { id: x, v: x } -> out }""",
        [1, 2],
        served={"/c": [reply(data={"items": [1], "next": "n"}), reply(data={"items": [2]})]},
        asked=["/c", "/c?cursor=n"],
    ),
    "responses after pagination": Row(
        """get "/pages" { paginate: page(page, 2), until: length(response.rows) < 2 }
        store { id: "v", v: [response.rows, response.total] } -> out
        get "/array" { paginate: offset(offset, 2), until: length(response) < 2 }
        store { id: "w", v: response } -> out""",
        [[[1, 2, 3], 3], [4, 5, 6]],
        served={
            "/pages": [reply(data={"rows": [1, 2], "total": 3}), reply(data={"rows": [3], "total": 3})],
            "/array": [reply(data=[4, 5]), reply(data=[6])],
        },
    ),
    "no since at first": Row(
        'get "/boats" { since: lastSync }\nstore { id: "v", v: 1 } -> out', [1], {"/boats": BOATS}, asked=["/boats"]
    ),
    "checkpoints, parallel loops, concurrency": Row(
        """for x in [1, 2, 3] checkpoint every 2 { store { id: x, v: x } -> out }
        for x in [4, 5] parallel { store { id: x, v: x } -> out }""",
        [1, 2, 3, 4, 5],
        parts={"actions": "action B { concurrency: 2 }"},
    ),
    "response in loops, absent lists": Row(
        """get "/boats"
        for b in response.boats { store { id: b.id, v: length(response.boats) } -> out }
        for x in response.nothing { abort }""",
        [2, 2],
        served={"/boats": BOATS},
    ),
    "results of map": Row(
        """for b in [{ id: "a", n: 1 }] { map b -> Boat { m: .n + 1 } store { id: b.id, v: b.m } -> out }
        map { x: 2 } -> made { id: "b", v: .x }
        store made -> out
        map { id: "c", v: 3 } -> whole
        store whole -> out""",
        [2, 2, 3],
        parts={"declarations": "schema Boat { m: int }"},
    ),
    "validate": Row(
        """get "/one"
        validate { assume .n > 0 }
        validate response { assume .n > 9 else "too small" }
        validate response { assume .n > 9 else error "too small" } or { store { id: "v", v: "caught" } -> out }""",
        ["caught"],
        served={"/one": reply(data={"n": 1})},
    ),
    "delete and clear": Row(
        """store [{ id: "a", v: 1 }, { id: "b", v: 2 }] -> out
        store { id: "c" } -> other
        delete out["a"]
        clear other
        store { id: "n", v: length(other) } -> out""",
        [2, 0],
        parts={"stores": 'store other: memory("other")'},
    ),
    "patterns": Row(
        """for x in [1, "t", { a: { b: 2 } }, [1, 2], [{ q: 1 }], null, { c: 7 }] {
          match x {
            1 -> store { id: "1", v: "literal" } -> out,
            "t" -> store { id: "2", v: "text" } -> out,
            { a: { b: n } } -> store { id: "3", v: n } -> out,
            [p, q] -> store { id: "4", v: p + q } -> out,
            [Q] -> store { id: "5", v: "list of Q" } -> out,
            null -> store { id: "6", v: "null" } -> out,
            other -> store { id: "7", v: other.c } -> out
          }
        }
        match { 1 > 2 -> abort, _ -> store { id: "8", v: "no subject" } -> out }
        match 1 { 1 -> store null -> out } catch { { kind: "store" } -> store { id: "9", v: "caught" } -> out }""",
        ["literal", "text", 2, 3, "list of Q", "null", 7, "no subject", "caught"],
        parts={"declarations": "schema Q { q: int }"},
    ),
    "directives": Row(
        """for x in [{ id: "a" }, { id: "b" }] {
          match x { { id: "a" } -> { store { id: "block", v: 1 } -> out skip }, _ -> B }
          queue rejects { item: { id: x.id }, key: concat("q-", x.id) }
          continue_on(x)
        }""".replace("continue_on(x)", 'store { id: "after", v: length(rejects) } -> out'),
        [1, "B", 1],
        parts={
            "actions": 'action B { store { id: "called", v: "B" } -> out }',
            "stores": 'store rejects: memory("rejects")',
        },
    ),
    "abort with an expression": Row('let n = 3\nabort concat(n, " boats")', {}, error="abort"),
    "skip, retry, queue, jump": Row(
        """get "/flaky"
        match response { { code: 401 } -> jump Login then retry, { code: 418 } -> retry { delay: 1 }, _ -> continue }
        store { id: "v", v: response.n } -> out
        match response { { n: 3 } -> queue rejects, _ -> continue }
        store { id: "never", v: 0 } -> out""",
        [3],
        served={
            "/flaky": [reply(401), reply(418), reply(data={"n": 3})],
            "/login": reply(data={"access_token": "t0k3n-of-the-day"}),
        },
        asked=["/flaky", "/login", "/flaky", "/flaky"],
        parts={"actions": 'action Login { post "/login" }', "stores": 'store rejects: memory("rejects")'},
    ),
    "run as a step": Row(
        'store { id: "a", v: 1 } -> out\nrun B then C if length(out) == 2\nstore { id: "d", v: length(out) } -> out',
        [1, 2, 3, 3],
        parts={
            "actions": 'action B { store { id: "b", v: 2 } -> out }\naction C { store { id: "c", v: 3 } -> out }',
        },
    ),
    "groups with a failure": Row(
        'store { id: "a", v: 1 } -> out',
        [1, 2],
        error="http",
        parts={
            "actions": 'action Bad { get "/nowhere" }\naction C { store { id: "c", v: 2 } -> out }',
            "run": "[A, Bad] then C",
        },
    ),
    "response goes on": Row(
        'get "/boats"',
        [2],
        served={"/boats": BOATS},
        parts={
            "actions": 'action B { store { id: "v", v: length(response.boats) } -> out }',
            "run": "A then B",
        },
    ),
}


RULINGS: dict[str, Row] = {
    "a failed assume warns": Row('validate response { assume .n > 0 }\nstore { id: "v", v: 1 } -> out', [1]),
    "variables are eager": Row(
        """get "/n"
        let before = response.n
        get "/n"
        store { id: "v", v: [before, response.n] } -> out""",
        [[1, 2]],
        served={"/n": [reply(data={"n": 1}), reply(data={"n": 2})]},
    ),
    "the variable hides the store": Row(
        'let rows = [{ id: "v", v: 1 }]\nfor x in rows { store x -> out }',
        [1],
        parts={"stores": 'store rows: memory("rows")'},
    ),
    "any of is a boolean": Row(
        """let xs = [{ n: 1 }, { n: 2 }]
        store { id: "v", v: [any of xs where .n > 1, first(xs where .n > 1).n] } -> out""",
        [[True, 2]],
    ),
    "replace means every": value('replace("a-b-c", "-", "+")', "a+b+c"),
    "an unset variable is null": value('[env("NOT_SET"), env("NOT_SET") or "d"]', [None, "d"]),
    "includes in a list": value(
        '[includes(["missing required field"], "missing"), includes("missing", "miss")]', [False, True]
    ),
    "skip outside loops ends the action": Row(
        'store { id: "a", v: 1 } -> out\nskip\nstore { id: "b", v: 2 } -> out',
        [1, 3],
        parts={"actions": 'action B { store { id: "c", v: 3 } -> out }', "run": "A then B"},
    ),
    "retry in all three attempts, then an arm that leaves": Row(
        """for x in [1] {
          get "/down"
          match response {
            { code: 404 } -> retry { maxAttempts: 3, delay: 1 },
            { code: 404 } -> continue,
            { code: 404 } -> queue lost { item: { id: "q" } },
            _ -> continue
          }
          store { id: "never", v: 0 } -> out
        }
        store { id: "v", v: length(lost) } -> out""",
        [1],
        served={"/down": reply(404)},
        asked=["/down"] * 3,
        parts={"stores": 'store lost: memory("lost")'},
    ),
    "retry used up": Row(
        'get "/down"\nmatch response { { code: 404 } -> retry { maxAttempts: 2, delay: 1 }, _ -> continue }',
        {},
        served={"/down": reply(404)},
        asked=["/down"] * 2,
        error="retry_exhausted",
    ),
    "queue goes on in a block": Row(
        """for x in [1, 2] {
          match x { 1 -> queue lost { item: { id: "q" } }, _ -> { queue lost { item: { id: "r" } } } }
          store { id: x, v: x } -> out
        }
        store { id: "n", v: length(lost) } -> out""",
        [2, 2],
        parts={"stores": 'store lost: memory("lost")'},
    ),
    "a catch-all takes an error only if it decides": Row(
        """for x in ["/a", "/b"] {
          get x
          match response { { n: 1 } -> continue, _ -> skip }
          store { id: x, v: response.n } -> out
        }
        get "/b"
        match response { _ -> store { id: "c", v: 9 } -> out }""",
        [1],
        served={"/a": reply(data={"n": 1}), "/b": reply(500)},
        error="http",
    ),
    "the status wins, the body is tried second": Row(
        """for x in ["/a", "/b"] {
          get x
          match response { { code: 409 } -> store { id: x, v: "status" } -> out,
            { code: "E1" } -> store { id: x, v: "body" } -> out, _ -> abort }
        }""",
        ["status", "body"],
        served={"/a": reply(409, data={"code": "E1"}), "/b": reply(410, data={"code": "E1"})},
    ),
    "success has a code": Row(
        'get "/a"\nmatch response { { code: 200 } -> store { id: "v", v: response.code } -> out, _ -> abort }',
        [200],
        served={"/a": reply(data={"n": 1})},
    ),
    "null and absent in patterns": Row(
        """match ({ error: null }) { { error: _ } -> abort, { error: null } -> store { id: "a", v: 1 } -> out }
        match ({ n: 1 }) { { id: null } -> store { id: "b", v: 2 } -> out, _ -> abort }""",
        [1, 2],
    ),
    "one element or a list of a schema": Row(
        """match [{ q: 1 }, { q: 2 }] { [x] -> abort, [Q] -> store { id: "a", v: 1 } -> out }
        match [5] { [x] -> store { id: "b", v: x } -> out }""",
        [1, 5],
        parts={"declarations": "schema Q { q: int }"},
    ),
    "paged results are both": Row(
        """get "/p" { paginate: page(page, 2), until: length(response.rows) < 2 }
        store { id: "v", v: [length(response), length(response.rows), response.total] } -> out""",
        [[3, 3, 9]],
        served={"/p": [reply(data={"rows": [1, 2], "total": 9}), reply(data={"rows": [3], "total": 9})]},
    ),
    "page > 3 asks for three": Row(
        """get "/p" { paginate: page(page, 2), until: page > 3 }
        store { id: "v", v: length(response) } -> out""",
        [6],
        served={"/p": reply(data=[1, 2])},
        asked=["/p?page=1", "/p?page=2", "/p?page=3"],
    ),
    "an empty page ends it, a short one does not where until is given": Row(
        'get "/p" { paginate: page(page, 5), until: response == 0 }\nstore { id: "v", v: length(response) } -> out',
        [2],
        served={"/p": [reply(data=[1, 2]), reply(data=[])]},
        asked=["/p?page=1", "/p?page=2"],
    ),
    "a cursor leads on from a page without items": Row(
        'get "/p" { paginate: cursor(after, 5, "next") }\nstore { id: "v", v: length(response) } -> out',
        [3],
        served={
            "/p": [
                reply(data={"rows": [], "next": "a"}),
                reply(data={"rows": [1], "next": "b"}),
                reply(data={"rows": [], "next": "c"}),
                reply(data={"rows": [2, 3], "next": None}),
            ]
        },
        asked=["/p", "/p?after=a", "/p?after=b", "/p?after=c"],
    ),
    "a link leads on from a page without items": Row(
        'get "/p" { paginate: link() }\nstore { id: "v", v: length(response) } -> out',
        [1],
        served={"/p": [reply(data=[], headers={"Link": '</p?n=2>; rel="next"'}), reply(data=[1])]},
        asked=["/p", "/p?n=2"],
    ),
    "too many pages": Row(
        'get "/p" { paginate: page(page, 1), maxPages: 3 }\nstore response -> out',
        {},
        served={"/p": reply(data=[{"id": 1}])},
        error="pagination",
    ),
    "variables end with their action": Row(
        'let x = 1\nget "/a"',
        [1],
        served={"/a": reply(data={"n": 1})},
        parts={
            "declarations": "let y = 5",
            "actions": 'action B { match y { 5 -> store { id: "v", v: response.n } -> out, _ -> abort } }',
            "run": "A then B",
        },
    ),
    "ways to store": Row(
        """store { id: "a", v: 0, w: 1 } -> out
        store { id: "a", v: 1 } -> out { upsert: true }
        store { id: "b", v: 0, w: 1 } -> out
        store { id: "b", v: 2 } -> out
        store { id: "c", v: 0, w: 1 } -> out
        store { id: "c", v: 3 } -> out { partial: true }
        store { id: "d", v: 0, w: 1 } -> out
        store { id: "d", v: 4 } -> out { upsert: true, partial: false }
        for x in out where .id == "c" { store { id: "e", v: x._partial } -> out }""",
        {
            "a": {"id": "a", "v": 1, "w": 1},
            "b": {"id": "b", "v": 2},
            "c": {"id": "c", "v": 3, "w": 1},
            "d": {"id": "d", "v": 4},
            "e": {"id": "e", "v": True},
        },
    ),
    "a key that is null": Row("store { v: 1 } -> out { key: .id }", {}, error="store"),
    "variables in source strings": Row(
        'get Own "/x"\nstore { id: "v", v: response } -> out',
        [1],
        served={"/blue/x": reply(data=1)},
        environment={"TEAM": "blue"},
        parts={"options": 'source Own { base: "${API}/${TEAM}", auth: none }'},
    ),
    "no run clause": Row(
        'store { id: "v", v: 1 } -> out\nrun B',
        [1, 2],
        parts={"actions": 'action B { store { id: "b", v: 2 } -> out }', "no_run": True},
    ),
}


@pytest.mark.parametrize("name", ROWS)
async def test_what_the_documents_promise_is_done(name: str, api: ScriptedServer, bench: Bench) -> None:
    await _check(ROWS[name], api, bench)


@pytest.mark.parametrize("name", RULINGS)
async def test_where_the_documents_disagree_the_ruling_holds(name: str, api: ScriptedServer, bench: Bench) -> None:
    """spec/language.md 8.3."""
    await _check(RULINGS[name], api, bench)


async def _check(row: Row, api: ScriptedServer, bench: Bench) -> None:
    parts = dict(row.parts)
    source = parts.pop("steps_source", None)
    steps = row.steps.replace('get "', f'get {source} "') if source else row.steps
    for path, answers in row.served.items():
        api.on(path, *(answers if isinstance(answers, list) else [answers]))
    bench.environment = row.environment
    without_run = parts.pop("no_run", False)
    text = mission(steps, **parts)
    ran = await bench.run(text.replace("\n  run A\n", "\n") if without_run else text)
    if row.error is None:
        ran.ok()
    else:
        assert ran.error.type == row.error
    if isinstance(row.out, dict):
        assert ran.out == row.out
    else:
        assert [record["v"] for record in ran.out.values()] == row.out
    if row.asked is not None:
        assert api.targets == row.asked
    sent = {name.lower(): text for name, text in api.seen[-1].headers.items()} if row.headers else {}
    for header, text in row.headers.items():
        assert sent[header.lower()] == text
