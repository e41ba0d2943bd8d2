"""What is wrong is said where it is, with what to do; and the exit code tells whose turn it is (spec/daemon.md 1)."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.orders_api import OrdersApi
from tests.support.processes import reqon

THREE_MISTAKES = """mission Wrong {
  source Shop { auth: none, base: "http://127.0.0.1:9" }
  store orders: file("orders")
  action Load {
    get "/orders"
    store response -> orderz { key: .id }
    for order in response.orders { store oder -> orders { key: .id } }
  }
  run Laod
}
"""
GOOD = """mission Good {
  store out: file("good")
  let items = [{ id: "a" }, { id: "b" }]
  action Load { for item in items { store item -> out { key: .id } } }
  run Load
}
"""
PROTECTED = """mission Protected {
  source Shop { auth: bearer, base: "http://127.0.0.1:9" }
  store orders: file("orders")
  action Load { get "/orders" store response -> orders { key: .id } }
  run Load
}
"""
SHOWN = """\
wrong.vague:6:23: error: store 'orderz' is not declared [undefined-store]
        store response -> orderz { key: .id }
                          ^^^^^^
hint: did you mean 'orders'? Declared stores: orders.
"""


@pytest.mark.parametrize("command", [[], ["check"], ["--once"], ["--dry-run"], ["--verbose"]])
def test_three_mistakes_are_three_findings(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "wrong.vague").write_text(THREE_MISTAKES)
    ended = reqon(*command, "wrong.vague", cwd=tmp_path)
    assert ended.code == 2, ended.text
    assert ended.out == ""
    assert SHOWN in ended.err
    places = [line for line in ended.err.splitlines() if line.startswith("wrong.vague:")]
    assert [place.split(" ")[0] for place in places] == ["wrong.vague:6:23:", "wrong.vague:7:42:", "wrong.vague:9:7:"]
    assert ended.err.count("hint: ") == 3
    assert "\x1b" not in ended.err
    assert list(tmp_path.rglob("execution/*")) == []


def test_findings_are_json_for_editors(tmp_path: Path) -> None:
    (tmp_path / "wrong.vague").write_text(THREE_MISTAKES)
    ended = reqon("check", "--json", "wrong.vague", cwd=tmp_path)
    assert ended.code == 2
    assert ended.err == ""
    assert [(d["code"], d["line"], d["column"]) for d in ended.json] == [
        ("undefined-store", 6, 23),
        ("undefined-name", 7, 42),
        ("undefined-action", 9, 7),
    ]
    assert ended.json[0] == {
        "severity": "error",
        "code": "undefined-store",
        "message": "store 'orderz' is not declared",
        "hint": "did you mean 'orders'? Declared stores: orders.",
        "file": "wrong.vague",
        "line": 6,
        "column": 23,
        "endLine": 6,
        "endColumn": 29,
    }


def test_what_is_right_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "good.vague").write_text(GOOD)
    ended = reqon("check", "good.vague", cwd=tmp_path)
    assert (ended.code, ended.out, ended.err) == (0, "1 mission checked\n", "")
    assert reqon("check", "good.vague", "--json", cwd=tmp_path).json == []


def test_a_missing_token_names_the_variable_to_set(tmp_path: Path) -> None:
    (tmp_path / "protected.vague").write_text(PROTECTED)
    ended = reqon("protected.vague", cwd=tmp_path)
    assert ended.code == 3
    assert "protected.vague:2:10: error: source 'Shop' has auth: bearer" in ended.err
    assert "REQON_SHOP_TOKEN" in ended.err
    assert "--auth" in ended.err
    assert "Traceback" not in ended.err
    (record,) = reqon("history", "--json", cwd=tmp_path).json
    assert record["errors"][0]["type"] == "config"


@pytest.mark.parametrize(
    ("auth", "given", "missing"),
    [
        ('auth: bearer, token: env("SHOP_PASS")', {}, "set SHOP_PASS,"),
        ('auth: bearer, token: "${SHOP_PASS}"', {}, "set SHOP_PASS,"),
        ('auth: api_key, apiKey: env("SHOP_PASS")', {}, "set SHOP_PASS,"),
        ('auth: basic, username: env("SHOP_USER"), password: "x"', {}, "set SHOP_USER,"),
        ('auth: basic, username: env("SHOP_USER"), password: env("SHOP_PASS")', {}, "set SHOP_USER and SHOP_PASS,"),
    ],
)
def test_a_missing_token_names_the_variable_that_the_mission_reads(
    auth: str, given: dict[str, str], missing: str, tmp_path: Path
) -> None:
    (tmp_path / "protected.vague").write_text(PROTECTED.replace("auth: bearer", auth))
    ended = reqon("protected.vague", cwd=tmp_path, variables=given)
    assert ended.code == 3
    assert missing in ended.err


def test_a_source_reads_the_environment_in_its_strings(tmp_path: Path) -> None:
    source = 'auth: bearer, token: "${SHOP_PASS}", base: "http://127.0.0.1:${SHOP_PORT:-9}/${SHOP_AREA}"'
    text = PROTECTED.replace('auth: bearer, base: "http://127.0.0.1:9"', source)
    (tmp_path / "protected.vague").write_text(text)
    unset = reqon("protected.vague", cwd=tmp_path, SHOP_PASS="word-4711")
    assert unset.code == 3
    assert "protected.vague:2:60: error: the environment variable SHOP_AREA is not set" in unset.err
    ended = reqon("protected.vague", "--dry-run", cwd=tmp_path, SHOP_PASS="word-4711", SHOP_AREA="north", SHOP_PORT="8")
    assert ended.code == 0
    assert "http://127.0.0.1:8/north/orders" in ended.out
    assert "word-4711" not in ended.text


@pytest.mark.parametrize("command", [["check"], ["--dry-run"]])
def test_where_nothing_is_sent_a_missing_token_only_warns(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "protected.vague").write_text(PROTECTED)
    ended = reqon(*command, "protected.vague", cwd=tmp_path)
    assert ended.code == 0, ended.text
    assert "protected.vague:2:10: warning: " in ended.err
    assert "REQON_SHOP_TOKEN" in ended.err


NO_FILES = {
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
@pytest.mark.parametrize("command", [["check"], ["fmt", "--check"], ["plan"], ["run", "--keep-going"]])
def test_nothing_waits_for_what_is_no_file(command: list[str], make: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "missions").mkdir()
    (tmp_path / "missions" / "good.vague").write_text(GOOD)
    make(tmp_path / "missions" / "odd.vague")
    ended = reqon(*command, "missions", cwd=tmp_path, seconds=60)
    assert ended.code == (3 if command[0] == "fmt" else 2), ended.text
    assert "missions/odd.vague" in ended.err and "cannot be read" in ended.err


def test_a_pipe_that_is_named_is_read(tmp_path: Path) -> None:
    """As the shell's <(…) does."""
    command = [sys.executable, "-m", "reqon", "check", "/dev/stdin"]
    ended = subprocess.run(command, input=GOOD, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "1 mission checked\n"), ended.stderr


