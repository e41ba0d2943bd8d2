"""Expressions: precedence, line breaks, places, and what may not be combined."""

import pytest

from reqon.diagnostics import Diagnostic, Source, render_all
from reqon.lang import nodes
from reqon.lang.canonical import canonical
from reqon.lang.parser import parse_expression


def read(text: str) -> nodes.Expression:
    found, diagnostics = parse_expression(Source("e", text))
    assert not diagnostics, render_all(diagnostics)
    assert found is not None
    return found


def findings(text: str) -> list[Diagnostic]:
    return parse_expression(Source("e", text))[1]


@pytest.mark.parametrize(
    ("text", "grouped"),
    [
        ("a + b * c", "a + (b * c)"),
        ("a - b - c", "(a - b) - c"),
        ("a / b * c", "(a / b) * c"),
        ("-a * b", "(-a) * b"),
        ("-a.b", "-(a.b)"),
        ("!a == b", "(!a) == b"),
        ("not a == b", "not (a == b)"),
        ("not a and b", "(not a) and b"),
        ("not not a or b", "(not (not a)) or b"),
        ("a or b and c", "a or (b and c)"),
        ("a and not b or c", "(a and (not b)) or c"),
        ("a ?? b ?? c", "a ?? (b ?? c)"),
        ("a ?? b == c", "(a ?? b) == c"),
        ("a + 1 | f()", "(a + 1) | f()"),
        ("a | f() | g(1) ?? b", "((a | f()) | g(1)) ?? b"),
        ("a == b | f()", "a == (b | f())"),
        ("a in 1..2 + 3", "a in (1..(2 + 3))"),
        ("a ? b : c ? d : e", "a ? b : (c ? d : e)"),
        ("a or b ? c : d", "(a or b) ? c : d"),
        ("1 - if a then 2 else 3 + 4", "1 - (if a then 2 else (3 + 4))"),
        ("if a then b else c where d", "(if a then b else c) where d"),
        ("a where b where c", "(a where b) where c"),
        ("a where b or c", "a where (b or c)"),
        ("any of a where b or c", "any of a where (b or c)"),
        ("a is string or b", "(a is string) or b"),
        ("a contains b and c", "(a contains b) and c"),
        ("f(a).b[c].d(e)", "((f(a).b)[c]).d(e)"),
    ],
)
def test_precedence(text: str, grouped: str) -> None:
    assert read(text) == read(grouped)


@pytest.mark.parametrize(
    ("text", "code", "at"),
    [
        ("a < b < c", "comparison-chain", "<"),
        ("a == b is null", "comparison-chain", "is"),
        ("1..2", "range-not-allowed", "1..2"),
        ("[1, 2..3]", "range-not-allowed", "2..3"),
        ("a in 1..2..3", "range-not-allowed", "1..2"),
        ("xs | first", "pipe-needs-call", "first"),
        ("xs | a.f()", "pipe-needs-call", "a.f()"),
        ("xs | 5", "pipe-needs-call", "5"),
        ("a + not b", "syntax", "not"),
        ("a +", "syntax", ""),
        ("(a", "syntax", ""),
        ("a b", "syntax", "b"),
        ("{ a: 1 b: 2 }", "syntax", "b"),
        ("[1 2]", "syntax", "2"),
        ("f(a b)", "syntax", "b"),
        ("...", "syntax", "..."),
        ("[...]", "syntax", "..."),
        ("x => 1", "syntax", "=>"),
        ("if a then b", "syntax", ""),
        ("match x { 1 -> 2 }", "syntax", "->"),
        ("a.0", "syntax", "0"),
        ("a is not null", "syntax", "not"),
        ("_ + 1", "syntax", "_"),
        ("then", "syntax", "then"),
        ("a = b", "syntax", "="),
        ("a ~ b", "bad-character", "~"),
        ("{ a }", "syntax", "}"),
    ],
)
def test_what_is_wrong_is_named_at_its_place(text: str, code: str, at: str) -> None:
    first = findings(text)[0]
    assert first.code == code
    assert first.span is not None
    assert first.span.text == at


def test_hints_say_what_to_write() -> None:
    hints = {text: findings(text)[0].hint for text in ("a < b < c", "xs | first", "[...]", "x => 1", "a is not null")}
    assert hints["a < b < c"] == "write: a < b and b < c"
    assert hints["xs | first"] == "write: first()"
    assert hints["[...]"] == "remove this placeholder"
    assert "argument of a call" in (hints["x => 1"] or "")
    assert hints["a is not null"] == "write: not (x is T)"


def test_what_is_appended_starts_on_the_line_where_its_value_ended() -> None:
    assert findings("a\n.b")[0].code == "syntax"
    assert findings("a\n[0]")[0].code == "syntax"
    assert findings("f\n(1)")[0].code == "syntax"
    assert read("(a\n.b\n[0])") == read("a.b[0]")
    assert read("[a\n.b]") == read("[a.b]")
    assert read("f(a\n.b)") == read("f(a.b)")
    entry = read("({ x: a\n`b`: 1 })")
    assert isinstance(entry, nodes.ObjectLiteral)
    assert len(entry.entries) == 2
    assert findings("[{ x: a\n.b }]")[0].code == "syntax"


