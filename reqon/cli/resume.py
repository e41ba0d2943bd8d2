"""`reqon resume PATH…`: go on where executions stopped; with `--explain`, say first what that would do."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from reqon.cli import show
from reqon.cli.environment import environment, state_directory
from reqon.cli.exits import Done
from reqon.cli.options import Option
from reqon.cli.run import Paths, run, unknown_mission
from reqon.errors import ConfigurationError
from reqon.extensions import registered, specifications_in
from reqon.lang.loader import load
from reqon.lang.program import MissionProgram
from reqon.runner import Runner, RunnerSettings
from reqon.runtime.explain import REFUSED, RESUME, Outlook
from reqon.runtime.request import RunRequest
from reqon.state.records import Trigger


def resume(
    paths: Paths = None,
    explain: Annotated[bool, Option("--explain", help="Only say what would be done. Touches nothing.")] = False,
    execution: Annotated[
        str | None, Option("--execution", metavar="ID", help="This execution, instead of each mission's latest.")
    ] = None,
    force: Annotated[bool, Option("--force", help="Start a changed mission again from its first action.")] = False,
    mission: Annotated[
        list[str] | None, Option("--mission", metavar="NAME", help="Only this mission (repeatable).")
    ] = None,
    json: Annotated[bool, Option("--json", help="With --explain: for machines.")] = False,
    auth: Annotated[
        Path | None, Option("--auth", metavar="FILE", help="Credentials: one JSON object, source -> record.")
    ] = None,
    env: Annotated[Path | None, Option("--env", metavar="FILE", help="Read variables from this file alone.")] = None,
    output: Annotated[
        Path | None,
        Option("--output", metavar="PATH", help="Write the stores' records as JSON: a folder, or one .json file."),
    ] = None,
    state_dir: Annotated[
        Path | None, Option("--state-dir", metavar="DIR", help="Where state lives. [.vague-data]")
    ] = None,
    state_store: Annotated[
        str | None, Option("--state-store", metavar="NAME", help="Where all executions are kept.")
    ] = None,
    verbose: Annotated[bool, Option("--verbose", "-v", help="Show what happens, line by line.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No bars, no summary, no warnings.")] = False,
) -> None:
    """Go on where each mission's latest execution stopped: as `reqon PATH… --resume`."""
    if explain:
        explained(paths or (), execution, force, mission or (), json, env, state_dir, state_store)
    if json:
        raise ConfigurationError(
            "--json goes with --explain", code="bad-option", hint="reqon resume … --explain --json"
        )
    run(
        paths=paths,
        resume=True,
        execution=execution,
        force=force,
        mission=mission,
        auth=auth,
        env=env,
        output=output,
        state_dir=state_dir,
        state_store=state_store,
        verbose=verbose,
        quiet=quiet,
    )


def explained(
    paths: Sequence[Path],
    execution: str | None,
    force: bool,
    only: Sequence[str],
    json: bool,
    env: Path | None,
    state_dir: Path | None,
    state_store: str | None,
) -> None:
    """Show what a resume would do with each mission. Exit code 1 where one is refused.

    Raises:
        ConfigurationError: there is no such mission or execution.
    """
    if not paths:
        raise ConfigurationError("no mission file or folder was named", hint="reqon resume ./missions/ --explain")
    variables = environment(env)
    settings = RunnerSettings(
        state_directory=state_directory(state_dir, variables),
        state_store=state_store or os.environ.get("REQON_STATE_STORE") or None,
    )
    runner = Runner(settings, environment=variables)
    runner.read_store_config()
    runner.directory.warn = lambda text: show.err(f"warning: {text}")
    told = []
    for mission in _missions(paths, settings.state_directory, only):
        if execution is not None and not _owns(runner, mission, execution):
            continue
        request = RunRequest(
            mission=mission.name,
            path=str(mission.path),
            definition_hash=mission.definition_hash,
            trigger=Trigger.MANUAL,
            resume=True,
            force=force,
            execution_id=execution,
        )
        told.append(runner.outlook(runner.plan(mission), request))
    runner.backend.close()
    if execution is not None and not told:
        raise ConfigurationError(
            f"no mission here has an execution {execution}", code="unknown-execution", hint="see reqon history"
        )
    if json:
        show.as_json([one.to_dict() for one in told])
    else:
        for one in told:
            for line in lines(one):
                show.out(line)
    raise Done(1 if any(one.decision == REFUSED for one in told) else 0)


def _missions(paths: Sequence[Path], state: Path, only: Sequence[str]) -> list[MissionProgram]:
    specifications = specifications_in(state, os.environ, offline=True)
    program = load(paths, known=registered(specifications), skip=(state,))
    show.findings(program.all_diagnostics)
    if program.has_errors:
        raise Done(2)
    by_name = {mission.name: mission for mission in program.missions}
    for name in only:
        if name not in by_name:
            raise unknown_mission(name, by_name)
    return [by_name[name] for name in only] if only else list(program.missions)


def _owns(runner: Runner, mission: MissionProgram, execution: str) -> bool:
    record = runner.backend.load(execution)
    return record is not None and record.mission == mission.name


def lines(outlook: Outlook) -> Iterator[str]:
    """An outlook as people read it."""
    if outlook.decision != RESUME:
        word = "refused" if outlook.decision == REFUSED else "would run anew"
        about = f" ({outlook.execution_id})" if outlook.execution_id else ""
        yield f"{outlook.mission}: {word}: {outlook.reason}{about}"
        if outlook.hint:
            yield f"  hint           {outlook.hint}"
        return
    yield f"{outlook.mission}: would go on with {outlook.execution_id}, attempt {outlook.attempt}"
    for word, sentences in (
        ("skipped", outlook.skipped),
        ("fetched again", outlook.fetched_again),
        ("written again", outlook.written_again),
        ("then", outlook.then),
    ):
        for number, sentence in enumerate(sentences or ("nothing",)):
            yield f"  {word if number == 0 else '':<14} {sentence}"
