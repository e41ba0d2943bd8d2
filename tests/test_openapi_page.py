"""The OpenAPI page: its document is right, its missions pass the check against it, and do what the page says."""

import re
from pathlib import Path
from typing import Any

import pytest

from reqon.extensions import registered
from reqon.http.openapi.loading import Specifications, forget
from reqon.lang.loader import load
from tests.support.processes import Ended, reqon
from tests.support.spec_server import SpecServer

PAGE = (Path(__file__).parents[1] / "docs" / "openapi.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w+)( fragment)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [(m[1], bool(m[2]), m[3]) for m in BLOCK.finditer(PAGE)]
MISSIONS = [(text, is_fragment) for language, is_fragment, text in BLOCKS if language == "reqon"]
(DOCUMENT,) = [text for language, _, text in BLOCKS if language == "yaml"]

PARCELS: list[dict[str, Any]] = [
    {"id": "p1", "weight": "heavy", "status": "new"},
    {"id": "p2", "weight": 25, "status": "sent", "note": None},
    {"id": "p3", "weight": 1},
    {"id": "p4", "weight": 2, "status": "gone"},
    {"id": "p5", "weight": -1},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    forget()
    (tmp_path / "depot.yaml").write_text(DOCUMENT)
    return tmp_path


def run(folder: Path, text: str, *flags: str, parcels: list[dict[str, Any]] = PARCELS) -> tuple[Ended, SpecServer]:
    """A mission of the page against a depot that holds these parcels."""

    def page(path: str) -> Any:
        return {"data": parcels if "page=1" in path else []}

    with SpecServer({}, {"/parcels": page}) as server:
        text = text.replace(
            "{ auth: none, validateResponses", '{ auth: none, base: env("DEPOT_URL"), validateResponses'
        )
        text = text.replace("{ auth: none }", '{ auth: none, base: env("DEPOT_URL") }')
        (folder / "m.vague").write_text(text)
        return reqon("m.vague", *flags, cwd=folder, DEPOT_URL=server.url), server


@pytest.mark.parametrize(("text", "is_fragment"), MISSIONS)
def test_a_mission_passes_the_check_with_its_document(text: str, is_fragment: bool, folder: Path) -> None:
    if is_fragment:
        text = f"mission Fragment {{\n{text}\naction Nothing {{ }}\nrun Nothing\n}}\n"
    (folder / "m.vague").write_text(text)
    program = load([folder / "m.vague"], known=registered(lambda: Specifications(offline=True)))
    assert [d.message for d in program.all_diagnostics if d.severity == "error"] == []


def test_the_first_mission_loads_parcels_and_tells_what_does_not_fit(folder: Path) -> None:
    ended, server = run(folder, MISSIONS[0][0])
    assert ended.code == 0, ended.text
    assert "parcels: 5 records" in ended.out
    first = server.seen[0]
    assert first.startswith("/parcels?")
    assert "status=new,lost" in first
    assert [path for path in server.seen if "scans" in path] == [f"/parcels/p{n}/scans" for n in range(1, 6)]
    assert ".data[0].weight: type mismatch: expected number, got string (and 2 more)" in ended.err


def test_strict_aborts_with_the_texts_of_the_page(folder: Path) -> None:
    ended, _ = run(
        folder, MISSIONS[2][0], parcels=[PARCELS[0], *PARCELS[1:3], {"weight": 1, "status": "x"}, PARCELS[4]]
    )
    assert ended.code == 1
    (texts,) = re.findall(r"told at most:\n\n((?:    .*\n)+)", PAGE)
    for text in texts.split("\n"):
        assert text.strip() in ended.err


def test_parcels_are_sorted_by_the_schemas_of_the_document(folder: Path) -> None:
    ended, _ = run(folder, MISSIONS[3][0])
    assert ended.code == 0, ended.text
    assert "good: 1 records" in ended.out
    assert "odd: 1 records" in ended.out


def test_a_dry_run_shows_what_the_page_shows(folder: Path) -> None:
    text = MISSIONS[0][0].replace(', base: env("DEPOT_URL")', "")
    (folder / "m.vague").write_text(text)
    ended = reqon("m.vague", "--dry-run", cwd=folder)
    assert ended.code == 0, ended.text
    (shown,) = re.findall(r"as they would be:\n\n((?:    .*\n)+)", PAGE)
    assert shown in ended.out


def test_a_broken_document_is_told_as_the_page_tells_it(folder: Path) -> None:
    (folder / "depot.yaml").write_text(DOCUMENT.replace("  /parcels:\n", "  parcels:\n"))
    (folder / "parcels.vague").write_text(MISSIONS[0][0])
    ended = reqon("check", "parcels.vague", cwd=folder, DEPOT_URL="http://127.0.0.1:9")
    (line,) = re.findall(r"^    (parcels\.vague:.*)$", PAGE, re.MULTILINE)
    assert ended.code == 3
    assert line in ended.err
