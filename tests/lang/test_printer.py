"""Printing: equal trees, kept comments, one form."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from reqon.diagnostics import Source, render_all
from reqon.lang.nodes import Node, SourceFile
from reqon.lang.parser import parse, parse_expression, parse_fragment
from reqon.lang.printer import canonical, to_text
from tests.lang import grammar
from tests.support import corpus

CORPUS = corpus.missions("syntax", *corpus.RUN)
# The strategies are deep; hypothesis would like to show all of them.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def tree_of(text: str) -> SourceFile:
    tree, found = parse(Source("m.vague", text))
    assert not [d for d in found if d.severity == "error"], render_all(found) + "\n" + text
    return tree


def printed(text: str) -> str:
    return to_text(tree_of(text))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_printed_file_parses_back_and_prints_as_it_is(path: Path) -> None:
    tree = tree_of(path.read_text("utf-8"))
    text = to_text(tree)
    assert tree_of(text) == tree
    assert printed(text) == text
    assert canonical(tree_of(text)) == canonical(tree)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_every_comment_is_printed_once(path: Path) -> None:
    source = Source(path.name, path.read_bytes().decode())
    tree = tree_of(source.text)
    text = to_text(tree)
    for comment in re.findall(r"(?://|#) [a-z, ]+$|/\*[^*]+\*/", source.text.replace("\r", ""), re.MULTILINE):
        assert text.count(comment) == source.text.replace("\r", "").count(comment), comment


@given(grammar.expressions)
@SLOW
def test_a_printed_expression_parses_back(tree: Node) -> None:
    text = canonical(tree)
    found, diagnostics = parse_expression(Source("e", text))
    assert not diagnostics, render_all(diagnostics)
    assert found == tree, text
    assert found is not None
    assert canonical(found) == canonical(tree)  # 1 == True for Python, not for us


@given(grammar.files)
@SLOW
def test_a_printed_tree_parses_back(tree: SourceFile) -> None:
    text = to_text(tree)
    assert tree_of(text) == tree
    assert printed(text) == text


@given(grammar.steps)
@SLOW
def test_canonical_text_of_a_step_parses_back(step: Node) -> None:
    text = canonical(step)
    found, diagnostics = parse_fragment(Source("s", text), "steps")
    assert not diagnostics, render_all(diagnostics)
    assert found == (step,), text


def test_blanks_comments_and_commas_do_not_show_in_canonical_text() -> None:
    one = "mission M { action A { get '/a' { timeout: 5, query: { a: 1 } } let x = b | f(1) }, run A }"
    two = """
    mission M {
      // first
      action A {
        get "/a" { timeout: 5
                   query: { a: 1 } }
        let x = b.f(1) /* same */
      }
      run A
    }
    """
    assert canonical(tree_of(one)) == canonical(tree_of(two))
    assert canonical(tree_of(one)) != canonical(tree_of(one.replace("5", "6")))


def test_lists_stay_open_or_closed_as_they_were_written() -> None:
    text = """mission M {
  action A {
    get "/a" { timeout: 5, query: { a: 1 } }
    get "/b" {
      timeout: 5
    }
  }

  run A
}
"""
    assert printed(text) == text


def test_what_is_too_wide_gets_lines() -> None:
    wide = "let x = [" + ", ".join(f'"value number {n}"' for n in range(9)) + "]\n"
    lines = printed(wide).splitlines()
    assert len(lines) == 11
    assert max(map(len, lines)) < 30


def test_comments_inside_an_expression_move_above_their_line() -> None:
    assert printed("let x = 1 + /* two */ 2 // end\n") == "/* two */\nlet x = 1 + 2 // end\n"


def test_blank_lines_shrink_to_one_and_surround_large_blocks() -> None:
    text = "let a = 1\n\n\n\nlet b = 2\naction A {\n  skip\n}\nlet c = 3\n"
    assert printed(text) == "let a = 1\n\nlet b = 2\n\naction A {\n  skip\n}\n\nlet c = 3\n"


def test_numbers_keep_the_form_in_which_they_were_written() -> None:
    assert printed("let a = [1_000, 1.50, 2e3, 250 ms, 1 days]\n") == "let a = [1_000, 1.50, 2e3, 250 ms, 1 day]\n"


def test_a_file_without_anything_prints_as_nothing() -> None:
    assert printed("") == ""
    assert printed("\n\n// only this\n") == "// only this\n"


@pytest.mark.parametrize(("blocks", "chain"), [(0, 195), (60, 130), (95, 95)])
def test_the_highest_tree_prints(blocks: int, chain: int) -> None:
    text = "action A { " + "for x in y { " * blocks + "let x = a" + " + 1" * chain + " }" * blocks + " }"
    tree = tree_of(text)
    assert tree_of(to_text(tree)) == tree
    assert canonical(tree_of(canonical(tree))) == canonical(tree)


def test_blocks_and_operators_together_have_a_limit() -> None:
    text = "action A { " + "for x in y { " * 95 + "let x = a" + " + 1" * 150 + " }" * 95 + " }"
    _, (found,) = parse(Source("m", text))
    assert (found.code, "levels deep" in found.message) == ("syntax", True)
