"""What a run is given: variables, credentials, where its output goes, what it only shows."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reqon.cli.durations import parse_size, seconds, written
from reqon.values import decode
from tests.support.orders_api import OrdersApi
from tests.support.processes import environment, reqon

VALUES = """mission Values {
  store out: file("values")
  action Keep { store { id: "a", one: env("ONE"), two: env("TWO"), three: env("THREE", "unset") } -> out { key: .id } }
  run Keep
}
"""
TWO_STORES = """mission Two {
  store letters: file("letters")
  store numbers: memory("numbers")
  let items = [{ id: "a", n: 1 }, { id: "b", n: 2 }]
  action Load {
    for item in items {
      store { id: item.id } -> letters { key: .id }
      store { id: item.n } -> numbers { key: .id }
    }
  }
  run Load
}
"""
PROTECTED = """mission Protected {{
  source Shop {{ auth: bearer, base: "{url}/secure", retry: {{ maxAttempts: 1 }} }}
  store orders: file("orders")
  action Load {{
    get "/orders" {{ params: {{ limit: 10 }} }}
    store response.orders -> orders {{ key: .id }}
  }}
  run Load
}}
"""
NOTES = """mission Notes {{
  source Shop {{ auth: none, base: "{url}" }}
  store orders: file("orders")
  action Load {{
    post "/orders/ord_00001/notes" {{ body: {{ text: "hello" }} }}
    store response -> orders {{ key: .id }}
  }}
  run Load
}}
"""


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=5, orders=20) as running:
        yield running


def values(home: Path, *arguments: str, **variables: str) -> tuple[str | None, str | None, str | None]:
    (home / "values.vague").write_text(VALUES)
    ended = reqon("values.vague", *arguments, cwd=home, variables=variables)
    assert ended.code == 0, ended.text
    kept = decode((home / ".vague-data" / "stores" / "values.json").read_bytes())["a"]
    return kept["one"], kept["two"], kept["three"]


def test_variables_come_from_the_process_before_env_local_before_env(tmp_path: Path) -> None:
    assert values(tmp_path) == (None, None, "unset")
    (tmp_path / ".env").write_text("ONE=env\nTWO=env\nTHREE=env\n")
    (tmp_path / ".env.local").write_text("TWO=local\nTHREE=local\n")
    assert values(tmp_path, THREE="process") == ("env", "local", "process")


def test_with_env_that_file_alone_counts(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ONE=env\nTWO=env\n")
    (tmp_path / "other.env").write_text('ONE="other"\nTHREE=other\n')
    assert values(tmp_path, "--env", "other.env", THREE="process") == ("other", None, "process")


def test_output_is_a_folder_or_one_file(tmp_path: Path) -> None:
    (tmp_path / "two.vague").write_text(TWO_STORES)
    assert reqon("two.vague", "--output", "out", cwd=tmp_path).code == 0
    assert decode((tmp_path / "out" / "letters.json").read_bytes()) == [{"id": "a"}, {"id": "b"}]
    assert decode((tmp_path / "out" / "numbers.json").read_bytes()) == [{"id": 1}, {"id": 2}]
    assert reqon("two.vague", "--output", "all/of/it.json", cwd=tmp_path).code == 0
    assert decode((tmp_path / "all" / "of" / "it.json").read_bytes()) == {
        "letters": [{"id": "a"}, {"id": "b"}],
        "numbers": [{"id": 1}, {"id": 2}],
    }


def test_output_that_cannot_be_written_is_said_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "two.vague").write_text(TWO_STORES)
    (tmp_path / "taken").write_text("a file")
    ended = reqon("two.vague", "--output", "taken/out", cwd=tmp_path)
    assert ended.code in (1, 3), ended.text
    assert "taken" in ended.err
    assert "Traceback" not in ended.text
    assert "internal error" not in ended.text


@pytest.mark.parametrize("how", ["file", "file with a variable", "variable"])
def test_credentials_come_from_a_file_or_the_environment(how: str, api: OrdersApi, tmp_path: Path) -> None:
    (tmp_path / "protected.vague").write_text(PROTECTED.format(url=api.url))
    token = api.token if how == "file" else "${SHOP}"
    auth = tmp_path / "auth.json"
    auth.write_text(f'{{"Shop": {{"type": "bearer", "token": "{token}"}}}}')
    auth.chmod(0o600)
    arguments = [] if how == "variable" else ["--auth", "auth.json"]
    variable = "REQON_SHOP_TOKEN" if how == "variable" else "SHOP"
    ended = reqon("protected.vague", *arguments, cwd=tmp_path, variables={variable: api.token})
    assert ended.code == 0, ended.text
    assert ended.err == ""
    assert "10 added" in ended.out


def test_an_auth_file_that_is_wrong_is_said_without_its_content(tmp_path: Path) -> None:
    (tmp_path / "protected.vague").write_text(PROTECTED.format(url="http://127.0.0.1:9"))
    for content, said in (
        ('{"Shop": {"type": "bearer", "token": "s3cret-t0ken"', "auth.json"),
        ('{"Shop": {"type": "bearer", "token": "s3cret-t0ken${NOT_SET}"}}', "NOT_SET"),
        ('{"Shop": {"type": "basic", "username": "u", "password": "s3cret-t0ken"}}', "Shop"),
        ('["s3cret-t0ken"]', "auth.json"),
    ):
        (tmp_path / "auth.json").write_text(content)
        (tmp_path / "auth.json").chmod(0o600)
        ended = reqon("protected.vague", "--auth", "auth.json", cwd=tmp_path)
        assert ended.code == 3, ended.text
        assert said in ended.err
        assert "s3cret" not in ended.text
        assert "Traceback" not in ended.text


def test_a_dry_run_shows_what_would_be_done_and_does_nothing(api: OrdersApi, tmp_path: Path) -> None:
    (tmp_path / "notes.vague").write_text(NOTES.format(url=api.url))
    for arguments, variable in ((["--dry-run"], ""), ([], "1"), (["--dry-run", "--quiet"], "")):
        ended = reqon("notes.vague", *arguments, cwd=tmp_path, REQON_DRY_RUN=variable)
        assert ended.code == 0, ended.text
        assert "POST" in ended.out
        assert "/orders/ord_00001/notes" in ended.out
        assert "orders" in ended.out
    assert api.requests() == []
    assert [path.name for path in tmp_path.iterdir()] == ["notes.vague"]


def test_a_pipe_gets_a_summary_without_colours_or_bars(api: OrdersApi, tmp_path: Path) -> None:
    (tmp_path / "two.vague").write_text(TWO_STORES)
    ended = reqon("two.vague", cwd=tmp_path, FORCE_COLOR="1", CLICOLOR_FORCE="1")
    assert ended.code == 0
    assert ended.err == ""
    assert "\x1b" not in ended.out
    lines = ended.out.splitlines()
    assert lines[0].startswith("Two: completed in ")
    assert "2 items, 0 requests" in lines[0]
    assert lines[1:] == [
        "  actions  Load",
        "  store    letters: 2 records (2 added, 0 updated, 0 unchanged)",
        "  store    numbers: 2 records (2 added, 0 updated, 0 unchanged)",
    ]
    again = reqon("two.vague", cwd=tmp_path)
    assert "letters: 2 records (0 added, 0 updated, 2 unchanged)" in again.out
    silent = reqon("two.vague", "--quiet", cwd=tmp_path)
    assert (silent.code, silent.text) == (0, "")


def test_verbose_shows_a_json_line_for_what_happens(api: OrdersApi, tmp_path: Path) -> None:
    (tmp_path / "notes.vague").write_text(NOTES.format(url=api.url))
    ended = reqon("notes.vague", "--verbose", cwd=tmp_path)
    assert ended.code == 0
    lines = [decode(line.encode()) for line in ended.err.splitlines()]
    assert lines
    assert {line["mission"] for line in lines} == {"Notes"}
    assert all(line["timestamp"].endswith("Z") and line["level"] in ("info", "warning") for line in lines)
    assert "Notes: completed" in ended.out
    text = reqon("notes.vague", "--verbose", cwd=tmp_path, REQON_LOG_FORMAT="logfmt")
    assert "mission=Notes" in text.err


def test_only_the_missions_that_are_named_run(tmp_path: Path) -> None:
    for name in ("One", "Two", "Three"):
        (tmp_path / f"{name}.vague").write_text(TWO_STORES.replace("mission Two", f"mission {name}"))
    ended = reqon(".", "--mission", "Three", "--mission", "One", cwd=tmp_path)
    assert ended.code == 0
    ran = [line.split(":")[0] for line in ended.out.splitlines() if not line.startswith(" ")]
    assert ran == ["Three", "One"]


def test_the_state_directory_is_where_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "two.vague").write_text(TWO_STORES)
    assert reqon("two.vague", "--state-dir", "here", cwd=tmp_path, REQON_STATE_DIR="there").code == 0
    assert reqon("two.vague", cwd=tmp_path, REQON_STATE_DIR="there").code == 0
    for name in ("here", "there"):
        state = tmp_path / name
        assert (state / "stores" / "letters.json").exists()
        assert state.stat().st_mode & 0o777 == 0o700
        assert all(path.stat().st_mode & 0o077 == 0 for path in state.rglob("*"))
    assert not (tmp_path / ".vague-data").exists()
    assert len(reqon("history", "--state-dir", "here", "--json", cwd=tmp_path).json) == 1


def test_a_cron_text_is_answered_with_its_next_runs(tmp_path: Path) -> None:
    ended = reqon("--validate-cron", "0 9 * * 1-5", "--timezone", "Europe/Oslo", cwd=tmp_path)
    assert ended.code == 0, ended.text
    assert ended.out.count("09:00") >= 5
    wrong = reqon("--validate-cron", "0 9 * *", cwd=tmp_path)
    assert wrong.code == 3


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_closed_or_full_stream_ends_no_run(closed: str, tmp_path: Path) -> None:
    """L5 in part: a run goes on when nobody can read what it says, and no state file takes the stream's place."""
    (tmp_path / "two.vague").write_text(TWO_STORES)
    ended = shell(f"two.vague {closed}", tmp_path)
    assert ended.returncode == 0
    kept = decode((tmp_path / ".vague-data" / "stores" / "letters.json").read_bytes())
    assert kept == {"a": {"id": "a"}, "b": {"id": "b"}}


