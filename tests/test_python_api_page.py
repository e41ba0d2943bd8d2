"""docs/python-api.md: every snippet runs, in order, as a reader would try them; every public name is on it."""

import ast
import inspect
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import reqon
from reqon import ExecutionOptions, ExecutionResult, set_state_store
from reqon.events import event_kinds
from reqon.lang.functions import REGISTERED
from reqon.runtime.registries import GLOBAL
from tests.support.orders_api import OrdersApi

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python-api.md").read_text("utf-8")
OTHERS = ("extending.md", "observability.md")


def text_of(page: str) -> str:
    return (ROOT / "docs" / page).read_text("utf-8")


def snippets(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


async def run(page: str) -> None:
    """Run a page's snippets in order, as one program."""
    names: dict[str, object] = {"__name__": "snippet"}
    for snippet in snippets(text_of(page)):
        code = compile(snippet, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        waiting = eval(code, names)
        if inspect.isawaitable(waiting):
            await waiting


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=60) as running:
        yield running


async def test_every_snippet_runs(
    api: OrdersApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "examples" / "missions", tmp_path / "missions")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOP_URL", api.url)
    try:
        await run("python-api.md")
    finally:
        set_state_store(None, name="vault")
        REGISTERED.pop("shout", None)
    out = capsys.readouterr().out
    assert "True" in out
    assert "customers: 60 records, " in out
    assert "[undefined-store]" in out
    assert re.search(r"Completed: Fetch in \d+ ms", out)
    assert "Progress: 60/60" in out
    assert out.count("completed") >= 2
    assert (tmp_path / "out" / "customers.json").is_file()


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("extending.md", ["Told/A: rows: 2", "['a', 'b']", "about to run A", "[{'id': 'HELLO'}]", "1"]),
        ("observability.md", ["orders: 1 records, 1 new", "mission.complete", "'message': 'span:end'"]),
    ],
)
async def test_every_snippet_of_the_other_pages_runs(
    page: str, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {id(kind): dict(kind) for kind in _registries()}
    try:
        await run(page)
    finally:
        for kind in _registries():
            kind.clear()
            kind.update(before[id(kind)])
    out = capsys.readouterr().out
    for text in said:
        assert text in out, text


def _registries() -> list[dict[str, object]]:
    kinds: tuple[Any, ...] = (
        GLOBAL.functions,
        GLOBAL.adapters,
        GLOBAL.auth_providers,
        GLOBAL.paginations,
        GLOBAL.steps,
    )
    return [kind for kind in kinds if isinstance(kind, dict)]


def test_every_event_is_in_the_table() -> None:
    rows = re.findall(r"^\| (`[a-z.`, ]+) \|", text_of("observability.md"), re.MULTILINE)
    assert set(re.findall(r"`([a-z]+\.[a-z]+)`", " ".join(rows))) == set(event_kinds())


def test_every_public_name_is_told_of() -> None:
    told = set(re.findall(r"\w+", " ".join([PAGE, *map(text_of, OTHERS)])))
    names = {name for name in reqon.__all__ if not name.endswith(("_sync", "Error"))}
    types = {"ErrorReport", "ExecutionOptions", "ExecutionRecord", "ExecutionStatus", "Progress", "StoreResult"}
    types |= {"ActionOutcome", "Emitted", "EventEmitter", "ExtensionStep", "Hooks", "RawAnswer", "StepContext"}
    types |= {"StepMoment", "StepOutcome", "StructuredLogger"}
    assert names - types - told == set()


def test_every_option_and_every_field_is_told_of() -> None:
    for name in get_type_hints(ExecutionOptions):
        assert f"| `{name}` |" in PAGE, name
    for name in ExecutionResult.__dataclass_fields__:
        assert f"| `{name}` |" in PAGE, name
