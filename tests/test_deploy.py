"""What lies in deploy/, and the Dockerfile, through the programs that read them."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from reqon.cli.commands import COMMANDS
from reqon_daemon.settings import DaemonSettings
from tests.support.peers import needs

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
UNIT = (DEPLOY / "systemd" / "reqon.service").read_text()
SLOW = bool(os.environ.get("REQON_SLOW"))


def run(*command: str | Path, cwd: Path = ROOT, seconds: float = 60) -> str:
    """What a command that succeeds writes."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=seconds)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- the image --------------------------------------------------------------------------------------------------------


def test_the_dockerfile_has_nothing_that_hadolint_minds() -> None:
    run(needs("hadolint"), "Dockerfile")


def test_the_image_is_pinned_and_its_process_is_nobody() -> None:
    stages = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(stages) == 2
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", image) for image in stages)
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    assert "HEALTHCHECK" in DOCKERFILE
    assert DOCKERFILE.count("--require-hashes") == DOCKERFILE.count("--requirement ")
    # So that postgres, mysql and every alert target work there.
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pinned = (ROOT / "requirements" / "extras.txt").read_text()
    for package in (re.match(r"[a-z0-9-]+", wanted) for wanteds in extras.values() for wanted in wanteds):
        assert package
        assert re.search(rf"^{package[0]}==", pinned, re.MULTILINE), package[0]
    assert "requirements/extras.txt" in DOCKERFILE


def test_the_images_install_lines_work_in_a_plain_virtual_environment(tmp_path: Path) -> None:
    """With REQON_SLOW=1 exactly as they are; else without downloads: what they would fetch is borrowed by path."""
    places = {"/opt/build": "build", "/opt/reqon": "reqon", "/tmp/wheels": "wheels"}
    lines = re.findall(
        r"^RUN (.*?[^\\])$", DOCKERFILE.partition("\nFROM ")[2].partition("\nFROM ")[0], re.MULTILINE | re.DOTALL
    )
    assert len(lines) == 2
    for line in lines:
        for image, here in places.items():
            line = line.replace(image, str(tmp_path / here))  # noqa: PLW2901  # step by step
        if not SLOW:
            line = re.sub(r"\S+/pip install [^&]*--require-hashes[^&]*", "true ", line)  # noqa: PLW2901
        line = line.replace("python -m venv", f"{sys.executable} -m venv")  # noqa: PLW2901
        run("sh", "-e", "-c", line, seconds=600)
        for venv in () if SLOW else ("build", "reqon"):
            version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
            site = tmp_path / venv / "lib" / version / "site-packages"
            (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    reqon = tmp_path / "reqon" / "bin" / "reqon"
    assert run(reqon, "--version", cwd=tmp_path).startswith("reqon ")
    python = tmp_path / "reqon" / "bin" / "python"
    run(python, "-W", "ignore", "-c", "import apprise, psycopg, pymysql, reqon_daemon.service", cwd=tmp_path)


# --- compose ----------------------------------------------------------------------------------------------------------


def test_compose_ties_together_what_is_there() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    assert set(services) >= {"reqon", "prometheus", "alertmanager", "grafana"}
    for name, service in services.items():
        if "build" not in service:
            assert service["image"] == "reqon" or re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
        for volume in service.get("volumes", ()):
            source = volume.replace("${MISSIONS:-./examples/missions}", "./examples/missions").split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"], volume
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), "nothing is opened to the network unasked"
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/reqon.yml").read_text())
    assert sources["datasources"][0]["url"] == "http://prometheus:9090"
    boards = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/reqon.yml").read_text())
    mounted = boards["providers"][0]["options"]["path"]
    assert f"./deploy/grafana/dashboards:{mounted}:ro" in services["grafana"]["volumes"]
    _is_a_command_line(services["reqon"]["command"])


def _is_a_command_line(words: list[str]) -> None:
    """What the image is told: flags that exist."""
    from reqon.cli.options import parameters  # noqa: PLC0415
    from reqon.cli.run import run as command  # noqa: PLC0415

    flags = {flag for parameter in parameters(command) for flag in getattr(parameter.written, "flags", ())}
    assert {word for word in words if word.startswith("--")} <= flags