def test_output_that_went_nowhere_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "two.vague").write_text(TWO_STORES)
    ended = shell("two.vague > /dev/full", tmp_path)
    assert ended.returncode == 3
    assert ended.stderr == b"error: the output could not be written: No space left on device\n"
    (record,) = reqon("history", "--json", cwd=tmp_path).json
    assert record["status"] == "completed"


def shell(line: str, home: Path) -> "subprocess.CompletedProcess[bytes]":
    command = ["bash", "-c", f"{sys.executable} -m reqon {line}"]
    return subprocess.run(command, cwd=home, env=environment({}), capture_output=True, check=False, timeout=20)


REGION = """mission Regions {
  schedule: every 15 minutes
  store out: file("out")
  action Write { store { id: env("REGION") } -> out { key: .id } }
  run Write
}
"""


def regions(home: Path, state: str = ".vague-data") -> list[str]:
    return list(decode((home / state / "stores" / "out.json").read_bytes()))


def test_the_flag_the_variable_the_file_and_the_default_decide_in_this_order(tmp_path: Path) -> None:
    (tmp_path / "regions.vague").write_text(REGION)
    (tmp_path / "reqon.toml").write_text('state-dir = "of-the-file"\nset = { REGION = "file" }\n')
    assert reqon("regions.vague", cwd=tmp_path).code == 0
    assert regions(tmp_path, "of-the-file") == ["file"]
    assert (
        reqon("regions.vague", cwd=tmp_path, REQON_STATE_DIR="of-the-variable", REQON_SET="REGION=variable").code == 0
    )
    assert regions(tmp_path, "of-the-variable") == ["variable"]
    flags = ("--state-dir", "of-the-flag", "--set", "REGION=flag")
    assert reqon("regions.vague", *flags, cwd=tmp_path, REQON_STATE_DIR="x", REQON_SET="REGION=y").code == 0
    assert regions(tmp_path, "of-the-flag") == ["flag"]
    shown = reqon("config", "regions.vague", cwd=tmp_path, REQON_SET="REGION=variable")
    assert re.search(r"^state-dir +of-the-file +reqon.toml$", shown.out, re.MULTILINE)
    assert re.search(r"^set +REGION=variable +REQON_SET$", shown.out, re.MULTILINE)
    assert re.search(r"^shutdown-grace +25s +default$", shown.out, re.MULTILINE)