def test_one_broken_file_stops_all_unless_told_to_keep_going(tmp_path: Path) -> None:
    (tmp_path / "missions").mkdir()
    (tmp_path / "missions" / "good.vague").write_text(GOOD)
    (tmp_path / "missions" / "wrong.vague").write_text(THREE_MISTAKES)
    stopped = reqon("missions", cwd=tmp_path)
    assert stopped.code == 2
    assert stopped.out == ""
    went_on = reqon("missions", "--keep-going", cwd=tmp_path)
    assert went_on.code == 2
    assert "missions/wrong.vague:6:23: error" in went_on.err
    assert "Good: completed" in went_on.out


def test_two_missions_of_one_name_name_both_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.vague").write_text(GOOD)
    ended = reqon("check", ".", cwd=tmp_path)
    assert ended.code == 2
    assert "one.vague" in ended.err
    assert "two.vague" in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.vague"], "'nowhere.vague' does not exist"),
        (["check", "nowhere.vague"], "'nowhere.vague' does not exist"),
        (["good.vague", "--bogus"], "--bogus"),
        (["status", "--bogus"], "--bogus"),
        (["history", "--limit", "x"], "--limit"),
        (["history", "--limit", "0"], "--limit"),
        (["history", "--status", "done"], "'done' is no status"),
        (["history", "--since", "yesterday"], "--since 'yesterday'"),
        (["check"], "PATH"),
        (["trigger"], "MISSION"),
        (["cleanup"], "say which records go"),
        (["cleanup", "--older-than", "a while"], "a while"),
        (["cleanup", "--older-than", "7"], "'7' has no unit"),
        (["cleanup", "--older-than", "7d", "--all"], "--older-than or --all, not both"),
        (["good.vague", "--state-retention", "30"], "'30' has no unit"),
        (["good.vague", "--daemon", "--state-retention", "30"], "has no unit"),
        (["good.vague", "--mission", "Godo"], "did you mean 'Good'?"),
        (["good.vague", "--execution", "exec_01m83kqhrt367s3k2nf744018d"], "--execution goes with --resume"),
        (["good.vague", "--resume", "--execution", "exec_01m83kqhrt367s3k2nf744018d"], "no mission here has"),
        (["good.vague", "--daemon", "--once"], "--daemon and --once"),
        (["good.vague", "--daemon", "--output", "x"], "--output"),
        (["good.vague", "--env", "nowhere.env"], "nowhere.env"),
        (["good.vague", "--auth", "nowhere.json"], "nowhere.json"),
        (["good.vague", "--shutdown-grace", "soon"], "soon"),
        (["good.vague", "--journal-max", "big"], "'big' is no size"),
        (["good.vague", "--metrics-port", "http"], "--metrics-port"),
        (["status", "Unknown"], "Unknown"),
        (["history", "Unknown"], "Unknown"),
        (["status", "--execution", "exec_nothing"], "exec_nothing"),
        (["status", "--execution", "../../etc/passwd"], "../../etc/passwd"),
        (["cleanup", "Unknown", "--all"], "Unknown"),
        (["--validate-cron", "61 * * * *"], "61"),
        (["--daemon"], "no mission file"),
        (["god.vague"], "did you mean 'good.vague'?"),
        (["check", "./god.vague"], "did you mean 'good.vague'?"),
        (["good.vague", "--timezone", "Europe/Oslo"], "--timezone goes with --validate-cron"),
        (["good.vague", "--daemon", "--timezone", "Europe/Oslo"], "--timezone goes with --validate-cron"),
        (["--validate-cron", "0 9 * * *", "--timezone", "Europe/Olso"], "did you mean 'Europe/Oslo'?"),
        (["--validate-cron", "0 9 * * 1-5 2027"], 'there is no field for the year: write "0 9 * * 1-5"'),
        (["--validate-cron", "0 0 9 * * 1-5"], 'there is no field for seconds: write "0 9 * * 1-5"'),
        (["good.vague", "--metrics-port", "9090"], "--metrics-port goes with --daemon"),
        (["good.vague", "--metrics-port", "0"], "--metrics-port goes with --daemon"),
        (["good.vague", "--dry-run", "--alert-on-failure"], "--alert-on-failure goes with --daemon"),
        (["good.vague", "--force"], "--force goes with --resume"),
        (["good.vague", "--store-config", "nowhere.json"], "hint: check the path"),
        (["good.vague", "--auth", "nowhere.json"], "hint: check the path"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_and_configuration_are_answered_with_three(arguments: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "good.vague").write_text(GOOD)
    ended = reqon(*arguments, cwd=tmp_path)
    assert ended.code == 3, ended.text
    assert said in ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert len(ended.err.splitlines()) <= 5


def test_help_reads_well_at_eighty_columns(tmp_path: Path) -> None:
    for command in (["--help"], ["run", "--help"], ["status", "-h"], ["pause", "--help"], ["test-alert", "--help"]):
        ended = reqon(*command, cwd=tmp_path)
        assert ended.code == 0
        assert ended.err == ""
        assert max(map(len, ended.out.splitlines())) <= 80
        assert "..." not in ended.out.replace("PATH...", "")
        assert "\x1b" not in ended.out
    whole = reqon("run", "--help", cwd=tmp_path).out
    assert whole.startswith("Usage: reqon PATH... [OPTIONS]\n")
    assert whole.index("\nOptions:\n") < whole.index("\nDaemon:\n") < whole.index("--metrics-port N")
    assert reqon(cwd=tmp_path).code == 3


def test_a_path_that_is_called_like_a_command_is_written_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "status").mkdir()
    (tmp_path / "status" / "good.vague").write_text(GOOD)
    assert "Good: completed" in reqon("./status", cwd=tmp_path).out
    assert "STATUS" in reqon("status", cwd=tmp_path).out


