"""`reqon resume PATH…`: go on where executions stopped; with `--explain`, say first what that would do."""

from typing import Annotated

from reqon.cli.explaining import explained
from reqon.cli.flags import AuthFile, EnvFile, MissionNames, OutputPath, Paths, Quiet, StateDir, Verbose
from reqon.cli.options import Option
from reqon.cli.run import run
from reqon.errors import ConfigurationError


def resume(
    paths: Paths = None,
    explain: Annotated[bool, Option("--explain", help="Only say what would be done. Touches nothing.")] = False,
    execution: Annotated[
        str | None, Option("--execution", metavar="ID", help="This execution, instead of each mission's latest.")
    ] = None,
    force: Annotated[bool, Option("--force", help="Start a changed mission again from its first action.")] = False,
    mission: MissionNames = None,
    json: Annotated[bool, Option("--json", help="With --explain: for machines.")] = False,
    auth: AuthFile = None,
    env: EnvFile = None,
    output: OutputPath = None,
    state_dir: StateDir = None,
    state_store: Annotated[
        str | None, Option("--state-store", metavar="NAME", help="Where all executions are kept.")
    ] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
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
