"""Options and arguments that several commands share, declared once."""

from pathlib import Path
from typing import Annotated

from reqon.cli.options import Argument, Option

Paths = Annotated[list[Path] | None, Argument(metavar="PATH...", help="Mission files or folders.")]
MissionNames = Annotated[list[str] | None, Option("--mission", metavar="NAME", help="Only this mission (repeatable).")]
AuthFile = Annotated[
    Path | None, Option("--auth", metavar="FILE", help="Credentials: one JSON object, source -> record.")
]
EnvFile = Annotated[Path | None, Option("--env", metavar="FILE", help="Read variables from this file alone.")]
OutputPath = Annotated[
    Path | None,
    Option("--output", metavar="PATH", help="Write the stores' records as JSON: a folder, or one .json file."),
]
StateDir = Annotated[Path | None, Option("--state-dir", metavar="DIR", help="Where state lives. [.vague-data]")]
Verbose = Annotated[bool, Option("--verbose", "-v", help="Show what happens, line by line.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No bars, no summary, no warnings.")]
ForMachines = Annotated[bool, Option("--json", help="For machines.")]

_WEBHOOKS = "Webhooks"
Set = Annotated[
    list[str] | None,
    Option("--set", metavar="NAME=VALUE", help='What env("NAME") is for these missions (repeatable).'),
]
StoreConfigFile = Annotated[
    Path | None,
    Option("--store-config", metavar="FILE", help="Which databases stand behind sql, nosql and postgrest."),
]
StateStore = Annotated[
    str | None, Option("--state-store", metavar="NAME", help="Keep all executions in this state store.")
]
NoOasCache = Annotated[bool, Option("--no-oas-cache", help="Download OpenAPI documents anew, and keep what comes.")]
Debug = Annotated[bool, Option("--debug", help="Stop before each step and ask what to do, on a terminal.")]
JournalMax = Annotated[str | None, Option("--journal-max", metavar="SIZE", help="Most bytes of a journal. [1GiB]")]
Webhook = Annotated[bool, Option("--webhook", help="Receive what missions wait for.", panel=_WEBHOOKS)]
WebhookHost = Annotated[
    str | None,
    Option("--webhook-host", metavar="H", help="The address it listens on. [127.0.0.1]", panel=_WEBHOOKS),
]
WebhookPort = Annotated[
    int | None, Option("--webhook-port", metavar="N", help="Its port; 0 picks one. [3000]", panel=_WEBHOOKS)
]
WebhookUrl = Annotated[
    str | None,
    Option(
        "--webhook-url",
        metavar="URL",
        help="What the URLs for senders begin with. [http://localhost:PORT]",
        panel=_WEBHOOKS,
    ),
]
ShutdownGrace = Annotated[
    str | None, Option("--shutdown-grace", metavar="T", help="How long running work may finish. [25s]")
]
StateRetention = Annotated[
    str | None, Option("--state-retention", metavar="T", help="Keep records this long. [for ever]")
]
KeepGoing = Annotated[bool, Option("--keep-going", help="Run what is right when other files are wrong.")]
