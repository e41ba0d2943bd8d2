"""`reqon plan` and `reqon --validate-cron`: what would run, and when."""

from pathlib import Path

import pytest

from tests.support.processes import reqon

PULL = """mission Pull {
  schedule: cron "30 2 * * *" { timezone: "Europe/Oslo" }
  jitter: 30 seconds
  source Shop { auth: bearer, base: env("SHOP", "https://shop.example.org"), token: env("SHOP_TOKEN") }
  store orders: file("orders")
  action Load {
    get "/orders" { paginate: page(page, 100), until: not hasMore, since: lastSync }
    for order in response.orders checkpoint every 100 {
      post "/orders/{order.id}/seen"
      store order -> orders { key: .id }
    }
  }
  action Tell { post "/done" { params: { key: env("SHOP_TOKEN") } } }
  run Load then [Tell] if length(orders) > 0
}
mission Asked { action Nothing { skip } run Nothing }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pull.vague").write_text(PULL)
    return tmp_path


def test_a_plan_tells_everything_of_a_run_and_does_nothing(folder: Path) -> None:
    ended = reqon("plan", "pull.vague", "--next", 2, cwd=folder, SHOP_TOKEN="sesame-3000")
    assert (ended.code, ended.err) == (0, "")
    lines = [line.strip() for line in ended.out.splitlines()]
    assert lines[0] == "mission Pull (pull.vague)"
    assert lines[1].startswith('schedule: cron "30 2 * * *", Europe/Oslo, jitter ')
    assert [line.split()[2][:6] for line in lines[2:4]] == ["02:30:", "02:30:"]
    assert "1  Load" in lines
    assert "2  Tell together, if length(orders) > 0" in lines
    assert 'orders  file("orders")' in lines
    assert "requests: at least 1" in lines
    assert any(line.startswith("Load  POST https://shop.example.org/orders/{order.id}/seen") for line in lines)
    assert ["Shop-/orders", "not", "synced", "yet"] in [line.split() for line in lines]
    assert "mission Asked (pull.vague)" in lines
    assert "schedule: none; it runs when asked to" in lines
    assert "sesame-3000" not in ended.text
    assert [path.name for path in folder.iterdir()] == ["pull.vague"]


def test_a_plan_as_json_has_the_same(folder: Path) -> None:
    ended = reqon("plan", ".", "--json", "--next", 3, "--mission", "Pull", cwd=folder)
    (plan,) = ended.json
    assert plan["schedule"]["schedule"] == 'cron "30 2 * * *"'
    assert plan["schedule"]["jitterMs"] == 30_000
    assert len(plan["schedule"]["next"]) == 3
    assert plan["stages"] == [
        {"actions": ["Load"], "parallel": False, "if": None},
        {"actions": ["Tell"], "parallel": True, "if": "length(orders) > 0"},
    ]
    assert plan["estimatedRequests"] == {"atLeast": 1, "exact": False}
    assert [(r["action"], r["per"], r["certain"]) for r in plan["requests"]] == [
        ("Load", ["page"], True),
        ("Load", ["order"], True),
        ("Tell", [], False),
    ]
    assert plan["checkpoints"]["sync"] == [{"key": "Shop-/orders", "lastSync": None}]
    assert plan["checkpoints"]["loops"][0]["every"] == 100


def test_a_plan_of_what_is_wrong_says_so(folder: Path) -> None:
    (folder / "broken.vague").write_text("mission Broken { run Nowhere }")
    ended = reqon("plan", ".", cwd=folder)
    assert ended.code == 2
    assert "[undefined-action]" in ended.err
    assert "mission Pull (pull.vague)" in ended.out
    unknown = reqon("plan", "pull.vague", "--mission", "Pul", cwd=folder)
    assert (unknown.code, unknown.out) == (3, "")
    assert "Pull" in unknown.err


def test_a_plan_without_a_base_names_the_variable(folder: Path) -> None:
    (folder / "pull.vague").write_text(PULL.replace('env("SHOP", "https://shop.example.org")', 'env("SHOP")'))
    ended = reqon("plan", "pull.vague", cwd=folder)
    assert ended.code == 3
    assert "set the variable SHOP" in ended.err
    assert "mission Asked" in ended.out


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("0 9 * * 1-5", 0, "valid: 0 9 * * 1-5"),
        ("0 9 1-7 * mon", 0, "warning: both day fields must match [bad-cron]"),
        ("0 0 9 * * 1-5", 3, "there is no field for seconds"),
        ("@fortnightly", 3, "known: @annually"),
        ("75 * * * *", 3, "minute field '75' is out of range 0-59"),
    ],
)
def test_a_cron_text_is_looked_at(text: str, code: int, words: str, tmp_path: Path) -> None:
    ended = reqon("--validate-cron", text, "--timezone", "Europe/Oslo", cwd=tmp_path)
    assert ended.code == code
    assert words in ended.text
    assert (ended.out.count("\n  ") == 5) is (code == 0)
