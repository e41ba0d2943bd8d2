"""Commands that ask the running daemon over its control socket (spec/daemon.md 1)."""

from pathlib import Path
from typing import Annotated, Any

from reqon.cli import show
from reqon.cli.durations import seconds, written
from reqon.cli.environment import state_directory
from reqon.cli.exits import Done
from reqon.cli.flags import ForMachines
from reqon.cli.options import Argument, Option
from reqon.cli.services import service
from reqon.cli.state import state_stores

Mission = Annotated[str, Argument(metavar="MISSION", help="The mission's name.")]
StateDir = Annotated[
    Path | None, Option("--state-dir", metavar="DIR", help="The daemon's state directory. [.vague-data]")
]


def trigger(mission: Mission, json: ForMachines = False, state_dir: StateDir = None) -> None:
    """Run a mission now, in the daemon."""
    answer = _ask(state_dir, "trigger", json, mission=mission)
    show.out(f"{mission}: {answer['state']}")
    raise Done


def pause(
    mission: Mission,
    duration: Annotated[str | None, Option("--for", metavar="T", help="Such as 2h; without it until unpause.")] = None,
    reason: Annotated[str | None, Option("--reason", metavar="TEXT", help="Shown by `reqon why`.")] = None,
    json: ForMachines = False,
    state_dir: StateDir = None,
) -> None:
    """Start no scheduled runs of a mission."""
    length = seconds("--for", duration) if duration is not None else None
    answer = _ask(state_dir, "pause", json, mission=mission, seconds=length, reason=reason)["pause"]
    until = f"until {answer['until']}" if answer["until"] else "until it is unpaused"
    show.out(f"{mission}: paused {until}" + (f" ({answer['reason']})" if answer["reason"] else ""))
    raise Done


def unpause(mission: Mission, json: ForMachines = False, state_dir: StateDir = None) -> None:
    """Let a paused mission run again."""
    answer = _ask(state_dir, "unpause", json, mission=mission)
    show.out(f"{mission}: {'no longer paused' if answer['wasPaused'] else 'was not paused'}")
    raise Done


def cancel(mission: Mission, json: ForMachines = False, state_dir: StateDir = None) -> None:
    """Stop a mission's running executions; they can be resumed."""
    answer = _ask(state_dir, "cancel", json, mission=mission)
    show.out(f"{mission}: {answer['cancelled'] or 'nothing'} cancelled")
    raise Done


def reload(json: ForMachines = False, state_dir: StateDir = None) -> None:
    """Read the mission files again, now."""
    answer = _ask(state_dir, "reload", json)
    told = [f"{name}: added" for name in answer["added"]]
    told += [f"{name}: changed, {old} -> {new}" for name, (old, new) in answer["changed"].items()]
    told += [f"{name}: removed" for name in answer["removed"]]
    told += [f"{path}: refused; if it was good before, that stays in service" for path in answer["refused"]]
    broken = [finding for findings in answer["broken"].values() for finding in findings]
    for line in told:
        show.out(line)
    for finding in broken:
        show.block(finding)
    if not told and not broken:
        show.out("nothing has changed")
    raise Done


def why(mission: Mission, json: ForMachines = False, state_dir: StateDir = None) -> None:
    """Say why a mission ran, runs, waits, or did not run. Without a daemon, from its ledger and records."""
    answer, lines = service("why")(state_stores(state_dir, None), mission)
    if json:
        show.as_json(answer)
    else:
        for line in lines:
            show.out(line)
    raise Done


def config(
    paths: Annotated[list[Path] | None, Argument(metavar="[PATH...]", help="Where reqon.toml lies.")] = None,
    json: ForMachines = False,
) -> None:
    """Show every option's effective value and where it comes from; secrets hidden."""
    settings = service("settings")({"paths": tuple(paths or ())})
    rows = settings.effective()
    if json:
        show.as_json([{"option": name, "value": _plain(value), "source": source} for name, value, source in rows])
    else:
        show.table(["OPTION", "VALUE", "FROM"], [[name, _text(value), source] for name, value, source in rows])
    raise Done


def export(
    what: Annotated[str, Argument(metavar="WHAT", help="prometheus-rules or grafana.")],
    paths: Annotated[
        list[Path] | None, Argument(metavar="[PATH...]", help="The missions that it is to speak of.")
    ] = None,
    job: Annotated[
        str | None, Option("--job", metavar="NAME", help="What Prometheus calls the daemons. [reqon]")
    ] = None,
    runbook: Annotated[
        str | None, Option("--runbook", metavar="URL", help="Where people read the runbook. [docs/runbook.md]")
    ] = None,
) -> None:
    """Write rules for Prometheus, or a dashboard for Grafana, to stdout."""
    show.block(service("export")(what, tuple(paths or ()), job=job, runbook=runbook).rstrip("\n"))
    raise Done


def alert_trial(
    alert_url: Annotated[list[str] | None, Option("--alert-url", metavar="URL", help="A target (repeatable).")] = None,
    state_dir: StateDir = None,
) -> None:
    """Send one test alert and its resolve to each target; show each target's answer."""
    flags = {"alert_url": tuple(alert_url or ()), "state_dir": state_directory(state_dir)}
    raise Done(service("test-alert")(flags, show.out))


def _ask(state_dir: Path | None, command: str, json: bool, **arguments: Any) -> Any:
    """The daemon's answer. With `json` it is shown as it is, and that was all."""
    given = {name: value for name, value in arguments.items() if value is not None}
    answer = service("control")(state_directory(state_dir), command, **given)
    if json:
        show.as_json(answer)
        raise Done
    return answer


def _text(value: Any) -> str:
    """A setting as one would write it; the only ones with a fraction are durations."""
    match value:
        case None | ():
            return "-"
        case bool():
            return "true" if value else "false"
        case float():
            return written(value)
        case tuple() | list():
            return ", ".join(map(_text, value))
        case dict():
            return ", ".join(f"{name}={one}" for name, one in value.items()) or "-"
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, str | int | float | bool | dict) else str(value)
