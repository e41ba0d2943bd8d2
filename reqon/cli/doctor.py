"""`reqon doctor`: what is wrong with the set-up, and what to do about it (spec/daemon.md 1)."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from reqon.__about__ import __version__
from reqon.cli import show
from reqon.cli.environment import environment, state_directory
from reqon.cli.exits import CONFIGURATION, Done
from reqon.cli.flags import AuthFile, EnvFile, ForMachines, StateDir
from reqon.cli.options import Argument, Option
from reqon.cli.services import service
from reqon.diagnostics import escape_controls
from reqon.errors import ReqonError
from reqon.extensions import registered, specifications_in
from reqon.lang.loader import load
from reqon.lang.program import MissionProgram
from reqon.runner import Runner, RunnerSettings
from reqon.runtime.settings import source_settings
from reqon.state.checkup import ERROR, OK, WARNING, Finding, findings, worst

_COLOURS = {OK: "green", WARNING: "yellow", ERROR: "red"}


def doctor(
    paths: Annotated[
        list[Path] | None, Argument(metavar="[PATH...]", help="Missions whose credentials are looked for, too.")
    ] = None,
    auth: AuthFile = None,
    env: EnvFile = None,
    json: ForMachines = False,
    state_dir: StateDir = None,
    state_store: Annotated[
        str | None, Option("--state-store", metavar="NAME", help="Where all executions are kept.")
    ] = None,
) -> None:
    """Look at state, credentials, clock, disk and alert targets; say what is wrong and what to do. Touches nothing."""
    found = list(_all(tuple(paths or ()), auth, env, state_dir, state_store))
    if json:
        show.as_json({"level": worst(found), "findings": [finding.to_dict() for finding in found]})
    else:
        for finding in found:
            show.block(_line(finding))
    raise Done(CONFIGURATION if worst(found) == ERROR else 0)


def _line(finding: Finding) -> str:
    text = f"{finding.level:<8} {finding.check}: {finding.message}"
    if finding.hint:
        text += f" -> {finding.hint}"
    text = escape_controls(text)
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        colour = {"green": "32", "yellow": "33", "red": "31"}[_COLOURS[finding.level]]
        text = f"\x1b[{colour}m{text[:8]}\x1b[0m{text[8:]}"
    return text


def _all(
    paths: tuple[Path, ...], auth: Path | None, env: Path | None, state_dir: Path | None, state_store: str | None
) -> Iterator[Finding]:
    yield Finding("version", OK, f"reqon {__version__}, Python {platform.python_version()}")
    variables = environment(env)
    settings = RunnerSettings(
        state_directory=state_directory(state_dir, variables),
        auth_file=auth,
        state_store=state_store or variables.get("REQON_STATE_STORE") or None,
    )
    runner = Runner(settings, environment=variables)
    told: list[str] = []
    runner.directory.warn = told.append
    try:
        runner.read_store_config()
    except ReqonError as error:
        yield Finding("stores", ERROR, error.message, error.hint)
    yield from findings(runner.backend)
    runner.backend.close()
    yield from _credentials(runner, paths, auth)
    yield from _targets(paths)
    for sentence in told:
        yield Finding("state", WARNING, sentence)


def _credentials(runner: Runner, paths: tuple[Path, ...], auth: Path | None) -> Iterator[Finding]:
    """What missions need, by name; never by value."""
    if auth is not None:
        with suppress(OSError):
            if auth.stat().st_mode & 0o077:
                yield Finding("credentials", WARNING, f"{auth} can be read by other users", f"chmod 600 {auth}")
    try:
        runner.read_credentials()
    except ReqonError as error:
        yield Finding("credentials", ERROR, error.message, error.hint)
        return
    if not paths:
        yield Finding("credentials", OK, "not looked for", "name the missions: reqon doctor ./missions/")
        return
    try:
        state = runner.directory.path
        specifications = specifications_in(state, runner.environment, offline=True)
        program = load(paths, known=registered(specifications), skip=(state,))
    except ReqonError as error:
        yield Finding("missions", ERROR, error.message, error.hint)
        return
    broken = sum(finding.severity == "error" for finding in program.all_diagnostics)
    if broken:
        yield Finding("missions", ERROR, f"{broken} mistakes in mission files", "reqon check shows them")
    else:
        yield Finding("missions", OK, f"{len(program.missions)} can be read")
    for mission in program.missions:
        yield from _needs(runner, mission)


def _needs(runner: Runner, mission: MissionProgram) -> Iterator[Finding]:
    try:
        plan = runner.plan(mission)
    except ReqonError as error:
        yield Finding("missions", ERROR, f"{mission.name}: {error.message}", error.hint)
        return
    present = []
    for name, definition in mission.sources.items():
        try:
            wanted = source_settings(definition, plan.evaluate, plan.origins, plan.environment, again=plan.again)
            runner.credentials(wanted)
        except ReqonError as error:
            yield Finding("credentials", ERROR, f"{mission.name}, source {name}: {error.message}", error.hint)
        else:
            present.append(name)
    if present:
        yield Finding("credentials", OK, f"{mission.name}: there for {', '.join(present)}")


def _targets(paths: tuple[Path, ...]) -> Iterator[Finding]:
    try:
        reached = service("reach-targets")({"paths": paths})
    except ReqonError as error:
        yield Finding("alert targets", ERROR, error.message, error.hint)
        return
    for shown, problem in reached:
        if problem is None:
            yield Finding("alert targets", OK, f"{shown} can be reached")
        else:
            hint = "check its address, the network and the proxy; reqon test-alert sends one"
            yield Finding("alert targets", WARNING, f"{shown}: {problem}", hint)
    if not reached:
        yield Finding("alert targets", OK, "none is configured")