def test_an_operator_may_start_a_line_but_a_key_is_none() -> None:
    assert read("a\n+ b\nor c") == read("a + b or c")
    made = read("{ a: 1\nor: 2\nin: 3\nwhere: 4\nis: 5 }")
    assert isinstance(made, nodes.ObjectLiteral)
    assert [entry.key for entry in made.entries if isinstance(entry, nodes.Entry)] == ["a", "or", "in", "where", "is"]


def test_units_follow_numbers_on_their_line() -> None:
    assert read("5 minutes") == read("5 minute")
    assert read("2 days.x") == read("(2 days).x")
    assert isinstance(read("{ a: 5\ndays: 3 }"), nodes.ObjectLiteral)
    assert findings("5\nminutes")[0].code == "syntax"


def test_functions_are_read_in_arguments_only() -> None:
    call = read("f(x => x, (a, b) => a, (y), z, ...w, (p),)")
    assert isinstance(call, nodes.Call)
    kinds = [type(argument).__name__ for argument in call.arguments]
    assert kinds == ["Lambda", "Lambda", "Name", "Name", "Spread", "Name"]


def test_the_forms_of_a_call_are_one_tree() -> None:
    assert read("f(a, b)") == read("a.f(b)") == read("a | f(b)")
    assert read("if a then b else c") == read("a ? b : c")


def test_soft_words_are_names() -> None:
    assert read("any") == nodes.Name("any", span=read("a").span)
    assert isinstance(read("any of xs"), nodes.AnyOf)
    assert isinstance(read("any + of"), nodes.Binary)
    assert canonical(read("contains contains contains")) == "contains contains contains"
    assert canonical(read("lastSync.get.match.if.`a b`")) == 'lastSync.get.match.if."a b"'


def test_patterns_of_a_match() -> None:
    found = read(
        'match x { null => 1, -2 => 2, "s" => 3, n => 4, S.T => 5, .a => 6, a.b[0] => 7, f(1) => 8, '
        "[] => 9, [_, S] => 10, { a: _, b: { c: d } } => 11, n where n in 1..2 => 12, _ => 13 }"
    )
    assert isinstance(found, nodes.MatchExpression)
    kinds = " ".join(type(arm.pattern).__name__.removesuffix("Pattern") for arm in found.arms)
    assert kinds == "Literal Literal Literal Name Name Value Value Value Array Array Object Name Wildcard"


def test_a_match_without_a_subject_tests_conditions() -> None:
    found = read("match { a > 1 => 1, b where c => 2, _ => 3 }")
    assert isinstance(found, nodes.MatchExpression)
    assert found.subject is None
    assert [type(arm.pattern).__name__ for arm in found.arms] == ["Binary", "Name", "Wildcard"]


def test_places_are_exact() -> None:
    text = "(a + b) * .c.d | f(x => [1, -2], { k: 5 days })"
    source = Source("e", text)
    found, _ = parse_expression(source)
    seen = dict[str, str]()

    def visit(node: object) -> None:
        if isinstance(node, nodes.Node):
            seen.setdefault(type(node).__name__, node.span.text)
            for name in type(node).__struct_fields__:
                if name != "span":
                    visit(getattr(node, name))
        elif isinstance(node, tuple):
            for part in node:
                visit(part)

    visit(found)
    assert seen == {
        "Call": text,
        "Word": "f",
        "Binary": "(a + b) * .c.d",
        "Name": "a",
        "Member": ".c.d",
        "Current": ".",
        "Lambda": "x => [1, -2]",
        "ArrayLiteral": "[1, -2]",
        "Literal_": "1",
        "Unary": "-2",
        "ObjectLiteral": "{ k: 5 days }",
        "Entry": "k: 5 days",
        "DurationLiteral": "5 days",
    }


def test_a_part_of_a_text_is_read_in_place() -> None:
    text = 'get "/things/{thing.id + 1}"'
    start, end = text.index("{") + 1, text.index("}")
    found, diagnostics = parse_expression(Source("m", text), start=start, end=end)
    assert not diagnostics
    assert found is not None
    assert found.span.text == "thing.id + 1"
    assert parse_expression(Source("m", text), start=start, end=end - 1)[1][0].span.start == end - 1  # type: ignore[union-attr]


@pytest.mark.parametrize("nest", ["({})", "[{}]", "f({})", "x[{}]", "-{}", "not {}", "{{ a: {} }}", "a.f({}).b"])
def test_nesting_has_a_limit(nest: str) -> None:
    def nested(levels: int) -> str:
        text = "1"
        for _ in range(levels):
            text = (
                nest.replace("{{", "\0").replace("}}", "\1").replace("{}", text).replace("\0", "{").replace("\1", "}")
            )
        return text

    read(nested(95))
    found = findings(nested(5000))
    assert [d.code for d in found] == ["syntax"]
    assert "100 levels" in found[0].message


@pytest.mark.parametrize("chain", [" + 1", " or a", ".b", "[0]", " where c", " | f()", " ?? d"])
def test_a_chain_cannot_make_a_tree_too_high_to_walk(chain: str) -> None:
    read("a" + chain * 190)
    found = findings("a" + chain * 20_000)
    assert [d.code for d in found] == ["syntax"]
    assert "levels deep" in found[0].message
    read("f(" + ("a" + chain * 100 + ", ") * 100 + ")")
