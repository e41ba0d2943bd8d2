"""Missions: every production, every disambiguation, and going on after an error."""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reqon.diagnostics import Diagnostic, Source, render, render_all
from reqon.lang import nodes
from reqon.lang.canonical import canonical
from reqon.lang.parser import Start, parse, parse_fragment
from reqon.lang.printer import to_text
from reqon.lang.steps import HYPHENATED
from reqon.lang.walk import walk
from tests.lang import grammar
from tests.support import corpus, language_tables

CORPUS = corpus.missions("syntax", *corpus.RUN)
TEXTS = [path.read_text("utf-8") for path in CORPUS]


def findings(text: str, **flags: Any) -> list[Diagnostic]:
    return parse(Source("m.vague", text), **flags)[1]


def places(text: str) -> list[tuple[str, str]]:
    """Code and text of each finding."""
    return [(d.code, d.span.text if d.span else "") for d in findings(text)]


def in_action(text: str) -> str:
    return f"action A {{\n  {text}\n}}"


def steps(text: str) -> tuple[Any, ...]:
    found, diagnostics = parse_fragment(Source("s", text), Start.STEPS)
    assert not diagnostics, render_all(diagnostics)
    return found


def step(text: str) -> Any:
    (found,) = steps(text)
    return found


def top(text: str) -> Any:
    tree, diagnostics = parse(Source("m.vague", text))
    assert not diagnostics, render_all(diagnostics)
    (item,) = tree.items
    return item


# --- all of the corpus -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_corpus_parses(path: Path) -> None:
    source = Source(path.name, path.read_bytes().decode())
    tree, found = parse(source)
    assert not [d for d in found if d.severity == "error"], render_all(found)
    assert tree.items
    for node in walk(tree):
        assert 0 <= node.span.start <= node.span.end <= len(source.text)


def test_the_corpus_has_every_kind_of_node() -> None:
    seen = {type(node) for text in TEXTS for node in walk(parse(Source("m", text))[0])}
    every = {kind for kind in vars(nodes).values() if isinstance(kind, type) and issubclass(kind, nodes.Node)}
    assert every - seen == {nodes.Node}


# --- steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "source", "path"),
    [
        ('get "/a"', None, '"/a"'),
        ('GET "/a"', None, '"/a"'),
        ('get Depot "/a"', "Depot", '"/a"'),
        ('get Depot concat("/a/", n)', "Depot", 'concat("/a/", n)'),
        ("get path", None, "path"),
        ("get path from Depot", "Depot", "path"),
        ('get "/a" from Depot { timeout: 5 }', "Depot", '"/a"'),
        ("get Depot.path", None, "Depot.path"),
        ("get concat(a)", None, "concat(a)"),
        ("get from", None, "from"),
        ("get from from from", "from", "from"),
        ('get `the api` "/a"', "the api", '"/a"'),
        ("get a + b", None, "a + b"),
        ('get "/a" + b { body: 1 }', None, '"/a" + b'),
        ("delete x", None, "x"),
        ('delete Depot "/a"', "Depot", '"/a"'),
        ("delete (x[0])", None, "x[0]"),
    ],
)
def test_the_source_of_a_request(text: str, source: str | None, path: str) -> None:
    found = step(text)
    assert isinstance(found, nodes.Fetch)
    assert (found.source.text if found.source else None, canonical(found.path)) == (source, path)


def test_a_prefix_and_its_path_stand_on_one_line() -> None:
    assert places(in_action('get Depot\n"/a"')) == [("syntax", '"/a"')]


def test_delete_with_a_bracket_removes_a_record() -> None:
    assert isinstance(step("delete x[1]"), nodes.Delete)
    assert isinstance(step("delete x [1]"), nodes.Delete)


def test_braces_of_options_stand_on_the_line_of_their_step() -> None:
    assert step('get "/a" { timeout: 5 }').options
    assert places(in_action('get "/a"\n{ timeout: 5 }')) == [("syntax", "{")]
    assert [type(s).__name__ for s in steps('get "/a"\nqueue\nskip\nabort\nretry\nskip')] == [
        "Fetch",
        "Queue",
        "Skip",
        "Abort",
        "Retry",
        "Skip",
    ]


