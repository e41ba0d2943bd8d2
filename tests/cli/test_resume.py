"""`--resume`: where it goes on, when it refuses, and what it says then (spec/state.md 5)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reqon.cli.options import parameters
from reqon.cli.resume import resume
from reqon.cli.run import run
from tests.support.orders_api import OrdersApi
from tests.support.processes import Ended, reqon

FETCH = """mission Fetch {{
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store towns: file("towns")
  action List {{ get "/customers" {{ params: {{ per_page: 50 }} }} }}
  action Each {{
    for customer in response.customers {{
      get "/customers/{{customer.id}}"
      store response -> towns {{ key: .id }}
    }}
  }}
  run List then Each
}}
"""


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=8, orders=5) as running:
        yield running


@pytest.fixture
def failed(api: OrdersApi, tmp_path: Path) -> Ended:
    """A run that failed at the sixth customer."""
    (tmp_path / "fetch.vague").write_text(FETCH.format(url=api.url))
    api.fail(500, "/customers/cust_0006")
    ended = reqon("fetch.vague", cwd=tmp_path)
    assert ended.code == 1, ended.text
    return ended


def test_the_line_that_it_printed_resumes_it(failed: Ended, api: OrdersApi, tmp_path: Path) -> None:
    (line,) = [line for line in failed.out.splitlines() if "--resume" in line]
    ended = reqon(*line.split()[2:], cwd=tmp_path)
    assert ended.code == 0, ended.text
    seen = api.stats()
    assert (seen["/customers"], seen["/customers/cust_0005"], seen["/customers/cust_0006"]) == (1, 1, 2)
    (record,) = reqon("history", "--json", cwd=tmp_path).json
    assert (record["status"], record["attempt"], record["itemsProcessed"]) == ("completed", 2, 8)
    assert record["trigger"] == "resume"


def test_the_command_takes_what_a_run_takes() -> None:
    """`reqon resume PATH` is `reqon PATH --resume`: what a mission needs to run it needs to go on."""
    ours = {p.name for p in parameters(resume)}
    other = {"daemon", "once", "resume", "dry_run", "validate_cron", "timezone"}
    theirs = {p.name for p in parameters(run) if getattr(p.written, "panel", None) != "Daemon"}
    assert theirs - other == ours - {"json"}


def test_a_changed_mission_is_refused_and_force_starts_it_again(failed: Ended, api: OrdersApi, tmp_path: Path) -> None:
    """R3 in part."""
    mission = tmp_path / "fetch.vague"
    mission.write_text(mission.read_text().replace("store response ->", "store { ...response, seen: true } ->"))
    refused = reqon("fetch.vague", "--resume", cwd=tmp_path)
    assert refused.code == 1
    assert "the mission has changed since" in refused.err
    assert "hint: --force" in refused.err
    assert "Traceback" not in refused.text
    assert len(api.requests()) == 7
    forced = reqon("fetch.vague", "--resume", "--force", cwd=tmp_path)
    assert forced.code == 0, forced.text
    new, old = reqon("history", "--json", cwd=tmp_path).json
    assert new["executionId"] != old["executionId"]
    assert (old["status"], new["status"], new["attempt"]) == ("failed", "completed", 1)
    assert api.stats()["/customers/cust_0001"] == 2


def test_what_force_begins_again_is_named_in_the_new_record(failed: Ended, api: OrdersApi, tmp_path: Path) -> None:
    """R3 in part: `resumedFrom` is the execution that could not be resumed, whether it was named or the latest."""
    mission = tmp_path / "fetch.vague"
    for number, named in enumerate((False, True)):
        (first, *_) = reqon("history", "--json", cwd=tmp_path).json
        assert first["status"] == "failed"
        mission.write_text(mission.read_text().replace("store response ->", "store { ...response, seen: true } ->"))
        api.fail(500, "/customers/cust_0006")
        words = ["--execution", first["executionId"]] if named else []
        assert reqon("fetch.vague", "--resume", "--force", *words, cwd=tmp_path).code == 1
        (second, before, *_) = reqon("history", "--json", cwd=tmp_path).json
        assert (second["resumedFrom"], second["attempt"]) == (first["executionId"], 1), number
        assert before == first
        mission.write_text(mission.read_text().replace(", seen: true", ", seen: false"))
    api.heal()
    assert reqon("fetch.vague", "--resume", "--force", cwd=tmp_path).code == 0
    assert reqon("fetch.vague", "--resume", "--force", cwd=tmp_path).code == 0
    assert "resumedFrom" not in reqon("history", "--json", cwd=tmp_path).json[0], "nothing was left to go on with"


def test_what_a_newer_release_wrote_is_listed_and_not_resumed(failed: Ended, tmp_path: Path) -> None:
    """D10: and the reason is that, not its status."""
    (path,) = (tmp_path / ".vague-data" / "execution").glob("*.json")
    path.write_text(path.read_text().replace('"reqonVersion": "', '"reqonVersion": "99.'))
    before = path.read_bytes()
    (shown,) = reqon("history", "--json", cwd=tmp_path).json
    reason = f"Reqon {shown['reqonVersion']} wrote it, a newer one than this"
    explained = reqon("resume", "fetch.vague", "--explain", cwd=tmp_path)
    assert f"Fetch: would run anew: {reason}" in explained.out
    refused = reqon("fetch.vague", "--resume", "--execution", shown["executionId"], cwd=tmp_path)
    assert refused.code == 1
    assert f"cannot resume {shown['executionId']} of Fetch: {reason}" in refused.err
    assert path.read_bytes() == before


def test_blanks_and_comments_change_nothing(failed: Ended, api: OrdersApi, tmp_path: Path) -> None:
    """R3 in part."""
    mission = tmp_path / "fetch.vague"
    mission.write_text("// a comment\n\n" + mission.read_text().replace("  ", "\t"))
    assert reqon("fetch.vague", "--resume", cwd=tmp_path).code == 0
    assert api.stats()["/customers/cust_0001"] == 1


def test_what_is_done_is_run_anew_unless_it_was_named(failed: Ended, api: OrdersApi, tmp_path: Path) -> None:
    assert reqon("fetch.vague", "--resume", cwd=tmp_path).code == 0
    (done,) = reqon("history", "--json", cwd=tmp_path).json
    named = reqon("fetch.vague", "--resume", "--execution", done["executionId"], cwd=tmp_path)
    assert named.code == 1, named.text
    assert "it is completed" in named.err
    assert reqon("fetch.vague", "--resume", cwd=tmp_path).code == 0
    assert len(reqon("history", "--json", cwd=tmp_path).json) == 2


def test_the_first_run_may_be_a_resume(api: OrdersApi, tmp_path: Path) -> None:
    (tmp_path / "fetch.vague").write_text(FETCH.format(url=api.url))
    assert reqon("fetch.vague", "--resume", cwd=tmp_path).code == 0
