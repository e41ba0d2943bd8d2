"""The static checks: golden missions say on each line what is wrong with it; the printed form stands beside them."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reqon.diagnostics import Source, render_all
from reqon.lang.check import Registered
from reqon.lang.loader import load_text
from reqon.lang.program import Program
from reqon.runtime.plan import Plan

GOLDEN = Path(__file__).parents[1] / "golden"
MISSIONS = sorted(GOLDEN.glob("*.vague"))
_EXPECTED = re.compile(r"//!(.*)")


def check(text: str, known: Registered | None = None) -> Program:
    return load_text(Source("m.vague", text), known=known or Registered())


def found(text: str, known: Registered | None = None) -> list[tuple[int, str]]:
    """Line and code of every finding."""
    return [(d.span.line if d.span else 0, d.code) for d in check(text, known).all_diagnostics]


def in_action(steps: str) -> list[str]:
    """The codes of what is found in an action of a mission with a source, a store and a schema."""
    text = f"""mission M {{
      source Depot {{ base: "http://localhost:1" }}
      store rows: memory("rows")
      schema Bin {{ code: string }}
      action Other {{ store {{ id: 1 }} -> rows }}
      action Load {{ {steps} }}
      run Load then Other
    }}"""
    return [code for _, code in found(text)]


@pytest.mark.parametrize("path", MISSIONS, ids=lambda path: path.stem)
def test_each_line_has_the_findings_it_announces(path: Path) -> None:
    text = path.read_text()
    expected = [
        (number, code.strip())
        for number, line in enumerate(text.splitlines(), 1)
        if (marked := _EXPECTED.search(line))
        for code in marked[1].split(",")
    ]
    program = load_text(Source(path.name, text))
    actual = [(d.span.line if d.span else 0, d.code) for d in program.all_diagnostics]
    assert sorted(actual) == sorted(expected)


@pytest.mark.parametrize("path", MISSIONS, ids=lambda path: path.stem)
def test_findings_are_printed_as_the_golden_text_shows(path: Path, *, update_golden: bool) -> None:
    printed = render_all(load_text(Source(path.name, path.read_text())).all_diagnostics) + "\n"
    beside = path.with_suffix(".txt")
    if update_golden:
        beside.write_text(printed)
    assert printed == beside.read_text()


# --- codes -----------------------------------------------------------------------------------------------------------

# The table of spec/language.md 5, but for what only the parser, folders and imports can find, which have tests there.
ELSEWHERE = {
    "unterminated-comment",
    "bad-number",
    "directive-outside-action",
    "shadowed-part",
    "mission-in-part",
    "ambiguous-root",
    "no-mission",
    "import-not-found",
    "import-cycle",
    "import-clash",
}
CODES = {
    "ambiguous-unit",
    "bad-character",
    "bad-cron",
    "bad-duration",
    "bad-lambda",
    "bad-option-value",
    "bad-schedule",
    "bad-timezone",
    "comparison-chain",
    "continue-not-in-arm",
    "duplicate-action",
    "duplicate-clause",
    "duplicate-key",
    "duplicate-mission",
    "duplicate-schema",
    "duplicate-source",
    "duplicate-store",
    "duplicate-transform",
    "duplicate-variable",
    "get-with-body",
    "insecure-basic",
    "literal-secret",
    "map-target-fields",
    "missing-base",
    "missing-path-param",
    "missing-run",
    "mixed-targets",
    "no-current-item",
    "no-source",
    "non-exhaustive-match",
    "paginate-without-until",
    "pipe-needs-call",
    "range-not-allowed",
    "recursive-action",
    "reserved-name",
    "retry-without-fetch",
    "shadowed-arm",
    "since-options-without-since",
    "syntax",
    "undefined-action",
    "undefined-adapter",
    "undefined-auth",
    "undefined-function",
    "undefined-name",
    "undefined-operation",
    "undefined-pagination",
    "undefined-schema",
    "undefined-source",
    "undefined-step",
    "undefined-store",
    "undefined-transform",
    "unknown-option",
    "unreachable-arm",
    "unreachable-step",
    "unterminated-string",
    "until-without-paginate",
    "unused-action",
    "unused-let",
    "unused-store",
    "vague-generation",
    "wrong-arity",
}


def test_every_check_of_the_specification_has_a_golden_line() -> None:
    announced = {
        code.strip()
        for path in MISSIONS
        for line in path.read_text().splitlines()
        if (marked := _EXPECTED.search(line))
        for code in marked[1].split(",")
    }
    assert announced >= CODES
    assert not announced & ELSEWHERE


def test_three_mistakes_in_a_file_give_three_findings() -> None:
    text = """mission M {
      source Depot { base: "http://localhost:1", tiemout: 5 }
      store rows: memory("rows")
      action Load { get "/x" { retries: 3 } store response -> row { key: .id } }
      run Load
    }"""
    assert found(text) == [(2, "unknown-option"), (4, "unknown-option"), (4, "undefined-store")]


def test_the_worked_mission_of_the_readme_kind_has_no_findings() -> None:
    assert in_action('get "/x" store response -> rows { key: .id, upsert: true }') == []


# --- what Python registers -------------------------------------------------------------------------------------------


def test_registered_words_are_known() -> None:
    known = Registered(
        functions=frozenset(["score"]),
        adapters=frozenset(["mongo"]),
        auth=frozenset(["hmac"]),
        pagination=frozenset(["pages"]),
        steps=frozenset(["notify"]),
        state_stores=frozenset(["vault"]),
    )
    text = """mission M {
      stateStore: vault
      source S { base: "http://localhost:1", auth: hmac }
      store rows: mongo("rows")
      action A {
        get "/x" { paginate: pages(p, 10), until: p > 3 }
        notify { text: score(response) }
        store response -> rows
      }
      run A
    }"""
    assert found(text, known) == []
    assert {code for _, code in found(text)} == {
        "bad-option-value",
        "undefined-auth",
        "undefined-function",
        "undefined-adapter",
        "undefined-pagination",
        "undefined-step",
    }


def test_operations_and_their_path_parameters_are_checked_where_the_document_is_at_hand() -> None:
    known = Registered(operations=lambda _: {"listBins": (), "getBin": ("binId",)})
    text = """mission M {
      source S from "spec.yaml" { auth: none }
      store rows: memory("rows")
      action A {
        call S.listBins
        call S.getBin { params: { binId: 1 } }
        call S.getBin { params: response }
        call S.getBin
        call S.listBin
        store response -> rows
      }
      run A
    }"""
    program = check(text, known)
    assert [(d.span.line if d.span else 0, d.code) for d in program.all_diagnostics] == [
        (8, "missing-path-param"),
        (9, "undefined-operation"),
    ]
    assert program.all_diagnostics[1].hint == "operations with a similar name: listBins, getBin"
    assert found(text) == []


# --- scopes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        "let a = 1 for x in rows { let a = x store a -> rows } store { id: a } -> rows",
        "for x in rows { map x -> Tray { id: .id } store x -> rows store Tray -> rows }",
        "for x in rows { map x -> Bin { code: .id } store x -> rows } map rows[1] -> T { a: 1 } map rows -> T { b: 2 }",
        "match rows[1] { { id: i } where i > 1 and .id > 2 -> store { id: i } -> rows, other -> store other -> rows }",
        "let names = rows.map((r, i) => r.id + i) store { id: first(names) } -> rows",
        "let best = rows where .score > 3 store best -> rows",
        "let any1 = any of rows where .a store { id: any1 } -> rows",
        "validate rows[1] { assume .a else concat(.b) } or { queue rows { item: { a: .a } } skip }",
        'get "/x" { until: page > 3 or hasMore, paginate: page(page, 10) } store response -> rows',
        'post "/x" { body: { since: lastSync, id: request.operationId, w: webhook, o: currentOperation } }',
        "store { id: 1 } -> rows { key: .id } delete rows[rows[0].id]",
        "match { length(rows) > 5 -> skip, _ -> continue }",
        "let band = match rows[0] { Bin => 1, [Bin] => 2, { code: c } where c > .x => c, v => v } store band -> rows",
        "let s = rows.get(5) store s -> rows",
        "let total = rows | sum(.n) store { id: total, most: max(.a, .b) } -> rows",
    ],
)
def test_names_that_are_in_scope_are_found(steps: str) -> None:
    assert in_action(steps) == []


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ("for x in rows { skip } store x -> rows", "undefined-name"),
        ("match rows { v -> skip } store v -> rows", "undefined-name"),
        ("let a = rows.map(x => x.id) store { id: x, a: a } -> rows", "undefined-name"),
        ('get "/x" { paginate: page(page, 10), until: hasMore } store { id: hasMore } -> rows', "undefined-name"),
        ("store b -> rows let b = rows[1]", "undefined-name"),
    ],
)
def test_names_vanish_at_the_end_of_their_block(steps: str, code: str) -> None:
    assert code in in_action(steps)


# --- hostile texts ---------------------------------------------------------------------------------------------------


def test_chains_of_any_length_are_followed_without_recursion() -> None:
    count = 3000
    actions = "\n".join(f"action A{n} {{ run A{n + 1} }}" for n in range(count))
    schemas = "\n".join(f"schema S{n} from S{n + 1} {{ }}" for n in range(count))
    text = f"""mission M {{ {actions}
      action A{count} {{ map 1 -> S0 {{ a: 1 }} run A0 }} {schemas}
      schema S{count} {{ a: int, b: int }} run A0 }}"""
    assert sorted({code for _, code in found(text)}) == ["map-target-fields", "recursive-action"]


@given(st.sampled_from(MISSIONS), st.data())
@settings(max_examples=60, deadline=None)
def test_a_text_with_anything_cut_out_is_checked_without_failing(path: Path, data: st.DataObject) -> None:
    text = path.read_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 200)))
    program = check(text[:start] + text[end:])
    assert render_all(program.all_diagnostics) or program.missions


def test_thousands_of_mistakes_among_thousands_of_names_are_found_in_good_time() -> None:
    count = 3000
    stores = " ".join(f'store s{n}aaaa: memory("x")' for n in range(count))
    steps = " ".join(f"clear t{n}bbbb let v{n} = w{n}cccc" for n in range(count))
    text = f"mission M {{ {stores} action A {{ {steps} }} run A }}"
    begin = time.process_time()
    assert len([code for _, code in found(text) if code.startswith("undefined")]) == 2 * count
    assert time.process_time() - begin < 20  # quadratic would take minutes


@pytest.mark.parametrize(
    ("option", "codes"),
    [
        ('paginate: cursor(after, 2, "lenght(rows) == 2"), until: true', ["undefined-function"]),
        ('paginate: cursor(after, 2, "length(rows, 1)"), until: true', ["wrong-arity"]),
        ('paginate: { type: cursor, param: "a", cursorPath: "nope(rows)" }, until: true', ["undefined-function"]),
        ('since: lastSync { updateFrom: "nope(data)" }', ["undefined-function"]),
        ('since: lastSync { updateFrom: "nope(data[].at)" }', ["undefined-function"]),
        ('since: lastSync { updateFrom: "data[].at +" }', ["syntax"]),
        ('since: lastSync { updateFrom: "data[].at" }', []),
        ('paginate: cursor(after, 2, "if length(rows) == 2 then rows[-1].id else null"), until: true', []),
    ],
)
def test_texts_that_are_expressions_are_checked_as_such(option: str, codes: list[str]) -> None:
    """What the compiler would refuse is found by `check`: a run compiles a step when it comes to it."""
    text = (
        'mission M { source D { auth: none, base: "http://x" } store s: memory("s") '
        f'action A {{ get "/rows" {{ {option} }} store response -> s }} run A }}'
    )
    program = load_text(Source("m.vague", text))
    assert [d.code for d in program.all_diagnostics if d.severity == "error"] == codes
    if not codes:
        Plan(program.missions[0], environment={}).compile()