@pytest.mark.parametrize("flags", [["--verbose"], ["--daemon"]])
@pytest.mark.parametrize("variable", ["REQON_LOG_LEVEL", "REQON_LOG_FORMAT"])
def test_a_form_of_logs_that_there_is_not_names_its_variable(variable: str, flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "good.vague").write_text(GOOD)
    ended = reqon("good.vague", *flags, cwd=tmp_path, variables={variable: "loud"})
    assert ended.code == 3, ended.text
    assert (
        f"{variable} must be " in ended.err and "not 'loud' [bad-option]" in ended.err and "Traceback" not in ended.err
    )


@pytest.mark.parametrize(("slip", "meant"), [("statsu", "status"), ("hitsory", "history"), ("test-alrt", "test-alert")])
def test_a_misspelt_command_is_not_taken_for_a_path(slip: str, meant: str, tmp_path: Path) -> None:
    ended = reqon(slip, "M", cwd=tmp_path)
    assert ended.code == 3
    assert f"did you mean `reqon {meant}`?" in ended.err
    (tmp_path / slip).mkdir()
    assert "unknown-command" not in reqon(slip, cwd=tmp_path).err


def test_a_path_that_is_like_no_command_is_a_path(tmp_path: Path) -> None:
    ended = reqon("missons", cwd=tmp_path)
    assert ended.code == 3
    assert "'missons' does not exist" in ended.err


