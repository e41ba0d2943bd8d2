"""`match` and the failures it looks at (spec/language.md 7.2, 7.8; spec/runtime.md 2.7)."""

import pytest

from tests.support.missions import Bench, mission
from tests.support.servers import ScriptedServer, reply

SCHEMAS = "schema Gauge { id: string, level: number }\nschema Buoy { id: string, drift: number }"


async def chosen(bench: Bench, value: str, arms: str, *, declarations: str = "") -> str:
    """Which arm of a match on a value ran; "none" without one."""
    steps = f"let v = {value}\nmatch v {{ {arms} }}"
    ran = await bench.run(mission(steps, declarations=declarations))
    if ran.record.errors:
        return ran.error.type
    return next(iter(ran.out), "nothing")


def arm(name: str) -> str:
    return f'store {{ id: "{name}" }} -> out'


@pytest.mark.parametrize(
    ("value", "pattern", "takes"),
    [
        ("3", "3", True),
        ("3", "4", False),
        ("3.0", "3", True),
        ('"3"', "3", False),
        ("-3", "-3", True),
        ("null", "null", True),
        ("{}.a", "null", True),
        ("0", "null", False),
        ("true", "true", True),
        ("1", "true", False),
        ('"a"', '"a"', True),
        ("[]", "[]", True),
        ("[1]", "[]", False),
        ("[1, 2]", "[1, 2]", True),
        ("[1, 2]", "[1, _]", True),
        ("[1, 2]", "[1]", False),
        ("[]", "[Gauge]", True),
        ('[{ id: "a", level: 1 }, { id: "b", level: 2 }]', "[Gauge]", True),
        ('[{ id: "a", level: 1 }, { id: "b" }]', "[Gauge]", False),
        ('{ id: "a", level: 1 }', "Gauge", True),
        ('{ id: "a" }', "Gauge", False),
        ("{ a: 1, b: 2 }", "{ a: 1 }", True),
        ("{ a: 1 }", "{ a: 2 }", False),
        ("{ a: 1 }", "{ b: _ }", False),
        ("{ b: null }", "{ b: _ }", False),
        ("{ b: null }", "{ b: x }", False),
        ("{ b: 0 }", "{ b: x }", True),
        ("{}", "{ b: null }", True),
        ("{ b: 1 }", "{ b: null }", False),
        ("{ a: { b: 1 } }", "{ a: { b: 1 } }", True),
        ("{ a: [1, 2] }", "{ a: [1, 2] }", True),
        ("3", "{ a: _ }", False),
        ("[1]", "Gauge", False),
    ],
)
async def test_a_pattern_takes(value: str, pattern: str, takes: bool, bench: Bench) -> None:
    got = await chosen(bench, value, f"{pattern} -> {arm('yes')}, _ -> {arm('no')}", declarations=SCHEMAS)
    assert got == ("yes" if takes else "no")


@pytest.mark.parametrize("pattern", ["_", "x", "x where x == null"])
async def test_wildcards_and_bindings_take_null(pattern: str, bench: Bench) -> None:
    assert await chosen(bench, "null", f"{pattern} -> {arm('yes')}") == "yes"


async def test_a_value_pattern_compares_with_the_evaluated_expression(bench: Bench) -> None:
    steps = 'let w = { x: 3 }\nlet v = 3\nmatch v { w.x -> store { id: "yes" } -> out, _ -> store { id: "no" } -> out }'
    assert list((await bench.run(mission(steps))).ok().out) == ["yes"]


async def test_the_first_arm_whose_guard_holds_is_taken(bench: Bench) -> None:
    arms = f"n where n > 10 -> {arm('big')}, n where . > 3 -> {arm('some')}, _ -> {arm('few')}".replace(". >", "n >")
    for value, name in (("11", "big"), ("5", "some"), ("1", "few")):
        assert await chosen(bench, value, arms) == name


async def test_a_guard_and_a_body_see_the_matched_value_as_current_item(bench: Bench) -> None:
    steps = 'let v = { id: "a", n: 5 }\nmatch v { { n: _ } where .n > 3 -> store { id: .id, n: .n } -> out, _ -> skip }'
    assert (await bench.run(mission(steps))).ok().out == {"a": {"id": "a", "n": 5}}


