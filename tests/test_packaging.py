"""What `pip install .` gives: a command on the PATH that works outside the checkout, and nothing that was not meant."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from reqon.__about__ import __version__
from tests.support.orders_api import OrdersApi

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("built")
    build("sdist", folder, ROOT)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    build("wheel", folder, next((folder / "unpacked").iterdir()))
    return folder


def build(target: str, into: Path, project: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(into)]
    made = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr


@pytest.fixture(scope="module")
def environment(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a shell with a new virtual environment that holds the wheel.

    What Reqon needs is borrowed from ours by path, not installed anew: a test asks nothing of a network.
    """
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = venv / "bin" / "python"
    site = venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    wheel = next(built.glob("*.whl"))
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--ignore-installed", str(wheel)], check=True)
    assert (site / "reqon").is_dir()
    return {"PATH": f"{venv / 'bin'}{os.pathsep}{os.defpath}", "HOME": str(venv)}


def reqon(*arguments: str, environment: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["reqon", *arguments], env=environment, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_wheel_holds_both_packages_typed_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        about = next(name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = wheel.read(about).decode()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"reqon", "reqon_daemon", f"reqon-{__version__}.dist-info"}
    assert {"reqon/py.typed", "reqon_daemon/py.typed", f"reqon-{__version__}.dist-info/licenses/LICENSE"} <= set(names)
    assert not [name for name in names if name.endswith((".pyc", ".pyo")) or "test" in name.split("/")[0]]
    ours = {str(p.relative_to(ROOT)) for p in (ROOT / "reqon").rglob("*.py")}
    assert ours <= set(names)
    needed = re.findall(r"^Requires-Dist: ([^\n]+)", metadata, re.MULTILINE)
    assert len([n for n in needed if "extra ==" not in n]) == len(PROJECT["project"]["dependencies"])


def test_the_source_distribution_can_set_itself_up(built: Path) -> None:
    unpacked = next((built / "unpacked").iterdir())
    for name in (
        "Makefile",
        "requirements/dev.txt",
        "examples/run.sh",
        "tests/conftest.py",
        "docs/index.md",
        "LICENSE",
    ):
        assert (unpacked / name).is_file(), name


def test_the_command_answers_outside_the_checkout(environment: dict[str, str], tmp_path: Path) -> None:
    answer = reqon("--version", environment=environment, cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (0, f"reqon {__version__}\n")


def test_an_installed_reqon_runs_missions_and_the_daemon(environment: dict[str, str], tmp_path: Path) -> None:
    missions = tmp_path / "missions"
    missions.mkdir()
    for name in ("customers", "pulse"):
        (missions / f"{name}.vague").write_bytes((ROOT / "examples" / "missions" / f"{name}.vague").read_bytes())
    with OrdersApi() as api:
        variables = environment | {"SHOP_URL": api.url}
        run = reqon("missions/customers.vague", environment=variables, cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        # The service is found by its entry point, so this is where a wrong one would show.
        once = reqon("missions", "--once", "--metrics-port", "0", environment=variables, cwd=tmp_path)
        assert once.returncode == 0, once.stderr
    stores = tmp_path / ".vague-data" / "stores"
    assert {path.name for path in stores.glob("*.json")} == {"customers.json", "recent-changes.json"}
    status = reqon("status", environment=environment, cwd=tmp_path)
    assert [line.split()[:2] for line in status.stdout.splitlines()[1:]] == [
        ["Customers", "completed"],
        ["Pulse", "completed"],
    ]


def test_every_dependency_is_pinned() -> None:
    pinned = re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / "runtime.txt").read_text(), re.MULTILINE)
    needed = {re.match(r"[\w-]+", text)[0] for text in PROJECT["project"]["dependencies"]}  # type: ignore[index]
    assert needed <= set(pinned)
    assert len(pinned) < 45, "the core install stays small"
    assert len(pinned) < 45
