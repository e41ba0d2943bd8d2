"""`--resume --explain`: what a resume would do with each mission, on stdout."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from reqon.cli import show
from reqon.cli.choosing import named
from reqon.cli.environment import environment, state_directory
from reqon.cli.exits import Done
from reqon.errors import ConfigurationError
from reqon.extensions import registered, specifications_in
from reqon.lang.loader import load
from reqon.lang.program import MissionProgram
from reqon.runner import Runner, RunnerSettings
from reqon.runtime.explain import REFUSED, RESUME, Outlook
from reqon.runtime.request import RunRequest
from reqon.state.records import Trigger


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
    runner.directory.warn = show.warning
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
    return named(program.missions, only)


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
