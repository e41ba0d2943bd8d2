"""`reqon resume --explain`: what would be skipped, fetched again, written again. It is true, and touches nothing."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.orders_api import OrdersApi
from tests.support.processes import Process, reqon

MISSION = """mission Customers {
  source Shop { auth: none, base: env("SHOP_URL"), retry: { maxAttempts: 1 } }
  store customers: file("customers")
  store seen: memory("seen")
  action List {
    get "/customers" { params: { per_page: 30 }, paginate: page(page, 30), until: response.page >= response.pages }
  }
  action Visit {
    for customer in response.customers checkpoint every 1 {
      get "/customers/{customer.id}"
      store response -> customers { key: .id }
      store response -> seen { key: .id }
    }
  }
  action Report {
    get "/orders" { params: { limit: 1 } }
  }
  run List then Visit then Report
}
"""


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=60) as running:
        yield running


def everything(home: Path) -> dict[str, tuple[int, bytes]]:
    """Each file with its time and content, and each folder."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted((home / ".vague-data").rglob("*"))
    }


@pytest.fixture
def killed(api: OrdersApi, tmp_path: Path) -> Path:
    """A run that was killed while item 24 of 60 was in work."""
    (tmp_path / "customers.vague").write_text(MISSION)
    api.hold("/customers/", at=25)
    with Process(["customers.vague"], cwd=tmp_path, variables={"SHOP_URL": api.url}) as process:
        assert api.reached.wait(60)
        process.kill()
    api.release()
    return tmp_path


def test_it_says_what_a_resume_then_does_and_touches_nothing(api: OrdersApi, killed: Path) -> None:
    before, asked = everything(killed), len(api.requests())
    told = reqon("resume", "customers.vague", "--explain", cwd=killed, SHOP_URL=api.url)
    machine = reqon("resume", "customers.vague", "--explain", "--json", cwd=killed, SHOP_URL=api.url).json
    same = reqon("customers.vague", "--resume", "--explain", cwd=killed, SHOP_URL=api.url)
    assert everything(killed) == before
    assert len(api.requests()) == asked
    assert told.code == same.code == 0
    assert told.out == same.out
    (one,) = machine
    assert (one["decision"], one["attempt"]) == ("resume", 2)
    assert "List: completed" in one["skipped"]
    assert any(s.startswith("Visit: 24 items of 60") for s in one["skipped"])
    assert "memory store seen: filled from the journal" in one["skipped"]
    assert [s for s in one["fetchedAgain"] if s.startswith('Visit: item 24: `get "/customers/{customer.id}"`')]
    assert [s for s in one["writtenAgain"] if s.startswith("Visit: item 24: `store response -> customers")]
    assert one["then"][0].startswith("Visit: items 24 to the end")
    assert one["then"][-1] == "Report: from its first step"
    assert all(sentence in told.out for sentence in one["skipped"] + one["fetchedAgain"] + one["then"])
    done = reqon("resume", "customers.vague", cwd=killed, SHOP_URL=api.url)
    assert done.code == 0, done.text
    seen = [r["path"] for r in api.requests("/customers/")]
    assert (len(seen), len(set(seen))) == (61, 60), "it did as it had said"
    assert f"({one['executionId']})" in done.out


def test_a_store_that_lost_its_records_is_noticed(api: OrdersApi, killed: Path) -> None:
    """O2: what the journal says of items counts only as far as the store holds them."""
    for path in (killed / ".vague-data" / "stores").iterdir():
        path.unlink()
    (one,) = reqon("resume", "customers.vague", "--explain", "--json", cwd=killed, SHOP_URL=api.url).json
    assert not [s for s in one["skipped"] if s.startswith("Visit: 24 items")]
    assert [s for s in one["then"] if s.startswith("Visit: items 0 to the end")]


def test_a_changed_mission_is_refused_with_the_way_out(api: OrdersApi, killed: Path) -> None:
    (killed / "customers.vague").write_text(MISSION.replace("limit: 1", "limit: 2"))
    told = reqon("resume", "customers.vague", "--explain", cwd=killed, SHOP_URL=api.url)
    assert told.code == 1
    assert re.match(r"Customers: refused: the mission has changed since \(exec_\w+\)\n  hint +--force", told.out)
    forced = reqon("resume", "customers.vague", "--explain", "--force", cwd=killed, SHOP_URL=api.url)
    assert forced.code == 0
    assert "would run anew" in forced.out


def test_what_has_nothing_to_resume_would_run_anew(api: OrdersApi, tmp_path: Path) -> None:
    (tmp_path / "customers.vague").write_text(MISSION)
    first = reqon("resume", "customers.vague", "--explain", cwd=tmp_path, SHOP_URL=api.url)
    assert (first.code, first.out) == (0, "Customers: would run anew: there is no earlier execution\n")
    assert not (tmp_path / ".vague-data").exists()
    assert reqon("customers.vague", cwd=tmp_path, SHOP_URL=api.url).code == 0
    again = reqon("resume", "customers.vague", "--explain", cwd=tmp_path, SHOP_URL=api.url)
    assert "would run anew: it is completed" in again.out
    unknown = reqon(
        "resume", "customers.vague", "--explain", "--execution", "exec_00000000000000000000000009", cwd=tmp_path
    )
    assert unknown.code == 3
    assert reqon("customers.vague", "--explain", cwd=tmp_path).code == 3


def test_pages_that_are_there_are_not_fetched_again(api: OrdersApi, tmp_path: Path) -> None:
    (tmp_path / "customers.vague").write_text(
        MISSION.replace("per_page: 30", "per_page: 10").replace("page, 30", "page, 10")
    )
    api.hold("/customers", at=4)
    with Process(["customers.vague"], cwd=tmp_path, variables={"SHOP_URL": api.url}) as process:
        assert api.reached.wait(60)
        process.kill()
    api.release()
    (one,) = reqon("resume", "customers.vague", "--explain", "--json", cwd=tmp_path, SHOP_URL=api.url).json
    assert [s for s in one["skipped"] if s.startswith("List: 3 pages of `get")]
    assert [s for s in one["fetchedAgain"] if "from page 4 on" in s]
