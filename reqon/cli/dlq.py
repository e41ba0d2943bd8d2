"""`reqon dlq`: items that missions set aside (spec/runtime.md 11)."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from reqon.cli import show
from reqon.cli.environment import environment, state_directory
from reqon.cli.exits import Done
from reqon.cli.flags import EnvFile, ForMachines, StateDir
from reqon.cli.options import Argument, Option
from reqon.deadletters import DeadLetters, Letter, Retried
from reqon.diagnostics import did_you_mean
from reqon.errors import ConfigurationError
from reqon.extensions import registered, specifications_in
from reqon.lang.loader import load
from reqon.runner import AlreadyRunningError, Runner, RunnerSettings

_VERBS = ("list", "show", "retry", "drop")


def dlq(
    verb: Annotated[str, Argument(metavar="VERB", help="list, show, retry or drop.")],
    keys: Annotated[list[str] | None, Argument(metavar="[KEY]...", help="Which items; see `reqon dlq list`.")] = None,
    path: Annotated[
        list[Path] | None,
        Option(
            "--path", metavar="PATH", help="Mission files or folders: for retry, and to see the stores they declare."
        ),
    ] = None,
    mission: Annotated[str | None, Option("--mission", metavar="NAME", help="Only items of this mission.")] = None,
    store: Annotated[str | None, Option("--store", metavar="NAME", help="Only items in this store.")] = None,
    everything: Annotated[bool, Option("--all", help="All items that are meant by the other options.")] = False,
    retryable: Annotated[bool, Option("--retryable", help="Only those that may well pass later.")] = False,
    json: ForMachines = False,
    auth: Annotated[Path | None, Option("--auth", metavar="FILE", help="Credentials, for retry.")] = None,
    env: EnvFile = None,
    store_config: Annotated[
        Path | None, Option("--store-config", metavar="FILE", help="Which databases stand behind stores.")
    ] = None,
    state_dir: StateDir = None,
) -> None:
    """List, show, retry or drop the items that missions set aside with `queue`."""
    if verb not in _VERBS:
        raise ConfigurationError(
            f"reqon dlq has no '{verb}'", code="bad-option", hint=did_you_mean(verb, _VERBS, "verbs")
        )
    if verb != "list" and not keys and not everything:
        raise ConfigurationError(
            f"which items? name their keys, or say --all: reqon dlq {verb} --all",
            code="bad-option",
            hint="reqon dlq list shows them",
        )
    config = store_config or (Path(given) if (given := os.environ.get("REQON_STORE_CONFIG")) else None)
    variables = environment(env)
    state = state_directory(state_dir, variables)
    known = registered(specifications_in(state, variables, offline=verb != "retry"))
    program = load(path, known=known, skip=(state,)) if path else None
    if program is not None and program.has_errors:
        show.findings(program.all_diagnostics)
        raise Done(2)
    runner = Runner(RunnerSettings(state_directory=state, auth_file=auth, store_config=config), environment=variables)
    runner.open()
    box = DeadLetters(runner, program.missions if program is not None else ())

    async def work() -> int:
        try:
            found = [
                letter
                for letter in await box.letters()
                if (mission is None or letter.mission == mission)
                and (store is None or letter.box.store == store)
                and (not retryable or letter.record.get("retryable") is True)
            ]
            chosen = _chosen(found, keys or []) if keys else found
            return await _do(box, verb, chosen, json=json)
        finally:
            await runner.close()

    raise Done(asyncio.run(work()))


def _chosen(letters: Sequence[Letter], keys: Sequence[str]) -> list[Letter]:
    known = {letter.key for letter in letters}
    for key in keys:
        if key not in known:
            raise ConfigurationError(
                f"no item '{key}' is set aside",
                code="unknown-item",
                hint=did_you_mean(key, sorted(known)[:200], "items") if known else "there are none: see reqon dlq list",
            )
    return [letter for letter in letters if letter.key in keys]


async def _do(box: DeadLetters, verb: str, letters: Sequence[Letter], *, json: bool) -> int:
    if verb == "list":
        _list(letters, json=json)
        return 0
    if verb == "show":
        show.as_json([{"key": letter.key, "store": letter.box.store, **letter.record} for letter in letters])
        return 0
    if verb == "drop":
        await box.drop(letters)
        if json:
            show.as_json({"dropped": [letter.key for letter in letters]})
        else:
            show.out(f"{len(letters)} {_items(letters)} dropped")
        return 0
    return await _retry(box, letters, json=json)


async def _retry(box: DeadLetters, letters: Sequence[Letter], *, json: bool) -> int:
    """Do them again, one by one; 1 if any is still there."""
    results: list[Retried] = []
    for letter in letters:
        try:
            result = await box.retry(letter)
        except AlreadyRunningError as error:
            result = Retried(letter, "refused", error.message)
        results.append(result)
        if not json:
            show.out(f"{letter.key}: {result.outcome}" + (f": {result.reason}" if result.reason else ""))
    if json:
        show.as_json([{"key": r.letter.key, "outcome": r.outcome, "reason": r.reason} for r in results])
    elif not results:
        show.out("nothing is set aside")
    return 0 if all(result.outcome == "done" for result in results) else 1


def _list(letters: Sequence[Letter], *, json: bool) -> None:
    if json:
        show.as_json([letter.summary() for letter in letters])
        return
    if not letters:
        show.out("nothing is set aside")
        return
    rows = [
        [
            letter.key,
            letter.mission,
            letter.box.store,
            str(letter.record.get("kind") or ""),
            str(letter.record.get("attemptCount") or ""),
            str(letter.record.get("queuedAt") or ""),
            str(letter.record.get("error") or ""),
        ]
        for letter in letters
    ]
    show.table(("KEY", "MISSION", "STORE", "KIND", "TRIES", "SINCE", "ERROR"), rows)


def _items(letters: Sequence[Letter]) -> str:
    return "item" if len(letters) == 1 else "items"
