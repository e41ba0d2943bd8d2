"""docs/python-api.md: every snippet runs, in order, as a reader would try them; every public name is on it."""

import ast
import inspect
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

import reqon
from reqon import ExecutionOptions, ExecutionResult, set_state_store
from reqon.lang.functions import REGISTERED
from tests.support.orders_api import OrdersApi

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python-api.md").read_text("utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


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
    names: dict[str, object] = {"__name__": "snippet"}
    try:
        for snippet in SNIPPETS:
            code = compile(snippet, "python-api.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            waiting = eval(code, names)
            if inspect.isawaitable(waiting):
                await waiting
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


def test_every_public_name_is_told_of() -> None:
    told = set(re.findall(r"\w+", PAGE))
    names = {name for name in reqon.__all__ if not name.endswith(("_sync", "Error"))}
    types = {"ErrorReport", "ExecutionOptions", "ExecutionRecord", "ExecutionStatus", "Progress", "StoreResult"}
    assert names - types - told == {"register_store_adapter"}


def test_every_option_and_every_field_is_told_of() -> None:
    for name in get_type_hints(ExecutionOptions):
        assert f"| `{name}` |" in PAGE, name
    for name in ExecutionResult.__dataclass_fields__:
        assert f"| `{name}` |" in PAGE, name
