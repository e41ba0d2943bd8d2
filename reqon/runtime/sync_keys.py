"""Requests that keep a sync checkpoint for each of very many paths (spec/runtime.md 8)."""

import re
from collections.abc import Collection, Iterator

from reqon.diagnostics import Diagnostic
from reqon.lang import flow, nodes
from reqon.lang.placeholders import split
from reqon.lang.program import MissionProgram
from reqon.lang.walk import walk

MOST = 10_000


def many_keys(program: MissionProgram, keys: Collection[str]) -> Iterator[Diagnostic]:
    """A warning for each request under whose paths more than 10,000 of a mission's `keys` are kept."""
    if len(keys) <= MOST:
        return
    for action in program.actions.values():
        for step in flow.steps_in(action.steps):
            pattern = _pattern(program, step)
            number = sum(map(bool, map(pattern.fullmatch, keys))) if pattern is not None else 0
            if number > MOST:
                message = f"this request has {number} sync checkpoints, one for each of its paths"
                hint = "clear_sync_checkpoint(key) forgets one that is needed no more; a syncKey keeps one for all"
                yield Diagnostic("many-sync-keys", message, step.span, hint, severity="warning")


def _pattern(program: MissionProgram, step: nodes.Step) -> re.Pattern[str] | None:
    """What the keys of a request look like; None where it keeps none, or one that is written."""
    if not isinstance(step, nodes.Fetch | nodes.CallStep):
        return None
    options = {option.key: option.value for option in step.options}
    since = options.get("since")
    if "syncKey" in options or (isinstance(since, nodes.Since) and (since.key or _has_key(since))):
        return None
    named = any(isinstance(node, nodes.Name) and node.name == "lastSync" for node in walk(step))
    if not named and not isinstance(since, nodes.Since):
        return None
    if isinstance(step, nodes.CallStep):
        return re.compile(re.escape(f"{step.source.text}-{step.operation.text}") + r"(\?.*)?", re.DOTALL)
    source = re.escape(step.source.text) if step.source is not None else _named(program, options.get("source"))
    return re.compile(f"{source}-{_path(step.path)}", re.DOTALL)


def _has_key(since: nodes.Since) -> bool:
    return any(option.key == "key" for option in since.options)


def _named(program: MissionProgram, written: object) -> str:
    if written is None:
        return re.escape(next(iter(program.sources)))
    name = written.name if isinstance(written, nodes.Name) else None
    return re.escape(name) if name in program.sources and name is not None else ".+"


def _path(path: nodes.Expression) -> str:
    if not isinstance(path, nodes.Literal_) or not isinstance(path.value, str):
        return ".*"
    pieces = [re.escape(piece) if isinstance(piece, str) else "[^/]+" for piece in split(path)[0]]
    return "".join(pieces).partition(r"\?")[0].rstrip("/") or "/"
