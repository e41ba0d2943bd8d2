"""`reqon check`: every mistake of every file, nothing run (spec/daemon.md 1)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from reqon.cli import show
from reqon.cli.environment import environment, state_directory
from reqon.cli.exits import Done
from reqon.cli.flags import EnvFile
from reqon.cli.options import Argument, Option
from reqon.diagnostics import Diagnostic
from reqon.errors import ReqonError
from reqon.extensions import registered, specifications_in
from reqon.http.auth import credentials_for, load_auth_file
from reqon.lang.loader import load
from reqon.lang.program import Program

if TYPE_CHECKING:
    from reqon.http.openapi.loading import Specifications
    from reqon.runtime.plan import Plan


def check(
    paths: Annotated[list[Path], Argument(metavar="PATH...", help="Mission files or folders.")],
    auth: Annotated[
        Path | None, Option("--auth", metavar="FILE", help="Also look up credentials in this file.")
    ] = None,
    env: EnvFile = None,
    state_dir: Annotated[
        Path | None, Option("--state-dir", metavar="DIR", help="A folder that holds no missions.")
    ] = None,
    offline: Annotated[
        bool, Option("--offline", help="Download no OpenAPI document; use those that are kept.")
    ] = False,
    state: Annotated[
        bool, Option("--state", help="Also look at what the state directory holds of these missions.")
    ] = False,
    json: Annotated[bool, Option("--json", help="For editors and machines.")] = False,
) -> None:
    """Find every mistake, run nothing. 0: right, perhaps with warnings; 2: wrong; 3: only configuration is wrong."""
    variables = environment(env)
    directory = state_directory(state_dir)
    specifications = specifications_in(directory, variables, offline=offline)
    program = load(paths, known=registered(specifications), skip=(directory,))
    findings = list(program.all_diagnostics)
    configuration: list[Diagnostic] = []
    if not program.has_errors:
        configuration, missing = _configuration(program, auth, variables, specifications)
        findings += [*configuration, *missing]
        if state:
            findings += _kept(program, state_dir)
    if json:
        show.as_json([d.to_dict() for d in findings])
    else:
        show.findings(findings)
        if not program.has_errors and not configuration:
            count = len(program.missions)
            warned = len(findings)
            extra = f", {warned} warning{'s' if warned != 1 else ''}" if warned else ""
            show.out(f"{count} mission{'s' if count != 1 else ''} checked{extra}")
    raise Done(2 if program.has_errors else 3 if configuration else 0)


def _configuration(
    program: Program,
    auth: Path | None,
    variables: Mapping[str, str],
    specifications: "Callable[[], Specifications]",
) -> tuple[list[Diagnostic], list[Diagnostic]]:
    """What would stop a run before its first request: errors, and credentials that are missing here, as warnings."""
    from reqon.runtime.plan import Plan  # noqa: PLC0415

    file = load_auth_file(auth, variables) if auth is not None else None
    errors: list[Diagnostic] = []
    missing: list[Diagnostic] = []
    for mission in program.missions:
        has_document = any(source.spec is not None for source in mission.sources.values())
        plan = Plan(mission, environment=variables, specifications=specifications() if has_document else None)
        if has_document:
            wrong, absent = _documents(plan)
            errors += wrong
            missing += absent
            if wrong or absent:
                continue
        for definition in mission.sources.values():
            try:
                settings = plan.source_settings(definition)
            except ReqonError as error:
                errors += error.diagnostics
                continue
            try:
                credentials_for(settings, file, variables)
            except ReqonError as error:
                missing += [_as_warning(found) for found in error.locate(definition.name.span).diagnostics]
    return errors, missing


def _kept(program: Program, state_dir: Path | None) -> list[Diagnostic]:
    """What the state directory says of the missions."""
    from reqon.cli.state import state_stores  # noqa: PLC0415
    from reqon.runtime.sync_keys import many_keys  # noqa: PLC0415

    stores = state_stores(state_dir, None)
    return [found for m in program.missions for found in many_keys(m, stores.sync_checkpoints(m.name))]


def _documents(plan: "Plan") -> tuple[list[Diagnostic], list[Diagnostic]]:
    """What is wrong with OpenAPI documents, and with calls of theirs that the text alone does not tell."""
    from reqon.http.openapi.loading import NotHereError  # noqa: PLC0415

    try:
        plan.compile()
    except NotHereError as error:
        return [], [_as_warning(found) for found in error.diagnostics]
    except ReqonError as error:
        return list(error.diagnostics), []
    return [], []


def _as_warning(found: Diagnostic) -> Diagnostic:
    return Diagnostic(found.code, found.message, found.span, found.hint, severity="warning")
