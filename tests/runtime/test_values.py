"""`let`, `map`, `apply` and `validate` (spec/language.md 7.4, 7.5, 7.7)."""

from reqon.events import Noticed
from tests.support.missions import Bench, mission
from tests.support.servers import ScriptedServer, reply


async def test_let_binds_once_and_is_read_later(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data={"n": 2}))
    ran = await bench.run(mission('get "/x"\nlet n = response.n\nlet m = n * 10\nstore { id: "a", n: n, m: m } -> out'))
    assert ran.ok().out == {"a": {"id": "a", "n": 2, "m": 20}}


async def test_a_mapped_variable_shows_its_new_fields_and_the_old_ones_behind(
    api: ScriptedServer, bench: Bench
) -> None:
    api.on("/x", reply(data=[{"serial": 7, "cm": 150, "name": "Pier"}]))
    steps = """
      get "/x"
      for g in response {
        map g -> Row { id: .serial, metres: .cm / 100 }
        store g -> out { key: .id }
        store { id: concat(g.id, "-old"), name: g.name, cm: g.cm, new: g.metres } -> out
      }"""
    ran = await bench.run(mission(steps))
    assert ran.ok().out == {
        "7": {"id": 7, "metres": 1.5},
        "7-old": {"id": "7-old", "name": "Pier", "cm": 150, "new": 1.5},
    }


async def test_map_sets_response_and_binds_an_undeclared_target(bench: Bench) -> None:
    steps = """
      let a = { id: "k", x: 1 }
      map a -> shaped { id: .id, y: .x + 1 }
      store response -> out
      store { id: "t", y: shaped.y, x: a.x } -> out"""
    ran = await bench.run(mission(steps))
    assert ran.ok().out == {"k": {"id": "k", "y": 2}, "t": {"id": "t", "y": 2, "x": 1}}


async def test_map_of_null_gives_null_fields(bench: Bench) -> None:
    ran = await bench.run(mission('let a = null\nmap a -> t { id: "k", y: .x }\nstore response -> out'))
    assert ran.ok().out == {"k": {"id": "k", "y": None}}


async def test_map_without_a_mapping_needs_an_object(bench: Bench) -> None:
    ran = await bench.run(mission("let a = 3\nmap a -> t"))
    assert ran.error.type == "eval"
    assert ran.error.location == "test.vague:9:5"


async def test_map_entries_come_in_order_and_spread(bench: Bench) -> None:
    steps = 'let a = { id: "k", x: 1, y: 2 }\nmap a -> t { x: 5, ...a, y: 9 }\nstore response -> out'
    ran = await bench.run(mission(steps))
    assert ran.ok().out == {"k": {"id": "k", "x": 1, "y": 9}}


TRANSFORM = """
  schema Big { id: string, n: int }
  schema Small { id: string, s: string }
  schema Out { id: string }
  transform T {
    (Big) where .n > 10 -> Out { id: .id, kind: "big" }
    (Big) -> Out { id: .id, kind: "number" }
    (Small) -> Out { id: .id, kind: "text" }
  }
"""


async def test_apply_takes_the_first_variant_whose_schema_and_guard_hold(bench: Bench) -> None:
    steps = """
      for x in [{ id: "a", n: 11 }, { id: "b", n: 3 }, { id: "c", s: "t" }] {
        apply T to x as y
        store y -> out
      }"""
    ran = await bench.run(mission(steps, declarations=TRANSFORM))
    assert [r["kind"] for r in ran.ok().out.values()] == ["big", "number", "text"]


async def test_apply_without_a_name_sets_response(bench: Bench) -> None:
    ran = await bench.run(
        mission('let x = { id: "a", n: 1 }\napply T to x\nstore response -> out', declarations=TRANSFORM)
    )
    assert ran.ok().out == {"a": {"id": "a", "kind": "number"}}


async def test_a_value_that_no_variant_takes_is_an_error(bench: Bench) -> None:
    ran = await bench.run(mission("let x = { id: 3 }\napply T to x\nstore response -> out", declarations=TRANSFORM))
    assert ran.error.type == "no_variant" and ran.error.action == "A"
    assert ran.error.step == "apply T to x"
    assert ran.out == {}


async def test_only_a_wildcard_variant_takes_null(bench: Bench) -> None:
    transform = """
  schema Out { id: string }
  transform T { (Out) -> Out { id: .id }
    (_) -> Out { id: "none", was: .id } }"""
    ran = await bench.run(mission("apply T to null\nstore response -> out", declarations=transform))
    assert ran.ok().out == {"none": {"id": "none", "was": None}}


# --- validate --------------------------------------------------------------------------------------------------------


async def test_a_violated_warning_lets_the_item_go_on_and_counts_it_once(bench: Bench) -> None:
    bench.listen = (Noticed,)
    steps = """
      for x in [{ id: "a", n: 1 }, { id: "b" }] {
        validate x { assume .n != null, assume .n > 0 else "no level" }
        store x -> out
      }"""
    ran = await bench.run(mission(steps))
    assert list(ran.ok().out) == ["a", "b"]
    assert ran.record.invalid == 1
    assert [e.message for e in ran.told("notice")] == [  # type: ignore[attr-defined]
        "constraint violated: .n != null",
        "constraint violated: no level",
    ]


async def test_a_violated_error_fails_after_all_were_judged(bench: Bench) -> None:
    steps = """
      let x = { id: "a" }
      validate x { assume .n != null else error "no n", assume .m != null else error concat("no m in ", .id),
          assume .z else warning "z" }
      store x -> out"""
    ran = await bench.run(mission(steps))
    assert ran.error.type == "validation"
    assert "no n" in ran.error.message and "no m in a" in ran.error.message and "z" not in ran.error.message
    assert ran.out == {} and ran.record.invalid == 1


async def test_an_or_body_runs_once_and_nothing_is_raised(bench: Bench) -> None:
    steps = """
      for x in [{ id: "a", n: 1 }, { id: "b" }, { id: "c", n: 3 }] {
        validate x { assume .n else error, assume .n > 0 else error } or {
          store { id: concat("bad-", .id) } -> out
          skip
        }
        store x -> out
      }"""
    ran = await bench.run(mission(steps))
    assert list(ran.ok().out) == ["a", "bad-b", "c"]
    assert ran.record.invalid == 1 and ran.record.errors == ()


async def test_conditional_constraints_hold_only_under_their_condition(bench: Bench) -> None:
    steps = """
      for x in [{ id: "a", kind: "buoy" }, { id: "b", kind: "tide" }, { id: "c", kind: "buoy", p: 1, q: 1 }] {
        validate x { assume if .kind == "buoy" { .p != null, .q != null } else error } or { skip }
        store x -> out
      }"""
    ran = await bench.run(mission(steps))
    assert list(ran.ok().out) == ["b", "c"]


async def test_a_constraint_that_cannot_be_evaluated_is_violated(bench: Bench) -> None:
    steps = 'let x = { id: "a", n: [] }\nvalidate x { assume .n * {} > 3 else error "odd" }'
    ran = await bench.run(mission(steps))
    assert ran.error.type == "validation" and "odd" in ran.error.message


async def test_validate_without_a_target_judges_response_and_leaves_it(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data={"id": "a"}))
    ran = await bench.run(mission('get "/x"\nvalidate { assume .id == "a" else error }\nstore response -> out'))
    assert ran.ok().out == {"a": {"id": "a"}}


async def test_an_or_body_that_aborts_fails_the_mission(bench: Bench) -> None:
    ran = await bench.run(mission('let x = {}\nvalidate x { assume .id } or abort "no id"'))
    assert ran.error.type == "abort" and ran.error.message == "no id"