def test_rules_and_dashboard_are_written_to_stdout(tmp_path: Path) -> None:
    (tmp_path / "m.vague").write_text("mission M { action A { let x = 1 } run A }")
    rules = reqon("export", "prometheus-rules", "m.vague", "--job", "sync", cwd=tmp_path)
    assert rules.code == 0, rules.text
    assert 'absent(up{job="sync"})' in rules.out
    assert 'absent(reqon_mission_info{mission="M"})' in rules.out
    assert reqon("export", "grafana", cwd=tmp_path).json["title"] == "Reqon"
    assert reqon("export", "grafana", "nowhere", cwd=tmp_path).code == 3


def test_a_misspelt_unit_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "m.vague").write_text(
        "mission M {\n  schedule: every 15 minuts\n  action A { let x = 1 }\n  run A\n}\n"
    )
    ended = reqon("check", "m.vague", cwd=tmp_path)
    assert ended.code == 2
    assert "m.vague:2:22: error: " in ended.err
    assert "did you mean 'every 15 minutes'?" in ended.err


def test_an_action_that_is_not_closed_is_the_only_mistake(tmp_path: Path) -> None:
    (tmp_path / "m.vague").write_text(
        GOOD.replace("{ store item -> out { key: .id } } }", "{ store item -> out { key: .id } }")
    )
    ended = reqon("check", "m.vague", cwd=tmp_path)
    assert ended.code == 2
    assert ended.err.count("error: ") == 1, ended.err
    assert "is not closed" in ended.err


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQON_CA_BUNDLE"])
def test_certificates_that_cannot_be_read_are_named_before_the_first_request(name: str, tmp_path: Path) -> None:
    text = 'mission M { source S { auth: none, base: "https://127.0.0.1:9" } action A { get "/x" } run A }'
    (tmp_path / "m.vague").write_text(text)
    (tmp_path / "none.pem").write_text("no certificate")
    for path, reason in (("gone.pem", "no such file or directory"), ("none.pem", "it holds no certificates")):
        ended = reqon("m.vague", cwd=tmp_path, variables={name: path})
        assert ended.code == 3, ended.text
        assert f"{name} names {path}, which cannot be used: {reason}" in ended.err and "bug" not in ended.text
    plain = reqon("m.vague", cwd=tmp_path)
    assert plain.code == 1 and "no connection to 127.0.0.1" in plain.err


@pytest.mark.parametrize(
    "proxy", [":::", "http://127.0.0.1:99999", "socks5://127.0.0.1:9", "not a url", "http://u:pass-word-7@"]
)
def test_a_proxy_that_is_none_is_named_before_the_first_request(proxy: str, tmp_path: Path) -> None:
    (tmp_path / "m.vague").write_text(
        'mission M { source S { auth: none, base: "http://api.invalid" } action A { get "/x" } run A }'
    )
    ended = reqon("m.vague", cwd=tmp_path, HTTP_PROXY=proxy)
    assert ended.code == 3, ended.text
    assert "the variable http_proxy names no proxy that can be used" in ended.err and "pass-word-7" not in ended.text


def test_a_proxy_that_does_not_answer_is_named(tmp_path: Path) -> None:
    text = 'mission M { source S { auth: none, base: "http://api.invalid", retry: { maxAttempts: 1 } } '
    (tmp_path / "m.vague").write_text(text + 'action A { get "/x" } run A }')
    ended = reqon("m.vague", cwd=tmp_path, HTTP_PROXY="http://u:pass-word-7@127.0.0.1:9")
    assert ended.code == 1 and "no connection to the proxy 127.0.0.1:9: connection refused" in ended.err
    assert "pass-word-7" not in ended.text


@pytest.mark.parametrize("endpoint", ["http://[", "http://h:x", "ftp://h", "h"])
def test_a_collector_that_is_none_is_named(endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "m.vague").write_text('mission M { store o: memory("o") action A { store { id: 1 } -> o } run A }')
    ended = reqon("m.vague", cwd=tmp_path, REQON_OTEL_ENDPOINT=endpoint)
    assert ended.code == 3 and f"'{endpoint}' is no address of a collector" in ended.err


def test_a_wrong_port_and_a_plain_server_behind_https_are_told_apart(tmp_path: Path) -> None:
    text = 'mission M { source S { auth: none, base: "BASE", retry: { maxAttempts: 1 } } action A { get "/x" } run A }'
    with OrdersApi() as api:
        for base, said, hint in (
            (
                "http://127.0.0.1:9",
                "no connection to 127.0.0.1:9: connection refused",
                "are 127.0.0.1 and the port right",
            ),
            (api.url.replace("http:", "https:"), f"no TLS with {api.url[7:]}: ", "If it is plain, write http://"),
        ):
            (tmp_path / "m.vague").write_text(text.replace("BASE", base))
            ended = reqon("m.vague", cwd=tmp_path)
            assert ended.code == 1 and said in ended.err and hint in ended.err, ended.text
