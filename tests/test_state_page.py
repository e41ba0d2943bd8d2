"""docs/state.md: every command and every snippet of it runs, in order, as a reader would try them."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from reqon import set_state_store
from tests.support.orders_api import OrdersApi
from tests.support.processes import reqon

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "state.md").read_text("utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^    \$ reqon (.*)$", PAGE, re.MULTILINE)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The example missions, run once."""
    shutil.copytree(ROOT / "examples" / "missions", tmp_path / "missions")
    with OrdersApi(customers=60, orders=60) as api:
        (tmp_path / ".env").write_text(f"SHOP_URL={api.url}\n")
        assert reqon("missions/customers.vague", cwd=tmp_path).code == 0
        yield tmp_path


def test_every_command_runs(home: Path) -> None:
    assert len(COMMANDS) > 10
    for command in COMMANDS:
        ended = reqon(*command.split(), cwd=home, seconds=60)
        # Not every example mission can run against this API, and doctor says so.
        assert ended.code == 0 or command.split()[0] in ("missions/", "doctor"), ended.text
        assert "Traceback" not in ended.text
    assert reqon("history", "Customers", cwd=home).code == 3, "the last cleanup took them all"


def test_every_snippet_runs(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(home)
    names: dict[str, object] = {"__name__": "snippet"}
    try:
        for snippet in SNIPPETS:
            exec(compile(snippet, "state.md", "exec"), names)  # the page's own
    finally:
        set_state_store(None, name="vault")
    assert len(SNIPPETS) == 2
    assert capsys.readouterr().out == "completed\n"
