"""Flag, environment, file, default: the first that names an option decides."""

from pathlib import Path

import pytest

from reqon.errors import ConfigurationError
from reqon_daemon.service import Service
from reqon_daemon.settings import DaemonSettings


def _missions(tmp_path: Path, toml: str = "") -> Path:
    folder = tmp_path / "missions"
    folder.mkdir()
    if toml:
        (folder / "reqon.toml").write_text(toml)
    return folder


def test_defaults_are_those_of_the_documentation() -> None:
    settings = DaemonSettings.read({}, environ={})
    assert settings.metrics_host == "127.0.0.1"
    assert settings.metrics_port is None
    assert settings.shutdown_grace == 25
    assert settings.max_running == 32
    assert settings.state_dir == Path(".vague-data")
    assert settings.source_of("shutdown-grace") == "default"


def test_a_flag_beats_the_environment_beats_the_file(tmp_path: Path) -> None:
    folder = _missions(tmp_path, 'metrics-port = 1\nhealth_port = 2\nmisfire-grace = "90s"\n')
    environ = {"REQON_METRICS_PORT": "11", "REQON_HEALTH_PORT": "12"}
    settings = DaemonSettings.read({"paths": (folder,), "metrics_port": 21}, environ=environ)
    assert (settings.metrics_port, settings.health_port, settings.misfire_grace) == (21, 12, 90)
    assert settings.source_of("metrics_port") == "--metrics-port"
    assert settings.source_of("health_port") == "REQON_HEALTH_PORT"
    assert settings.source_of("misfire-grace") == str(folder / "reqon.toml")


def test_the_file_lies_beside_a_single_mission_too(tmp_path: Path) -> None:
    folder = _missions(tmp_path, "max-running = 3\n")
    (folder / "orders.vague").write_text("mission A {}")
    assert DaemonSettings.read({"paths": (folder / "orders.vague",)}, environ={}).max_running == 3


def test_the_alerts_table_and_plain_keys_mean_the_same(tmp_path: Path) -> None:
    toml = 'alert-on-failure = true\n[alerts]\nurls = ["https://hooks.example.org/abc"]\nrepeat = "2h"\n'
    settings = DaemonSettings.read({"paths": (_missions(tmp_path, toml),)}, environ={})
    assert settings.alert_on_failure
    assert settings.alert_url == ("https://hooks.example.org/abc",)
    assert settings.alert_repeat == 7200


def test_several_alert_urls_in_one_variable() -> None:
    environ = {"REQON_ALERT_URLS": "https://a.example/1, exec:./page"}
    assert DaemonSettings.read({}, environ=environ).alert_url == ("https://a.example/1", "exec:./page")


def test_paths_in_the_file_are_relative_to_it(tmp_path: Path) -> None:
    folder = _missions(tmp_path, 'state-dir = "state"\n')
    assert DaemonSettings.read({"paths": (folder,)}, environ={}).state_dir == folder / "state"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"metrics_port": "70000"}, "--metrics-port: '70000' cannot be used"),
        ({"metrics_port": "-1"}, "--metrics-port"),
        ({"shutdown_grace": "soon"}, "--shutdown-grace: 'soon'"),
        ({"max_running": 0}, "--max-running: 0"),
        ({"set": ["novalue"]}, "--set"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_option(flags: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError) as failure:
        DaemonSettings.read(flags, environ={})
    assert message in failure.value.message
    assert failure.value.hint
    assert failure.value.exit_code == 3


def test_a_bad_variable_is_named() -> None:
    with pytest.raises(ConfigurationError, match="REQON_WORKERS"):
        DaemonSettings.read({}, environ={"REQON_WORKERS": "many"})


@pytest.mark.parametrize(
    ("toml", "message", "hint"),
    [
        ("metrics-prot = 1\n", "'metrics-prot' is no option", "metrics-port"),
        ("[alerts]\nurl = []\n", "'alerts.url' is no option", "urls"),
        ("metrics-port = \n", "is no TOML", None),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, toml: str, message: str, hint: str | None) -> None:
    with pytest.raises(ConfigurationError) as failure:
        DaemonSettings.read({"paths": (_missions(tmp_path, toml),)}, environ={})
    assert message in failure.value.message
    assert hint is None or hint in str(failure.value.hint)


def test_secrets_are_hidden_in_what_is_shown() -> None:
    settings = DaemonSettings.read(
        {"alert_url": ("https://hooks.example.org/T0/verysecret",), "alert_secret": "hunter22"}, environ={}
    )
    shown = repr(settings.effective())
    assert "verysecret" not in shown
    assert "hunter22" not in shown
    assert ("alert-url", ("***",), "--alert-url") in settings.effective()


def test_options_that_do_nothing_yet_are_named_when_they_are_given() -> None:
    assert DaemonSettings.read({}, environ={}).without_effect == {}
    variables = {"REQON_WEBHOOK_PORT": "3000", "REQON_ALERT_URLS": "log:"}
    given = DaemonSettings.read({"output": "out", "check_interval": "5s"}, environ=variables)
    assert list(given.without_effect) == ["--output", "--webhook-port", "--alert-url"]
    assert given.without_effect["--alert-url"] == "alerts are off: add --alert-on-failure"
    given = DaemonSettings.read({"webhook": True, "alert_on_failure": True}, environ=variables)
    assert given.without_effect == {}


def test_checkpoints_come_as_often_as_the_variable_says(tmp_path: Path) -> None:
    """spec/state.md 4: for runs of the daemon as for others."""
    settings = DaemonSettings.read({"paths": [_missions(tmp_path)], "state_dir": tmp_path / "state"}, environ={})
    for text, expected in (("", 1.0), ("50ms", 0.05), ("3s", 3.0)):
        service = Service(settings, environment={"REQON_CHECKPOINT_INTERVAL": text})
        assert service.runner.settings.checkpoint_seconds == expected
    with pytest.raises(ConfigurationError, match="REQON_CHECKPOINT_INTERVAL: 'often' is no duration"):
        Service(settings, environment={"REQON_CHECKPOINT_INTERVAL": "often"})
