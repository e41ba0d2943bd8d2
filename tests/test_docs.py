"""What the documentation says is so: codes, commands, flags, metrics, missions, files of deploy/."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from reqon.cli.app import app
from reqon.diagnostics import Diagnostic
from reqon.extensions import registered
from reqon.http.openapi.loading import Specifications
from reqon.lang.loader import load
from reqon_daemon.metrics import Metrics, metric_names
from reqon_daemon.settings import DaemonSettings
from tests.support.peers import needs

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "reqon").rglob("*.py"), *(ROOT / "daemon").rglob("*.py")])
# Two pages name what isn't: a log of decisions, and a list of what is not built yet.
WORKING_PAGES = ("decisions.md", "status.md")
PAGES = [ROOT / "README.md", *(p for p in sorted((ROOT / "docs").rglob("*.md")) if p.name not in WORKING_PAGES)]
DEPLOYED = sorted(p for p in (ROOT / "deploy").rglob("*") if p.is_file())
BLOCK = re.compile(r"^```(\w+)( fragment)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


# Its missions need its own document: tests/test_openapi_page.py.
PAGES_WITH_THEIR_OWN_TESTS = ("openapi.md",)


def blocks(language: str) -> list[Any]:
    return [
        pytest.param(match[3], bool(match[2]), id=f"{page.name}:{number}")
        for page in PAGES
        if page.name not in PAGES_WITH_THEIR_OWN_TESTS
        for number, match in enumerate(BLOCK.finditer(text_of(page)), 1)
        if match[1] == language
    ]


# --- errors.md --------------------------------------------------------------------------------------------------------

SLUG = re.compile(r"[a-z]+(?:[-_][a-z]+)*")
FINDERS = {"Diagnostic", "error", "warn", "report", "_report", "_Unreadable"}


def constant(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def codes_of(tree: ast.AST) -> Iterator[str]:
    """What a module hands out as a code: `Diagnostic("…")`, `code="…"`, `code = "…"` in a class of errors."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[first, *_]) if name in FINDERS:
                found = constant(first)
                if found and "-" in found:
                    yield found
            case ast.keyword(arg="code", value=value):
                yield constant(value) or ""
            case ast.ClassDef(name=name) if name.endswith("Error"):
                for inner in node.body:
                    target = inner.targets[0] if isinstance(inner, ast.Assign) else getattr(inner, "target", None)
                    if isinstance(target, ast.Name) and target.id in ("code", "kind"):
                        yield constant(getattr(inner, "value", None)) or ""


def strings_in_source() -> tuple[set[str], set[str]]:
    """All string constants, and the beginnings of all composed ones."""
    whole, beginnings = set(), set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.JoinedStr) and node.values and (first := constant(node.values[0])):
                beginnings.add(first)
            elif found := constant(node):
                whole.add(found)
    return whole, beginnings


def documented_codes() -> set[str]:
    rows = re.findall(r"^\| (`.*?) \|", text_of(ROOT / "docs" / "errors.md"), re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`([^`]+)`", row)}


def test_every_code_is_explained() -> None:
    used = {code for path in SOURCES for code in codes_of(ast.parse(text_of(path))) if SLUG.fullmatch(code)}
    assert len(used) > 60
    assert used - documented_codes() == set()


def test_every_explained_code_exists() -> None:
    whole, beginnings = strings_in_source()
    composed = tuple(b for b in beginnings if re.fullmatch(r"[a-z]+-", b))
    missing = {code for code in documented_codes() if code not in whole and not code.startswith(composed)}
    assert missing == set()


# --- commands, flags, metrics -----------------------------------------------------------------------------------------


def commands() -> dict[str, Any]:
    found: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]  # a group of commands
    return found


def test_every_command_in_the_docs_exists_and_every_command_is_in_the_readme() -> None:
    known = set(commands())
    for page in PAGES:
        for words in re.findall(r"(?:(?<!`)`|\$ |^    )reqon ([a-z][a-z-]*)\b(?![/.])", text_of(page), re.MULTILINE):
            assert words in known | {"missions"}, f"{page.name}: reqon {words}"
    readme = text_of(ROOT / "README.md")
    assert {name for name in known if not re.search(rf"`(reqon )?{name}\b", readme)} == set()


def test_every_flag_in_the_docs_exists() -> None:
    known = {flag for command in commands().values() for p in command.params for flag in p.opts}
    known |= {"--help", "--version"}
    foreign = {  # flags of other programs that the pages show
        "--system", "--home-dir", "--shell", "--now", "--env-file", "--stop-timeout", "--from-env-file", "--port",
        "--numprocesses", "--dist", "--update-golden",
    }  # fmt: skip
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text_of(page)))
        assert named - known - foreign == set(), page.name


def test_every_daemon_flag_is_an_option_of_the_service() -> None:
    flags = {p.name for p in commands()["run"].params if getattr(p, "rich_help_panel", None) == "Daemon"} - {"daemon"}
    assert len(flags) > 10
    assert flags - {name.replace("-", "_") for name, _, _ in DaemonSettings().effective()} == set()