def test_a_key_of_the_file_that_is_no_option_is_no_silence(tmp_path: Path) -> None:
    (tmp_path / "regions.vague").write_text(REGION)
    (tmp_path / "reqon.toml").write_text("verbos = true\n")
    ended = reqon("regions.vague", cwd=tmp_path)
    assert ended.code == 3
    assert "did you mean 'verbose'?" in ended.err


@pytest.mark.parametrize("text", ["REGION", "=eu"])
def test_set_wants_a_name_and_a_value(text: str, tmp_path: Path) -> None:
    (tmp_path / "regions.vague").write_text(REGION)
    ended = reqon("regions.vague", "--set", text, cwd=tmp_path)
    assert ended.code == 3
    assert "name=value" in ended.err


def test_the_command_to_resume_has_what_was_set(tmp_path: Path) -> None:
    (tmp_path / "regions.vague").write_text(
        REGION.replace("run Write", 'action Fail { abort "no" } run Write then Fail')
    )
    ended = reqon("regions.vague", "--set", "REGION=eu", cwd=tmp_path)
    assert ended.code == 1
    assert "--set REGION=eu --resume --execution" in ended.out


@pytest.mark.parametrize("how", ["--daemon", "--once"])
@pytest.mark.parametrize("asked", ["flag", "variable", "file"])
def test_a_dry_run_of_the_daemon_shows_when_and_what_and_does_nothing(how: str, asked: str, tmp_path: Path) -> None:
    (tmp_path / "regions.vague").write_text(REGION)
    if asked == "file":
        (tmp_path / "reqon.toml").write_text("dry-run = true\n")
    variables = {"REQON_DRY_RUN": "yes"} if asked == "variable" else {}
    ended = reqon("regions.vague", how, *["--dry-run"] * (asked == "flag"), cwd=tmp_path, variables=variables)
    assert ended.code == 0, ended.text
    assert "would run Regions every 15 minutes, first 2" in ended.out
    assert "would store" in ended.out
    assert not (tmp_path / ".vague-data").exists()


@pytest.mark.parametrize(
    ("text", "size"), [("1GiB", 2**30), ("500MB", 500 * 10**6), ("2G", 2**31), ("4096", 4096), ("3 kb", 3000)]
)
def test_sizes_mean_the_same_everywhere(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("length", ["90s", "4h", "30d", "0.5s", "25s"])
def test_a_duration_is_shown_as_it_is_written(length: str) -> None:
    assert written(seconds("--x", length)) == length


def test_port_0_of_webhooks_is_a_free_one_in_single_runs_too(tmp_path: Path) -> None:
    (tmp_path / "values.vague").write_text(VALUES)
    ended = reqon("values.vague", "--webhook", "--webhook-port", "0", cwd=tmp_path)
    port = re.search(r"received at http://127\.0\.0\.1:(\d+); their URLs begin with http://localhost:(\d+)", ended.err)
    assert port is not None and port[1] == port[2] and port[1] not in ("0", "3000"), ended.text
