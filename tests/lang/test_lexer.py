"""Text to tokens: every character belongs to a token, a comment, a blank or a finding."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reqon.diagnostics import Source
from reqon.lang.canonical import quoted
from reqon.lang.lexer import END, NUMBER, QUOTED, STRING, lex
from tests.lang import grammar


def kinds(text: str) -> list[str]:
    return [token.kind for token in lex(Source("m", text)).tokens]


def values(text: str) -> list[object]:
    lexed = lex(Source("m", text))
    assert not lexed.diagnostics
    return [token.value for token in lexed.tokens[:-1]]


def codes(text: str) -> list[str]:
    return [found.code for found in lex(Source("m", text)).diagnostics]


@given(st.text() | st.lists(st.sampled_from(grammar.SCRAPS)).map("".join))
@settings(deadline=None)
def test_tokens_comments_and_findings_cover_all_but_blanks(text: str) -> None:
    lexed = lex(Source("m", text))
    parts = [(token.start, token.end) for token in lexed.tokens]
    parts += [(comment.start, comment.end) for comment in lexed.comments]
    parts += [(found.span.start, found.span.end) for found in lexed.diagnostics if found.span]
    covered = set[int]()
    for start, end in parts:
        assert 0 <= start <= end <= len(text)
        covered.update(range(start, end))
    left = "".join(c for at, c in enumerate(text) if at not in covered)
    assert left.strip(" \t\r\n\ufeff") == ""
    assert lexed.tokens[-1].kind == END
    starts = [token.start for token in lexed.tokens]
    assert starts == sorted(starts)


@given(st.text(), st.integers(0, 50), st.integers(0, 50))
def test_a_part_of_a_text_gives_tokens_inside_it(text: str, start: int, length: int) -> None:
    start = min(start, len(text))
    end = min(start + length, len(text))
    lexed = lex(Source("m", text), start, end)
    assert all(start <= token.start <= token.end <= end for token in lexed.tokens)


@given(grammar.texts | st.text())
def test_a_quoted_text_is_read_as_it_is(text: str) -> None:
    assert values(quoted(text)) == [text]


def test_marks_take_the_longest() -> None:
    marks = "... .. . => -> == != <= >= ?? ? = < > !"
    assert kinds(marks)[:-1] == marks.split()
    assert kinds("1..5") == [NUMBER, "..", NUMBER, END]
    assert kinds("a.b[0]|c") == ["a", ".", "b", "[", NUMBER, "]", "|", "c", END]


def test_words_are_their_own_kind_and_backticks_make_names() -> None:
    assert kinds("match matches `match`") == ["match", "matches", QUOTED, END]
    assert values("`a b`") == ["a b"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100_000", 100_000),
        ("1.5", 1.5),
        ("2.0", 2),
        ("1e3", 1000),
        ("1E-2", 0.01),
        ("007", 7),
        ("12345678901234567890123", 12345678901234567890123),
    ],
)
def test_numbers(text: str, value: float) -> None:
    (found,) = values(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["1__0", "1_", "12abc", "0x1f", "1e999", "9" * 401, "30s"])
def test_what_is_no_number_is_said_so(text: str) -> None:
    assert codes(text) == ["bad-number"]


def test_a_unit_may_touch_its_number() -> None:
    assert kinds("250ms 7 days") == [NUMBER, "ms", NUMBER, "days", END]


def test_escapes() -> None:
    assert values(r'"a\n\t\r\\\"\'\q\u00e9"') == ["a\n\t\r\\\"'qé"]
    assert values(r'"\ud83d\ude00"') == ["😀"]
    assert values("'it is \"x\"'") == ['it is "x"']


@pytest.mark.parametrize("text", [r'"\ud800"', r'"\udc00"', r'"\u12"', r'"\ud800A"'])
def test_half_a_character_is_refused(text: str) -> None:
    assert codes(text) == ["bad-character"]


def test_an_open_string_ends_before_the_brackets_that_close_its_line() -> None:
    lexed = lex(Source("m", 'get "/a { x: 1 }\nskip'))
    assert [d.code for d in lexed.diagnostics] == ["unterminated-string"]
    assert [t.kind for t in lexed.tokens] == ["get", STRING, "}", "skip", END]
    assert lex(Source("m", 'f("a, 1)')).tokens[-1].kind == END


def test_an_open_comment_is_said_once() -> None:
    assert codes("a /* b\n c") == ["unterminated-comment"]
    assert codes("/*/") == ["unterminated-comment"]
    assert codes("/**/ /***/ // /*\n# /*") == []


def test_characters_that_mean_nothing_are_one_finding_a_run() -> None:
    lexed = lex(Source("m", "a @@@ b ; \0"))
    assert [d.message for d in lexed.diagnostics] == [
        "unexpected character '@'",
        "unexpected character ';'",
        "unexpected character U+0000",
    ]
    assert lexed.diagnostics[0].span is not None
    assert lexed.diagnostics[0].span.text == "@@@"


def test_line_breaks_are_seen_in_every_form() -> None:
    for gap in ("\n", "\r\n", " // c\n", " # c\n", "/*\n*/"):
        assert [t.breaks for t in lex(Source("m", f"a{gap}b")).tokens[:2]] == [True, True], gap
    for gap in (" ", "\t", "\r", "/* c */"):
        assert [t.breaks for t in lex(Source("m", f"a{gap}b")).tokens[:2]] == [True, False], gap


def test_a_byte_order_mark_is_skipped_at_the_start_only() -> None:
    assert codes("\ufefflet") == []
    assert codes("let \ufeff") == ["bad-character"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" " * (1024 * 1024 + 1), "1 MiB"),
        ("é" * (600 * 1024), "1 MiB"),
        ("a " * 200_001, "200,000 tokens"),
        ('"' + "a" * 65_537 + '"', "64 KiB"),
    ],
)
def test_a_limit_is_named(text: str, message: str) -> None:
    found = lex(Source("m", text)).diagnostics
    assert [d.code for d in found] == ["syntax"]
    assert message in found[0].message


@pytest.mark.parametrize(
    "scrap", [" ", "\n", "@", "@ ", '"', '"\n', "/*", "`", "`\n", "{", "1", "1e", "_1", "\\", '"\\n']
)
def test_a_mebibyte_of_anything_is_read_in_time(scrap: str) -> None:
    """N5, in part."""
    text = (scrap * (1024 * 1024 // len(scrap)))[: 1024 * 1024]
    start = time.process_time()
    lex(Source("m", text))
    assert time.process_time() - start < 2