def test_every_metric_is_documented_with_its_type_and_no_other() -> None:
    rows = re.findall(r"^\| `(reqon_\w+)` \| (\w+) \| (.*?) \|", text_of(ROOT / "docs" / "operations.md"), re.MULTILINE)
    assert {name: kind for name, kind, _ in rows} == dict(metric_names(Metrics()))


def test_every_metric_that_rules_and_dashboard_read_exists() -> None:
    known = set(metric_names(Metrics()))
    for path in DEPLOYED:
        for name in set(re.findall(r"\breqon_\w+", text_of(path))):
            assert name in known or name.removesuffix("_bucket") in known, f"{path.name}: {name}"


# --- missions ---------------------------------------------------------------------------------------------------------


def mistakes(path: Path) -> list[Diagnostic]:
    return [d for d in load([path], known=registered(Specifications)).all_diagnostics if d.severity == "error"]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.vague")), ids=lambda path: str(path.name))
def test_an_example_has_no_mistake(path: Path) -> None:
    assert mistakes(path) == []


@pytest.mark.parametrize(("text", "is_fragment"), blocks("reqon"))
def test_a_mission_in_the_docs_has_no_mistake(text: str, is_fragment: bool, tmp_path: Path) -> None:
    if is_fragment:
        text = f"mission Fragment {{\n{text}\naction Nothing {{ }}\nrun Nothing\n}}\n"
    path = tmp_path / "shown.vague"
    path.write_text(text)
    assert [d.message for d in mistakes(path)] == []


def test_the_mission_of_the_config_map_has_no_mistake(tmp_path: Path) -> None:
    content = yaml.safe_load(text_of(ROOT / "deploy" / "kubernetes" / "missions.yaml"))["data"]
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    assert mistakes(tmp_path) == []


@pytest.mark.parametrize(("text", "_is_fragment"), blocks("toml"))
def test_settings_in_the_docs_are_read(text: str, _is_fragment: bool, tmp_path: Path) -> None:
    (tmp_path / "reqon.toml").write_text(text)
    settings = DaemonSettings.read({"paths": (tmp_path,)}, environ={})
    assert settings.metrics_port == tomllib.loads(text)["metrics-port"]


# --- links, deploy/, what must not be in the tree ---------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text_of(page)):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("path", DEPLOYED, ids=ids(DEPLOYED))
def test_a_deployed_file_can_be_read_by_its_reader(path: Path) -> None:
    match path.suffix:
        case ".json":
            assert json.loads(text_of(path))
        case ".yml" | ".yaml":
            assert all(yaml.safe_load_all(text_of(path)))
        case ".service":
            unit = ConfigParser(interpolation=None)
            unit.read_string(text_of(path))
            assert unit["Service"]["Type"] == "notify"
        case _:
            pytest.fail("what reads it?")


def test_alert_rules_pass_their_own_tests() -> None:
    tested = subprocess.run(
        [needs("promtool"), "test", "rules", "rules_test.yml"],
        cwd=ROOT / "deploy" / "prometheus",
        capture_output=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_supervisors_wait_longer_than_the_daemon_needs() -> None:
    """Ruling: the grace of 25 s and what follows it fit into the 40 s of every supervisor."""
    compose = yaml.safe_load(text_of(ROOT / "docker-compose.yml"))
    deployment = yaml.safe_load(text_of(ROOT / "deploy" / "kubernetes" / "deployment.yaml"))
    unit = text_of(ROOT / "deploy" / "systemd" / "reqon.service")
    assert DaemonSettings().shutdown_grace == 25
    assert compose["services"]["reqon"]["stop_grace_period"] == "40s"
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 40
    assert deployment["spec"]["strategy"]["type"] == "Recreate"
    assert "TimeoutStopSec=40" in unit


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:  # an unpacked release has no history
        return [p for p in ROOT.rglob("*") if p.is_file() and ".venv" not in p.parts]
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name]


def test_no_file_names_a_machine_or_a_package_index() -> None:
    """Requirements carry hashes; which index they come from is the machine's own business."""
    of_a_machine = re.compile(
        rb"(?<![\w.*])/(?:root|home/\w+|work|opt/pypi)/\w+|https?://[^\s\"']*(?:pypi|pythonhosted)"
    )
    for path in tracked():
        if path.is_file() and path != Path(__file__):
            found = of_a_machine.search(path.read_bytes())
            assert not found, f"{path.relative_to(ROOT)}: {found}"


def test_requirements_are_pinned_by_hash_and_name_no_address() -> None:
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        logical = text_of(path).replace("\\\n", " ").splitlines()
        assert logical
        for line in logical:
            assert re.match(r"[a-z0-9-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line), line
            assert "://" not in line


@pytest.mark.skipif(sys.platform != "linux", reason="bash and its friends as Linux has them")
@pytest.mark.parametrize("name", [".ci/run", "examples/run.sh"])
def test_scripts_are_executable_and_parse(name: str) -> None:
    assert (ROOT / name).stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(ROOT / name)], check=True)