async def test_a_binding_in_an_object_pattern_names_the_field(bench: Bench) -> None:
    steps = (
        'let v = { id: "a", in: { n: 5 } }\nmatch v { { in: { n: k } } -> store { id: "x", k: k } -> out, _ -> skip }'
    )
    assert (await bench.run(mission(steps))).ok().out == {"x": {"id": "x", "k": 5}}


async def test_without_a_subject_each_condition_is_tested(bench: Bench) -> None:
    steps = (
        "let v = 5\nmatch { v > 10 -> "
        + arm("a")
        + ", v > 3 where v < 5 -> "
        + arm("b")
        + ", v > 4 -> "
        + arm("c")
        + ", _ -> skip }"
    )
    assert list((await bench.run(mission(steps))).ok().out) == ["c"]


async def test_a_store_as_subject_gives_its_records(bench: Bench) -> None:
    steps = (
        "match out { [] -> "
        + arm("empty")
        + ", _ -> "
        + arm("full")
        + " }\nmatch out { [] -> skip, [_] -> "
        + arm("one")
        + ", _ -> skip }"
    )
    assert list((await bench.run(mission(steps))).ok().out) == ["empty", "one"]


async def test_no_arm_is_an_error(bench: Bench) -> None:
    ran = await bench.run(mission('let v = { id: "q" }\nmatch v { 3 -> skip }'))
    assert ran.error.type == "no_match"


async def test_an_arm_may_change_response(bench: Bench) -> None:
    steps = 'let v = 1\nmatch v { 1 -> { map v -> t { id: "mapped" } }, _ -> skip }\nstore response -> out'
    assert list((await bench.run(mission(steps))).ok().out) == ["mapped"]


async def test_continue_goes_on_behind_the_match(bench: Bench) -> None:
    steps = f"let v = 1\nmatch v {{ 1 -> {{ {arm('a')}\ncontinue }}, _ -> skip }}\n{arm('b')}"
    assert list((await bench.run(mission(steps))).ok().out) == ["a", "b"]


# --- catch -----------------------------------------------------------------------------------------------------------


async def test_catch_sees_a_runtime_error_of_the_taken_arm(bench: Bench) -> None:
    steps = """
      let v = 1
      match v { 1 -> store null -> out, _ -> skip } catch {
        { kind: "http" } -> abort "wrong",
        { kind: k, error: e, action: a } -> store { id: k, e: e, a: a } -> out
      }
      store { id: "after" } -> out"""
    ran = await bench.run(mission(steps))
    assert list(ran.ok().out) == ["store", "after"]
    assert ran.out["store"]["a"] == "A" and "null" in ran.out["store"]["e"]


async def test_catch_sees_a_failing_guard_and_the_status_of_a_request(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(418, data={}))
    steps = """
      let v = 1
      match v { n where n + [1, {}] -> skip, _ -> skip } catch { { kind: "eval" } -> store { id: "guard" } -> out }
      match v { 1 -> get "/x", _ -> skip } catch { { code: 418, source: s } -> store { id: "status", s: s } -> out }"""
    ran = await bench.run(mission(steps))
    assert list(ran.ok().out) == ["guard", "status"] and ran.out["status"]["s"] == "Api"


async def test_what_no_catch_arm_takes_goes_on(bench: Bench) -> None:
    ran = await bench.run(
        mission('let v = 1\nmatch v { 1 -> store null -> out, _ -> skip } catch { { kind: "http" } -> skip }')
    )
    assert ran.error.type == "store"


async def test_catch_does_not_catch_abort_nor_skip(bench: Bench) -> None:
    ran = await bench.run(mission('let v = 1\nmatch v { 1 -> abort "stop" } catch { _ -> skip }'))
    assert ran.error.type == "abort"
    steps = (
        "for i in [1, 2] { match i { 1 -> skip, _ -> continue } catch { _ -> abort }\n"
        'store { id: concat("i", i) } -> out }'
    )
    assert list((await bench.run(mission(steps))).ok().out) == ["i2"]


async def test_a_no_match_can_be_caught(bench: Bench) -> None:
    ran = await bench.run(
        mission(f'let v = 1\nmatch v {{ 2 -> skip }} catch {{ {{ kind: "no_match" }} -> {arm("c")} }}')
    )
    assert list(ran.out) == ["c"] or ran.error.type == "no_match"


# --- guarded requests ------------------------------------------------------------------------------------------------


