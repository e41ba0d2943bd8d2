"""`reqon resume PATH…`: go on where executions stopped; with `--explain`, say first what that would do."""

from typing import Annotated

from reqon.cli.explaining import explained
from reqon.cli.flags import (
    AuthFile,
    Debug,
    EnvFile,
    JournalMax,
    KeepGoing,
    MissionNames,
    NoOasCache,
    OutputPath,
    Paths,
    Quiet,
    Set,
    ShutdownGrace,
    StateDir,
    StateRetention,
    StateStore,
    StoreConfigFile,
    Verbose,
    Webhook,
    WebhookHost,
    WebhookPort,
    WebhookUrl,
)
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
    keep_going: KeepGoing = False,
    set: Set = None,  # noqa: A002  # its flag's name
    auth: AuthFile = None,
    env: EnvFile = None,
    store_config: StoreConfigFile = None,
    output: OutputPath = None,
    state_dir: StateDir = None,
    state_store: StateStore = None,
    no_oas_cache: NoOasCache = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    debug: Debug = False,
    journal_max: JournalMax = None,
    webhook: Webhook = False,
    webhook_host: WebhookHost = None,
    webhook_port: WebhookPort = None,
    webhook_url: WebhookUrl = None,
    shutdown_grace: ShutdownGrace = None,
    state_retention: StateRetention = None,
) -> None:
    """Go on where each mission's latest execution stopped: as `reqon PATH… --resume`."""
    given = {name: value for name, value in locals().items() if name not in ("explain", "json")}
    if explain:
        explained(paths or (), execution, force, mission or (), json, env, state_dir, state_store)
    if json:
        raise ConfigurationError(
            "--json goes with --explain", code="bad-option", hint="reqon resume … --explain --json"
        )
    run(resume=True, **given)