def test_mandatory_braces_may_stand_on_the_next_line() -> None:
    steps("for x in y\n{\n}\nmatch x\n{ _ -> skip }\ncatch\n{ _ -> skip }\nvalidate x\n{ assume a }\nor\n{ skip }")


@pytest.mark.parametrize(
    ("text", "each", "value"),
    [
        ("store each -> s", False, "each"),
        ("store each.x -> s", False, "each.x"),
        ("store each x -> s", True, "x"),
        ("store each .x -> s", True, ".x"),
        ("store each [a] -> s", True, "[a]"),
        ("store each each -> s", True, "each"),
        ("store `each`[0] -> s", False, "each[0]"),
        ("store a -> where", False, "a"),
    ],
)
def test_each_is_a_word_or_a_variable(text: str, each: bool, value: str) -> None:
    found = step(text)
    assert (found.each, canonical(found.value)) == (each, value)


def test_what_follows_for() -> None:
    loop = step("for x in y where a where b or c checkpoint every 5 parallel where d { skip }")
    assert [canonical(c) for c in loop.conditions] == ["a", "b or c", "d"]
    assert (canonical(loop.checkpoint), loop.parallel, len(loop.body)) == ("5", True, 1)
    assert isinstance(step("for x in (y where a) {}").collection, nodes.Where)


def test_an_assumption_with_if() -> None:
    first, second, third = step(
        "validate { assume if a { b, c } assume if a then b else c assume if a then b else c else error 'x' }"
    ).constraints
    assert [canonical(c) for c in first.constraints] == ["b", "c"]
    assert isinstance(second.condition, nodes.Conditional)
    assert (third.severity, canonical(third.message)) == ("error", '"x"')


@pytest.mark.parametrize(
    ("text", "severity", "message"),
    [
        ("else error", "error", None),
        ("else warning 'x'", "warning", '"x"'),
        ("else 'x'", None, '"x"'),
        ("else error .id + 'x'", "error", '.id + "x"'),
        ("else error\n", "error", None),
        ("", None, None),
    ],
)
def test_what_an_assumption_says_when_violated(text: str, severity: str | None, message: str | None) -> None:
    (found,) = step(f"validate {{ assume a {text} }}").constraints
    assert (found.severity, canonical(found.message) if found.message else None) == (severity, message)


def test_bodies_of_arms() -> None:
    found = step(
        "match x { 1 -> Fix, 2 -> n.Fix, 3 -> notify { a: 1 }, 4 -> { skip }, 5 -> run Fix then B, 6 -> queue dlq, "
        "7 -> abort 'x', 8 -> jump Fix then retry { delay: 1 }, 9 -> continue }"
    )
    kinds = [type(arm.body).__name__ for arm in found.arms]
    assert kinds == ["Run", "Run", "Extension", "Block", "Run", "Queue", "Abort", "Jump", "Continue"]
    assert found.arms[0].body == step("match x { 1 -> run Fix }").arms[0].body


def test_a_match_step_may_have_no_subject() -> None:
    assert step("match { a > 1 -> skip, _ -> continue }").subject is None


def test_since_is_a_checkpoint_or_an_expression() -> None:
    def since(text: str) -> Any:
        return step(f"get x {{ since: {text} }}").options[0].value

    assert since("lastSync") == nodes.Since(None, (), span=grammar.SPAN)
    assert canonical(since('lastSync("k")')) == 'lastSync("k")'
    assert [o.key for o in since('lastSync("k") { param: "a" }').options] == ["param"]
    assert isinstance(since("lastSync() { format: iso }"), nodes.Since)
    assert isinstance(since("lastSync\n sinceParam: 'x'"), nodes.Since)
    assert isinstance(since("lastSync sinceParam: 'x'"), nodes.Since)
    for text in (
        "lastSync - 1 day",
        'lastSync("k") ?? daysAgo(1)',
        "lastSync.x",
        "lastSync ? 1 : 2",
        "(lastSync)",
        "x",
    ):
        assert not isinstance(since(text), nodes.Since), text


