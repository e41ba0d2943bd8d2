"""The corpus: missions written from the specification, each with the tree, the findings or the results it must give.

`pytest tests/test_corpus.py --update-golden` writes what stands beside them; read the difference against the
specification before it is committed.
"""

from pathlib import Path

import pytest

from reqon.diagnostics import Source, render_all
from reqon.lang.parser import parse
from tests.support import corpus


def compared(path: Path, text: str, *, update: bool) -> None:
    if update:
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


@pytest.mark.parametrize("path", corpus.missions(*corpus.RUN), ids=corpus.name_of)
async def test_a_mission_of_the_corpus_comes_to_what_its_golden_says(
    path: Path, tmp_path: Path, *, update_golden: bool
) -> None:
    compared(path.with_suffix(".json"), await corpus.run(path, tmp_path), update=update_golden)


# --- findings --------------------------------------------------------------------------------------------------------

FINDINGS = corpus.missions("findings")


@pytest.mark.parametrize("path", FINDINGS, ids=corpus.name_of)
def test_a_finding_has_the_words_of_the_specification(path: Path) -> None:
    slug, message, hint = corpus.announced(path)
    found = next(d for d in corpus.loaded(path).all_diagnostics if d.code == slug)
    assert message in (found.message, None)
    assert hint is None or (found.hint or "").startswith(hint.rstrip("."))


@pytest.mark.parametrize("path", FINDINGS, ids=corpus.name_of)
def test_findings_are_printed_as_their_golden_shows(path: Path, *, update_golden: bool) -> None:
    printed = render_all(corpus.loaded(path).all_diagnostics) + "\n"
    compared(path.with_suffix(".txt"), printed, update=update_golden)


# --- trees -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", corpus.missions("syntax"), ids=corpus.name_of)
def test_a_text_has_the_tree_of_its_golden(path: Path, *, update_golden: bool) -> None:
    tree, found = parse(Source(path.name, path.read_bytes().decode("utf-8-sig")))
    assert not [d for d in found if d.severity == "error"], render_all(found)
    compared(path.with_suffix(".tree"), corpus.drawn(tree), update=update_golden)


# --- worked missions -------------------------------------------------------------------------------------------------

WORKED = corpus.missions("worked")


@pytest.mark.parametrize("path", WORKED, ids=corpus.name_of)
def test_a_worked_mission_has_no_errors(path: Path) -> None:
    assert not corpus.loaded(path).has_errors


def test_the_mission_that_uses_most_constructs_has_no_findings_at_all() -> None:
    assert render_all(corpus.loaded(corpus.CORPUS / "worked" / "tide_watch.vague").all_diagnostics) == ""