async def test_a_continuing_wildcard_does_not_swallow_an_error(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(500, data={"id": "bad"}))
    for body in ("continue", "store response -> out", "{ store response -> out }"):
        ran = await bench.run(mission(f'get "/x"\nmatch response {{ _ -> {body} }}\nstore response -> out'))
        assert (ran.error.type, ran.error.status, ran.out) == ("http", 500, {}), body
        assert "500" in ran.error.message and "failed" in ran.error.message
        assert ran.error.step == 'get "/x"'


async def test_a_continuing_binding_does_not_swallow_an_error_either(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(404, data={}))
    ran = await bench.run(mission('get "/x"\nmatch response { r -> store r -> out }'))
    assert ran.error.type == "http"


async def test_a_guarded_wildcard_is_a_decision_of_its_own(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(404, data={}))
    ran = await bench.run(
        mission(f'get "/x"\nmatch response {{ _ where response.code == 404 -> {arm("gone")}, _ -> continue }}')
    )
    assert list(ran.ok().out) == ["gone"]


@pytest.mark.parametrize("body", ["skip", '{ store { id: "seen" } -> out\nskip }', "queue { item: { id: 1 } }"])
async def test_a_deciding_wildcard_takes_an_error(body: str, api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(500, data={}))
    ran = await bench.run(
        mission(f'get "/x"\nmatch response {{ {{ id: _ }} -> continue, _ -> {body} }}\nstore {{ id: "after" }} -> out')
    )
    assert "after" not in ran.ok().out


async def test_lets_between_request_and_match_do_not_matter(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(404, data={}))
    ran = await bench.run(
        mission(
            f'get "/x"\nlet a = 1\nlet b = response.code\n'
            f"match response {{ {{ code: 404 }} -> {arm('gone')}, _ -> continue }}"
        )
    )
    assert list(ran.ok().out) == ["gone"]


async def test_a_step_between_request_and_match_makes_it_unguarded(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(404, data={}))
    ran = await bench.run(
        mission(f'get "/x"\n{arm("between")}\nmatch response {{ {{ code: 404 }} -> skip, _ -> continue }}')
    )
    assert ran.error.type == "http" and ran.out == {}


async def test_an_unguarded_failure_leaves_response_as_it_was(api: ScriptedServer, bench: Bench) -> None:
    api.on("/a", reply(data={"id": "a"})).on("/b", reply(500, data={"id": "b"}))
    steps = """
      get "/a"
      let v = 1
      match v { 1 -> { get "/b" }, _ -> skip } catch { _ -> store response -> out }"""
    assert list((await bench.run(mission(steps))).ok().out) == ["a"]


async def test_the_error_response_has_its_fields(api: ScriptedServer, bench: Bench) -> None:
    body = {"message": "no such gauge", "code": "E7", "status": "gone", "extra": 1}
    api.on("/x", reply(404, data=body, headers={"X-Trace": "t1"}))
    steps = """
      get "/x"
      match response {
        { error: e, code: c, kind: k, status: s, extra: x, body: b, headers: h } ->
          store { id: "e", e: e, c: c, k: k, s: s, x: x, b: b.code, h: h["x-trace"] } -> out,
        _ -> continue
      }"""
    ran = await bench.run(mission(steps))
    assert ran.ok().out["e"] == {
        "id": "e", "e": "no such gauge", "c": 404, "k": "http", "s": "gone", "x": 1, "b": "E7", "h": "t1",
    }  # fmt: skip


async def test_an_error_response_without_a_body_has_words_of_its_own(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(404, body=b""), reply(429, body=b"", headers={"Retry-After": "7"}))
    steps = """
      for i in [1, 2] {
        get "/x"
        match response { { error: e } -> store { id: concat("e", i), e: e, s: response.status,
          ra: response.retryAfter, b: response.body } -> out, _ -> continue }
      }"""
    ran = await bench.run(mission(steps))
    assert ran.ok().out["e1"] == {"id": "e1", "e": "HTTP 404 Not Found", "s": 404, "ra": None, "b": None}
    assert ran.out["e2"] == {"id": "e2", "e": "rate_limit", "s": 429, "ra": 7, "b": None}


async def test_a_dead_server_is_a_network_failure_with_code_0(bench: Bench) -> None:
    steps = (
        'get "http://127.0.0.1:1/x"\nmatch response { { error: "network", code: 0 } -> '
        + arm("net")
        + ", _ -> continue }"
    )
    assert list((await bench.run(mission(steps))).ok().out) == ["net"]