def test_pagination_is_a_strategy_or_an_object() -> None:
    def paginate(text: str) -> Any:
        return step(f"get x {{ paginate: {text}, until: a }}").options[0].value

    assert isinstance(paginate("page(page, 100)"), nodes.Paginate)
    assert isinstance(paginate("link()"), nodes.Paginate)
    assert isinstance(paginate("mine(1, .x, 'y')"), nodes.Paginate)
    assert isinstance(paginate('{ type: cursor, param: "c" }'), nodes.ObjectLiteral)


def test_soft_keywords_win_at_the_start_of_a_step_only() -> None:
    found = steps("let get = map\nlet match_ = store\nnotify { let: 1, run: queue }\n`get` { a: 1 }")
    assert [type(s).__name__ for s in found] == ["Let", "Let", "Extension", "Extension"]


# --- declarations ----------------------------------------------------------------------------------------------------


def test_a_schedule() -> None:
    every = top("mission M { schedule: every 1 hour { jitter: 5 } }").clauses[0]
    assert (every.kind, every.amount, every.unit, len(every.options)) == ("every", 1, "hours", 1)
    assert every.when_span.text == "every 1 hour"
    cron = top("mission M { schedule: cron '* * * * *' }").clauses[0]
    assert (cron.kind, cron.text) == ("cron", "* * * * *")


def test_clause_words_followed_by_a_colon_are_options() -> None:
    mission = top("mission M { source: 1, run: 2, let: 3, store: 4, if: 5, 'odd': 6, store s: memory('s') }")
    assert [getattr(c, "key", None) for c in mission.clauses] == ["source", "run", "let", "store", "if", "odd", None]


def test_types() -> None:
    def kind(text: str) -> Any:
        return top(f"schema S {{ a: {text} }}").fields[0].type

    assert isinstance(kind("string?"), nodes.OptionalType)
    assert isinstance(kind("a | b | 3"), nodes.UnionType)
    assert isinstance(kind("{ a: int }?"), nodes.OptionalType)
    assert isinstance(kind("3 of string"), nodes.CountedType)
    assert kind("1..2 of array<array<int>>").most == 2
    assert kind("number in -5..0.5").low is not None
    assert kind("decimal(2)?").inner.precision == 2
    assert kind("-1").value == -1
    assert kind("n.Name").name.text == "n.Name"


def test_a_field_may_have_conditions_and_any_name() -> None:
    schema = top(
        "schema S { when: int when .a where .b, where: int? assume: string, assume .x, ...Base, 'odd key': any }"
    )
    assert [type(part).__name__ for part in schema.fields] == [
        "SchemaField",
        "SchemaField",
        "SchemaField",
        "Assume",
        "SchemaSpread",
        "SchemaField",
    ]


def test_forms_of_a_transform() -> None:
    assert top("transform T: A -> B {}").variants[0].schema.text == "A"
    assert top("transform T -> B {}").variants[0].schema is None
    assert top("transform T { (_) -> B {} (A) where .x -> B { a: 1 b: 2 } }").variants[0].schema is None


def test_generated_data_is_refused_in_schemas_and_skipped_elsewhere() -> None:
    text = "a: 0.5: 'x' | 0.5: 'y', unique id: string, n: faker.name(), u: uuid(), x: ~ gauss(1, 2), z: private int"
    text = f"schema S {{ {text} }}"
    assert {code for code, _ in places(text)} == {"vague-generation"}
    assert len(places(text)) == 7
    (skipped,) = findings("dataset D { a: ~ 1 { @ 'x } }' } ^ }")
    assert (skipped.code, skipped.severity) == ("vague-generation", "warning")


