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
