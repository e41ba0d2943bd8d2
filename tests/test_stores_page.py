"""docs/stores.md: its snippets run, its missions run, its configuration is read."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from reqon import execute
from reqon.stores import registry
from reqon.stores.config import OPTIONS, store_entries
from reqon.values import decode
from tests.support.orders_api import OrdersApi

PAGE = (Path(__file__).parents[1] / "docs" / "stores.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def shelves() -> Iterator[None]:
    yield
    registry._registered.pop("shelf", None)


async def test_every_snippet_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "snippet"}
    for snippet in blocks("python"):
        waiting = eval(compile(snippet, "stores.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if inspect.isawaitable(waiting):
            await waiting
    assert capsys.readouterr().out == "1\n"


@pytest.mark.parametrize("text", blocks("reqon"))
async def test_every_mission_runs(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with OrdersApi(customers=5, orders=120) as api:
        result = await execute(text, environment={"SHOP_URL": api.url})
    assert result.success, result.errors
    archive = result.stores["archive"]
    assert archive.added == archive.count == len(archive.records()) >= 50


def test_the_configuration_is_read_and_every_option_is_told_of() -> None:
    (shown,) = blocks("json")
    variables = {"DATABASE_URL": "postgresql://x", "AUDIT_PASSWORD": "secret-word", "DB_KEY": "secret-key"}
    entries = store_entries(decode(shown), variables, "page")
    assert entries["audit"]["url"] == "mariadb://reqon:secret-word@db.example.org/audit"
    for kind, options in OPTIONS.items():
        for option in options:
            assert f"`{option}`" in PAGE or option in ("debounceMs", "countChanges"), (kind, option)
