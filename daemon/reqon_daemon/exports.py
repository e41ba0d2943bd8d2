"""`reqon export`: the rules and the dashboard as files, for the missions of some paths (spec/daemon.md 4)."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from reqon.diagnostics import did_you_mean
from reqon.errors import ConfigurationError, SemanticError
from reqon.extensions import registered, specifications_in
from reqon.lang.loader import load
from reqon_daemon.dashboard import grafana_dashboard
from reqon_daemon.rules import JOB, RUNBOOK, prometheus_rules

Make = Callable[[Sequence[str], str, str], str]
WHAT: Mapping[str, Make] = {
    "prometheus-rules": lambda missions, job, runbook: prometheus_rules(missions, job=job, runbook=runbook),
    "grafana": lambda missions, _job, _runbook: grafana_dashboard(missions).decode(),
}


def export(what: str, paths: Sequence[Path], *, job: str | None = None, runbook: str | None = None) -> str:
    """The file's text. With paths it speaks of the missions that are right there.

    Raises:
        ConfigurationError: there is no such file to write; a path doesn't exist.
        SemanticError: there is no mission at these paths that can be loaded.
    """
    make = WHAT.get(what)
    if make is None:
        raise ConfigurationError(
            f"'{what}' cannot be exported", code="bad-option", hint=did_you_mean(what, tuple(WHAT), "files")
        )
    missions: tuple[str, ...] = ()
    if paths:
        # What is told of a mission hangs on no document, so none is downloaded; those in files are read.
        specifications = specifications_in(Path(".vague-data"), os.environ, offline=True)
        program = load(paths, known=registered(specifications))
        missions = tuple(mission.name for mission in program.missions)
        if not missions:
            raise SemanticError.of([d for d in program.all_diagnostics if d.severity == "error"])
    return make(missions, job or JOB, runbook or RUNBOOK)