# --- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("let x 5", [("syntax", "5")]),
        ("let match = 5", [("reserved-name", "match")]),
        ("x = 5", [("syntax", "x")]),
        ("if x { skip }", [("syntax", "if")]),
        ("gett '/a'", [("syntax", "gett")]),
        ("match x { 1 => skip, _ -> continue }", [("syntax", "=>")]),
        ("match x { 1 skip, _ -> continue }", [("syntax", "skip")]),
        ("match x { 0..5 -> skip }", [("syntax", "..")]),
        ("get '/a' { retry { maxAttempts: 3 } }", [("syntax", "{")]),
        ("get '/a' { ... }", [("syntax", "...")]),
        ("store x", [("syntax", "}")]),
        ("store x: file('x')", [("syntax", ":")]),
        ("validate { a }", [("syntax", "a")]),
        ("validate { assume a else }", [("syntax", "}")]),
        ("validate { assume if a {} }", [("syntax", "}")]),
        ("jump A then skip", [("syntax", "skip")]),
        ("call Depot", [("syntax", "}")]),
        ("wait", [("syntax", "}")]),
        ("for x y { skip }", [("syntax", "y")]),
        ("let x = 'abc", [("unterminated-string", "'abc")]),
        ("let x = @", [("bad-character", "@"), ("syntax", "}")]),
        ("let x = 1 +\n  let y = 2", [("syntax", "let")]),
        ("get\n  skip\n  foo", [("syntax", "skip"), ("syntax", "foo")]),
        ("let x = 1 < 2 < 3", [("comparison-chain", "<")]),
        ("match x { a where 1..2 -> skip }", [("range-not-allowed", "1..2")]),
        ("get x { until: xs | first }", [("pipe-needs-call", "first")]),
        ("/* never closed", [("unterminated-comment", "/*")]),
    ],
)
def test_a_mistake_is_named_at_its_place(text: str, expected: list[tuple[str, str]]) -> None:
    assert places(in_action(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mission {", [("syntax", "{")]),
        ("mission M {", [("syntax", "{")]),
        ("}", [("syntax", "}")]),
        ("run A", [("directive-outside-action", "run")]),
        ("timeout: 5", [("syntax", "timeout")]),
        ("sorce A {}", [("syntax", "sorce")]),
        ("get '/a'", [("syntax", "get")]),
        ("mission M { schedule every 5 hours }", [("syntax", "schedule")]),
        ("mission M { schedule: every 5 }", [("bad-duration", "5")]),
        ("mission M { schedule: 5 }", [("syntax", "5")]),
        ("mission M { run A then }", [("syntax", "}")]),
        ("mission M { ... }", [("syntax", "...")]),
        ("import x", [("syntax", "")]),
        ("schema S { a }", [("syntax", "}")]),
        ("transform T", [("syntax", "")]),
        ("mission if { }", [("reserved-name", "if")]),
    ],
)
def test_a_mistake_outside_actions_is_named_at_its_place(text: str, expected: list[tuple[str, str]]) -> None:
    assert places(text) == expected


def test_one_check_reports_all_mistakes() -> None:
    text = """mission M {
  source A { base: , auth: none }
  store s file("s")
  action X {
    get
    let a = (1 + 2
    store a -> s { key .id, upsert: }
    for x in y {
      foo bar
      let b = 1 +
      let c = 5
    }
    match x { 1 -> , 2 => skip }
  }
  action Y { let = 3 }
  run X then
}
"""
    lines = [d.span.line for d in findings(text) if d.span]
    assert lines == [2, 3, 6, 7, 7, 7, 9, 11, 13, 15, 17]


def test_a_missing_brace_is_one_finding() -> None:
    text = "mission M {\n  action A {\n    for x in y {\n      skip\n  }\n  action B { skip }\n  run A\n}\n"
    (found,) = findings(text)
    assert render(found) == (
        "m.vague:6:3: error: expected '}' before 'action' [syntax]\n"
        "      action B { skip }\n"
        "      ^^^^^^\n"
        "hint: the '{' on line 3 is not closed."
    )
    tree, _ = parse(Source("m", text))
    (mission,) = tree.items
    assert isinstance(mission, nodes.MissionDef)
    assert [type(c).__name__ for c in mission.clauses] == ["ActionDef", "ActionDef", "Run"]


def test_a_brace_too_many_is_one_finding() -> None:
    assert places("mission M {\n  action A { skip } }\n}\n}\n}") == [("syntax", "}")]


def test_clauses_in_a_part_are_its_own_error() -> None:
    found = findings("run A\nschedule: every 1 hour\ntimeout: 5\naction A { skip }", part=True)
    assert [d.code for d in found] == ["mission-in-part"] * 3


def test_messages_in_full() -> None:
    (found,) = findings("action A {\n  match x {\n      { ok: true } => continue\n  }\n}\n")
    assert render(found) == (
        "m.vague:3:20: error: unexpected '=>' in a match step [syntax]\n"
        "          { ok: true } => continue\n"
        "                       ^^\n"
        "hint: arms of a match step use '->'; '=>' belongs to match expressions."
    )
    (found,) = findings("mission M { action A { validate { ... } } }")
    assert found.message == "'...' must be followed by a value to spread"
    assert found.hint == "remove this placeholder"


# --- fragments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "text", "count"),
    [
        ("clauses", "timeout: 5\nrun A\nstore s: file('s'), action A { skip }", 4),
        ("steps", "get '/a'\nskip, skip", 3),
        ("options", "timeout: 5, retry: { delay: 1 }\npaginate: page(p, 5)", 3),
        ("arms", "1 -> skip\n{ a: _ } -> continue, _ -> abort", 3),
        ("expressions", "a + b\n.x\n[1]\n(2)\n-3", 4),
        (
            "mixed",
            "store x -> s\nstore s: file('s')\naction A { skip }\nmatch x { _ -> skip }\nrun A\nsource S { a: 1 }",
            6,
        ),
        ("program", "let a = 1\nmission M { run A }", 2),
    ],
)
def test_fragments(start: str, text: str, count: int) -> None:
    found, diagnostics = parse_fragment(Source("f", text), start)
    assert not diagnostics, render_all(diagnostics)
    assert len(found) == count


# --- any text --------------------------------------------------------------------------------------------------------


def _check_any(text: str) -> None:
    source = Source("m", text)
    tree, found = parse(source)
    for diagnostic in found:
        assert render(diagnostic)
        assert diagnostic.span is not None
        assert 0 <= diagnostic.span.start <= diagnostic.span.end <= len(text)
    if not any(d.severity == "error" for d in found):
        printed = to_text(tree)
        again, rest = parse(Source("m", printed))
        assert not any(d.severity == "error" for d in rest), printed
        assert again == tree, printed
        assert to_text(again) == printed


@given(st.text())
@settings(deadline=None)
def test_any_text_gives_a_tree_and_findings(text: str) -> None:
    """N5, in part."""
    _check_any(text)


@given(st.lists(st.sampled_from(grammar.SCRAPS), max_size=40))
@settings(deadline=None)
def test_any_tokens_give_a_tree_and_findings(scraps: list[str]) -> None:
    """N5, in part."""
    _check_any(" ".join(scraps))


@given(grammar.damaged(TEXTS))
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_mission_gives_a_tree_and_findings(text: str) -> None:
    """N5, in part."""
    _check_any(text)


@given(grammar.damaged(TEXTS), st.sampled_from(list(Start)))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_fragment_gives_nodes_and_findings(text: str, start: Start) -> None:
    found, diagnostics = parse_fragment(Source("f", text), start)
    assert all(isinstance(node, nodes.Node) for node in found)
    assert all(d.code for d in diagnostics)


@pytest.mark.parametrize(
    "text",
    [
        "{" * 190_000,
        "action A {\n" * 60_000,
        "action A { " + "for x in y {\n" * 40_000,
        "action A { match x {" + "_ -> match x {" * 30_000,
        "action A { match x {" + "[" * 100_000,
        "action A { match x {" + "{ a: " * 60_000,
        "action A { validate { " + "assume if (a) " * 9_000,
        "action A {\n" + "foo bar\n" * 60_000,
        "action A { get x { " + "since: lastSync { " * 30_000,
        "let x = " + "(" * 190_000,
        "let x = " + "a ? b : " * 40_000,
        "let x = f(" + "x => " * 60_000,
        "let x = " + "if a then b else " * 30_000,
        "let x = " + "a or b and c == d ?? 1 + 2 * - (" * 10_000,
        "schema S { a: " + "array<" * 60_000,
        "schema S { a: " + "1 of " * 60_000,
        "schema S { " + "a: { " * 60_000,
        "schema S { a: 1" + " | 1" * 90_000 + " }",
        "schema S { " + "a: ~ f(( { " * 30_000,
        "dataset D { " * 60_000,
        "run A" + " then A" * 90_000,
        "mission M { run [" + "A, " * 90_000,
        "action A { " + "validate { } or " * 40_000,
        "import 'x' " * 90_000,
    ],
    ids=lambda text: text[:24],
)
def test_hostile_texts_are_refused_in_time(text: str) -> None:
    """N5, in part."""
    start = time.process_time()
    tree, _ = parse(Source("m", text))
    assert time.process_time() - start < 2
    assert canonical(tree) is not None


def test_every_code_of_the_parser_is_known() -> None:
    allowed = {
        "syntax", "unterminated-string", "unterminated-comment", "bad-character", "bad-number", "comparison-chain",
        "range-not-allowed", "pipe-needs-call", "vague-generation", "reserved-name", "bad-duration", "mission-in-part",
        "directive-outside-action",
    }  # fmt: skip
    room = Path(parse.__code__.co_filename).parent
    modules = ("lexer", "cursor", "match_patterns", "expressions", "steps", "declarations", "parser")
    text = "".join((room / f"{module}.py").read_text("utf-8") for module in modules)
    assert set(re.findall(r'(?:report|Diagnostic)\(\s*"([a-z-]+)"', text)) == allowed


def test_a_large_mission_parses_quickly(tmp_path: Path) -> None:
    """About 45 ms on an idle core; the bound leaves room for a busy one."""
    action = """  action Step{n} {{
    get "/customers" {{ paginate: page(page, 100), until: length(response.data) == 0 }}
    for row in raw where .status == "ACTIVE" and .total > {n} {{
      map row -> Contact{n} {{
        id: .id,
        name: .firstName + " " + .lastName,
        net: round((.total - {n}) * 100) / 100
      }}
      store response -> done {{ key: .id }}
    }}
  }}
"""
    text = "mission Big {\n" + "".join(action.format(n=n) for n in range(180)) + "}\n"
    path = tmp_path / "big.vague"
    path.write_text(text)
    program = (
        "import sys, time; from reqon.diagnostics import Source; from reqon.lang.parser import parse\n"
        "source = Source('big', open(sys.argv[1]).read()); times = []\n"
        "for _ in range(5):\n"
        "    start = time.process_time(); _, found = parse(source); times.append(time.process_time() - start)\n"
        "    assert not found\n"
        "print(min(times))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.15


# --- words with a minus ----------------------------------------------------------------------------------------------


def test_hyphenated_words_are_those_of_the_options() -> None:
    assert {word for word in language_tables.option_words() if not word.isidentifier()} == HYPHENATED


@pytest.mark.parametrize("word", sorted(HYPHENATED))
def test_a_hyphenated_word_equals_its_text(word: str) -> None:
    def value(text: str) -> Any:
        return step(f'get "/a" {{ since: x {{ }}, sinceFormat: {text} }}'.replace("x { }", "x")).options[1].value

    assert value(word) == value(f'"{word}"')
    assert value(word.replace("-", " - ")) != value(word)
    assert value(f"{word}er") != value(word)


def test_an_object_after_match_or_validate_needs_parentheses() -> None:
    (found,) = findings(in_action("match { a: 1 } { _ -> skip }"))[:1]
    assert "match ({ … })" in (found.hint or "")
    (found,) = findings(in_action("validate { a: 1 } { assume .a }"))[:1]
    assert "validate ({ … })" in (found.hint or "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "mission M {\n  action A {\n    for r in x {\n      skip\n  }\n  run A\n}\n",
            "                   ^\nhint: add a '}' where its block ends, before line 5.",
        ),
        ("mission M { action A { skip }", "1:11: error: '{' is not closed [syntax]"),
        ("mission M {\n  action A { skip }\n  run A -> B\n}", "hint: stages are joined by then: run A then B."),
        ("hello world", "hint: a mission begins with: mission Name { … }"),
    ],
)
def test_a_missing_bracket_and_slips_around_missions_are_told_where_they_are(text: str, said: str) -> None:
    assert said in render_all(parse(Source("t", text))[1])
