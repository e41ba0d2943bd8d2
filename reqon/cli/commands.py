"""Every command: where it stands, and under which heading `reqon --help` lists it."""

from importlib import import_module
from typing import cast

from reqon.cli.options import Command

SECTIONS: dict[str, dict[str, str]] = {
    "Missions": {
        "run": "run:run",
        "resume": "resume:resume",
        "check": "check:check",
        "fmt": "fmt:fmt",
        "plan": "plan:plan",
    },
    "What ran": {
        "status": "look:status",
        "history": "look:history",
        "logs": "logs:logs",
        "cleanup": "cleanup:cleanup",
        "dlq": "dlq:dlq",
    },
    "The running daemon": {
        "trigger": "control:trigger",
        "pause": "control:pause",
        "unpause": "control:unpause",
        "cancel": "control:cancel",
        "reload": "control:reload",
        "why": "control:why",
    },
    "Set-up": {
        "doctor": "doctor:doctor",
        "config": "control:config",
        "export": "control:export",
        "test-alert": "control:alert_trial",
    },
}
COMMANDS = {name: place for commands in SECTIONS.values() for name, place in commands.items()}


def load(name: str) -> Command:
    """The function of a command; imports its module and no other's."""
    module, _, function = COMMANDS[name].partition(":")
    return cast("Command", getattr(import_module(f"reqon.cli.{module}"), function))