# --- Prometheus and Alertmanager --------------------------------------------------------------------------------------


def test_promtool_and_amtool_take_the_configurations() -> None:
    assert "SUCCESS" in run(needs("promtool"), "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    assert "SUCCESS" in run(needs("amtool"), "check-config", DEPLOY / "alertmanager" / "alertmanager.yml")


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ({"alertname": "ReqonMissionStale", "severity": "critical"}, "page"),
        ({"alertname": "ReqonMissionFailed", "severity": "error"}, "ticket"),
        ({"alertname": "ReqonSlotsMissed", "severity": "warning"}, "ticket"),
    ],
)
def test_what_is_critical_wakes_somebody_and_nothing_else_does(labels: dict[str, str], receiver: str) -> None:
    command = [needs("amtool"), "config", "routes", "test", f"--config.file={DEPLOY / 'alertmanager/alertmanager.yml'}"]
    assert run(*command, *(f"{name}={value}" for name, value in labels.items())).strip() == receiver


# --- systemd ----------------------------------------------------------------------------------------------------------


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "reqon.service"
    # Its program must be there, which is the one thing about it that differs here.
    unit.write_text(UNIT.replace("/opt/reqon/bin/reqon", sys.executable))
    verified = subprocess.run(
        [needs("systemd-analyze"), "verify", unit], capture_output=True, text=True, check=False, timeout=60
    )
    about_us = [line for line in verified.stderr.splitlines() if "reqon" in line]
    assert (verified.returncode, about_us) == (0, []), verified.stderr


def test_the_unit_is_hardened(tmp_path: Path) -> None:
    """By systemd's own measure: 0 is best, above 4 it no longer says OK."""
    unit = tmp_path / "reqon.service"
    unit.write_text(UNIT)
    shown = run(needs("systemd-analyze"), "security", "--offline=yes", "--no-pager", unit)
    exposure = re.search(r"exposure level for reqon.service: ([\d.]+)", shown)
    assert exposure
    assert float(exposure[1]) < 3, shown


def test_the_unit_starts_a_command_line_that_exists() -> None:
    start = re.search(r"^ExecStart=(.+)$", UNIT, re.MULTILINE)
    assert start
    _is_a_command_line(start[1].split())
    assert "Type=notify" in UNIT
    assert "WatchdogSec=" in UNIT
    for name in re.findall(r"REQON_([A-Z_]+)=", UNIT):
        assert name.lower() in DaemonSettings.__dataclass_fields__ or name == "ALERT_URLS", name


# --- Kubernetes -------------------------------------------------------------------------------------------------------


def manifests() -> dict[str, Any]:
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
    texts = [(DEPLOY / "kubernetes" / name).read_text() for name in kustomization["resources"]]
    return {one["kind"]: one for text in texts for one in yaml.safe_load_all(text)}


def test_kubectl_puts_the_manifests_together() -> None:
    built = run(needs("kubectl"), "kustomize", DEPLOY / "kubernetes")
    assert {one["kind"] for one in yaml.safe_load_all(built)} == set(manifests())


def test_the_pod_is_probed_where_the_daemon_answers_and_keeps_its_state() -> None:
    found = manifests()
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    _is_a_command_line(container["args"])
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert probes == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/livez"}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounts.keys() == volumes.keys()
    variables = {one["name"]: one["value"] for one in container["env"]}
    assert Path(variables["REQON_STATE_DIR"]).is_relative_to(mounts["state"])
    assert volumes["state"]["persistentVolumeClaim"]["claimName"] == found["PersistentVolumeClaim"]["metadata"]["name"]
    assert volumes["missions"]["configMap"]["name"] == found["ConfigMap"]["metadata"]["name"]
    assert container["args"][0] == mounts["missions"]


def test_the_missions_of_the_config_map_are_right(tmp_path: Path) -> None:
    for name, text in manifests()["ConfigMap"]["data"].items():
        (tmp_path / name).write_text(text)
    assert "check" in COMMANDS
    checked = subprocess.run(
        [sys.executable, "-m", "reqon", "check", tmp_path],
        cwd=ROOT,
        env={**os.environ, "SHOP_TOKEN": "x" * 20, "SHOP_URL": "https://shop.example.com"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