async def test_a_pattern_also_looks_into_the_body(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(422, data={"code": "E_RANGE", "id": "a", "level": 3}))
    for pattern in ('{ code: "E_RANGE" }', "Gauge", "{ code: 422 }"):
        text = mission(f'get "/x"\nmatch response {{ {pattern} -> {arm("yes")}, _ -> continue }}', declarations=SCHEMAS)
        assert list((await bench.run(text)).ok().out) == ["yes"], pattern


async def test_no_arm_for_a_failure_raises_the_failure(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(503, data={"error": "down"}))
    ran = await bench.run(mission('get "/x"\nmatch response { { code: 404 } -> skip, { id: _ } -> continue }'))
    assert (ran.error.type, ran.error.status) == ("http", 503)


async def test_a_success_that_no_arm_takes_is_a_no_match(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data={"id": 1}))
    ran = await bench.run(mission('get "/x"\nmatch response { { code: 404 } -> skip, { nothing: _ } -> continue }'))
    assert ran.error.type == "no_match"


async def test_code_and_headers_of_a_success_are_readable(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(201, data=[1, 2], headers={"X-Total": "9"}))
    steps = """
      post "/x"
      match response { { code: 201 } -> store { id: "a", n: length(response), t: response.headers["x-total"],
          c: response.code } -> out, _ -> abort }"""
    assert (await bench.run(mission(steps))).ok().out["a"] == {"id": "a", "n": 2, "t": "9", "c": 201}


async def test_a_subjectless_match_that_reads_response_guards_too(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(404, data={}))
    ran = await bench.run(mission(f'get "/x"\nmatch {{ response.code == 404 -> {arm("gone")}, _ -> continue }}'))
    assert list(ran.ok().out) == ["gone"]


async def test_a_path_that_cannot_be_built_is_delivered_like_any_failure(api: ScriptedServer, bench: Bench) -> None:
    for value in ("null", '""', '"."', '".."'):
        steps = (
            f'let id = {value}\nget "/x/{{id}}"\n'
            f'match response {{ {{ kind: "bad_path", code: 0 }} -> {arm("bad")}, _ -> continue }}'
        )
        assert list((await bench.run(mission(steps))).ok().out) == ["bad"]
        ran = await bench.run(mission(f'let id = {value}\nget "/x/{{id}}"\nstore response -> out'))
        assert ran.error.type == "bad_path" and ran.out == {}
    assert api.seen == []


async def test_the_failure_of_an_earlier_request_is_not_seen_by_a_later_match(
    api: ScriptedServer, bench: Bench
) -> None:
    api.on("/x", reply(404, data={}))
    steps = f"""
      get "/x"
      match response {{ {{ code: 404 }} -> {arm("one")}, _ -> continue }}
      let v = 1
      match v {{ 2 -> skip, _ -> {arm("two")} }}"""
    assert list((await bench.run(mission(steps))).ok().out) == ["one", "two"]


async def test_a_match_of_a_called_actions_own_request_decides_there(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(404, data={}))
    actions = f'action B {{ get "/x"\nmatch response {{ {{ code: 404 }} -> {arm("b")}, _ -> continue }} }}'
    assert list((await bench.run(mission(f"run B\n{arm('a')}", actions=actions))).ok().out) == ["b", "a"]


@pytest.mark.parametrize("value", [0, 99, 100, 250, 299, 777])
async def test_a_match_may_have_more_arms_than_python_nests(bench: Bench, value: int) -> None:
    """N5"""
    arms = ", ".join(f"{n} -> store {{ id: {n} }} -> out" for n in range(300))
    steps = f'for x in [{value}] {{ match x {{ {arms}, _ -> skip }} store {{ id: "end" }} -> out }}'
    ran = (await bench.run(mission(steps))).ok()
    assert list(ran.out) == ([str(value), "end"] if value < 300 else [])


async def test_many_catch_arms_are_tried_in_order(bench: Bench) -> None:
    arms = ", ".join(f'{{ error: "e{n}" }} -> store {{ id: {n} }} -> out' for n in range(150))
    steps = (
        f'match 1 {{ 1 -> store null -> out }} catch {{ {arms}, {{ kind: "store" }} -> store {{ id: "last" }} -> out }}'
    )
    assert list((await bench.run(mission(steps))).ok().out) == ["last"]
