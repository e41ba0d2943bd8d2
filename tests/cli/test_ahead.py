"""What a command line is glanced at for, before its mission is loaded."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from reqon.cli import ahead

MISSION = """mission M {{
  source Shop {{ auth: none, base: "http://127.0.0.1:9" }}  // gets nothing by itself
  action A {{ {step} }}
  run A
}}
"""


@pytest.mark.parametrize(
    ("step", "options", "begun"),
    [
        ('get "/orders"', (), True),
        ("get Shop '/orders'", (), True),
        ("post path", (), True),
        ("call Shop.list", (), True),
        ('get "/orders"', ("--dry-run",), False),
        ('get "/orders"', ("--daemon",), False),
        ("let answer = 42", (), False),
        ("let found = orders.get(4)", (), False),
    ],
)
def test_the_client_is_loaded_ahead_where_a_mission_seems_to_ask(
    step: str, options: Sequence[str], begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    monkeypatch.setattr(ahead, "load_client", lambda: calls.append(None))
    for name in ("m.vague", "m.reqon"):
        (tmp_path / name).write_text(MISSION.format(step=step))
        ahead.load_client_for(["run", str(tmp_path / name), *options])
    assert len(calls) == (2 if begun else 0)


def test_nothing_is_waited_for_at_the_glance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "load_client", lambda: pytest.fail("nothing asks here"))
    os.mkfifo(tmp_path / "pipe.vague")
    (tmp_path / "folder.vague").mkdir()
    (tmp_path / "gone.vague").symlink_to("nowhere")
    ahead.load_client_for([str(tmp_path / name) for name in ("pipe.vague", "folder.vague", "gone.vague")])
