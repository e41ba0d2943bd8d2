"""The parts, one by one: where a workload's time could go. `make bench-parts` runs them."""

import ast
from pathlib import Path
from typing import Any

import pytest

from benchmarks.api import customer
from benchmarks.missions import big_mission, normalise
from reqon.diagnostics import Source
from reqon.lang import parser, tree
from reqon.lang.compiler import Expressions, Unit
from reqon.lang.lexer import lex
from reqon.lang.loader import load_text
from reqon.lang.schemas import Schemas
from reqon.runtime.plan import Plan
from reqon.state.directory import StateDirectory
from reqon.state.file import FileBackend
from reqon.stores.registry import open_store
from reqon.values import decode, encode
from reqon_daemon.metrics import Metrics, MissionFacts, MissionPast
from tests.lang.expressions import ITEM, parsed, scope_of
from tests.support.state_contract import T0, a_record

LINES = 2000
PAGE = b'{"data":[%b],"page":1}' % b",".join(customer(n) for n in range(1, 1001))
ITEMS = decode(PAGE)["data"]
BIG = Source("big.vague", big_mission(LINES))


def test_lex_2000_lines(benchmark: Any) -> None:
    assert len(benchmark(lex, BIG).tokens) > LINES


def test_parse_2000_lines(benchmark: Any) -> None:
    _, findings = benchmark(parser.parse, BIG)
    assert not findings


def test_load_2000_lines(benchmark: Any) -> None:
    """Lexer, parser and every check."""
    assert benchmark(load_text, BIG).missions


def test_compile_a_mission(benchmark: Any) -> None:
    (mission,) = load_text(Source("w2.vague", normalise("http://127.0.0.1:9"))).missions
    assert benchmark(lambda: Plan(mission, environment={}).compile()).name == "Normalise"


@pytest.mark.parametrize(
    "text",
    [
        '.firstName + " " + .lastName',
        '.total > 20000 and .status == "ACTIVE"',
        "round(.total * 100)",
        'match .status { "ACTIVE" => "active", "TRIAL" => "trial", _ => "closed" }',
    ],
)
def test_an_expression_over_1000_items(benchmark: Any, text: str) -> None:
    node = parsed(text)
    unit = Unit(node.span.source)
    expressions = Expressions(unit, Schemas({}))
    whole = ast.Expression(body=tree.function([ITEM], expressions.value(node, scope_of({}, {}))))
    expressions.position(whole, node)
    function = eval(compile(whole, "expression", "eval"), unit.globals)
    assert len(benchmark(lambda: [function(item) for item in ITEMS])) == 1000


def test_decode_a_page_of_1000_items(benchmark: Any) -> None:
    assert len(benchmark(decode, PAGE)["data"]) == 1000


def test_encode_1000_records(benchmark: Any) -> None:
    assert len(benchmark(lambda: [encode(item) for item in ITEMS])) == 1000


@pytest.mark.parametrize("changed", [False, True])
def test_put_and_flush_1000_records_of_a_file_store(benchmark: Any, tmp_path: Path, changed: bool) -> None:
    store = open_store("file", "customers", {}, directory=tmp_path, mission_directory=tmp_path)
    pairs = [(item["id"], item) for item in ITEMS]
    number = 0

    def flush() -> None:
        nonlocal number
        number += 1
        store.put_many([(key, {**item, "n": number}) for key, item in pairs] if changed else pairs)
        store.flush()

    benchmark(flush)
    assert store.count() == 1000
    store.close()


def test_a_checkpoint(benchmark: Any, tmp_path: Path) -> None:
    """One entry in the journal, synced, and the record replaced."""
    directory = StateDirectory(tmp_path).open()
    backend = FileBackend(directory)
    record = backend.create(a_record())
    journal = backend.journal(record)

    def checkpoint() -> None:
        journal.append("checkpoint", {"a": "0/Load", "i": 100})
        journal.sync()
        backend.save(record, durable=False)

    benchmark(checkpoint)
    assert journal.exists
    journal.close()


def test_a_scrape_of_1000_missions(benchmark: Any) -> None:
    metrics = Metrics()
    for number in range(1000):
        metrics.mission_loaded(MissionFacts(name=f"Mission{number}"), MissionPast(registered_at=T0))
    text, _ = benchmark(metrics.render)
    assert len(text) > 100_000
