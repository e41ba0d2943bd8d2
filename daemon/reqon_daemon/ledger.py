"""The slot ledger: one stored decision per due slot, and what else outlives a run (spec/daemon.md 2, reliability.md 5).

One log of checksummed lines, `<state>/schedule/ledger.log`. A line holds either a mission's whole standing or one
decision; the last line about a thing wins, so lines may be lost to damage, or doubled, without changing the others.
"""

import errno
import os
import threading
from asyncio import to_thread
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from reqon.clock import SYSTEM, Clock
from reqon.errors import StateError
from reqon.files import DamagedFileError, Log, make_directory, seal, unseal
from reqon.state.directory import StateDirectory
from reqon.values import JsonError, Record, convert, decode, encode, to_builtins
from reqon_daemon.happenings import FileQuarantined, Happenings, SlotOutcome

VERSION = 1
_KEPT_DECISIONS = 50
_MOST_DECISIONS = 2000
_REWRITE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided about a due slot. `count` slots from `first_due` to `due` share one; 1000 may mean more.

    `begun` and `ended` follow the run that the slot started; `execution_id` is None until the run has one.
    """

    mission: str
    due: datetime
    outcome: SlotOutcome
    reason: str
    decided_at: datetime
    first_due: datetime
    count: int = 1
    begun: bool = False
    ended: bool = False
    execution_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    since: datetime
    until: datetime | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRetry:
    """A failed execution that will be resumed. `attempt` counts runs, the first included; `slot` is its due time."""

    execution_id: str | None
    attempt: int
    due: datetime
    delay_seconds: float
    slot: datetime | None = None
    definition_hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """All that is kept of one mission.

    Attributes:
        registered: when it was first scheduled or run.
        signature, anchor: of its schedule; the first due time of an `every`.
        decided_until: no slot up to here is ever due again.
        unscheduled: when its file went away; None while it is loaded.
        last_outcome: success, failure, interrupted or cancelled.
        judged_execution, judged_slot: the newest ones that alerts have looked at.
    """

    mission: str
    registered: datetime
    signature: str | None = None
    anchor: datetime | None = None
    decided_until: datetime | None = None
    unscheduled: datetime | None = None
    last_run: datetime | None = None
    last_success: datetime | None = None
    last_outcome: str | None = None
    last_execution: str | None = None
    last_duration_seconds: float | None = None
    last_items: int | None = None
    consecutive_failures: int = 0
    pause: Pause | None = None
    retry: PendingRetry | None = None
    judged_execution: str | None = None
    judged_slot: datetime | None = None


class Ledger:
    """What is known of each mission, in memory and on disk.

    `update`, `decide` and `amend` change the memory at once; `commit` returns when all that was changed before it is on
    disk. Changes come from the event loop's thread, and commits of several tasks share one sync.
    """

    def __init__(
        self,
        directory: StateDirectory,
        *,
        clock: Clock = SYSTEM,
        happenings: Happenings | None = None,
        offload: Callable[[Callable[[], None]], Awaitable[None]] = to_thread,
    ) -> None:
        """Read what is there; `open` must follow before anything is written. `offload` runs what blocks."""
        self.path = directory.schedule / "ledger.log"
        self._directory = directory
        self._clock = clock
        self._happenings = happenings or Happenings()
        self._disk = directory.disk
        self._offload = offload
        self._log = Log(self.path, what="ledger", disk=self._disk)
        self._standings: dict[str, Standing] = {}
        self._decisions: dict[str, list[Decision]] = {}
        self._waiting: list[bytes] = []
        self._handover = threading.Lock()  # between the loop and a committing thread
        self._writing = threading.Lock()
        self._rewrite_due = True
        self._damage = self._read()

    # --- reading ---

    def standing(self, mission: str) -> Standing | None:
        return self._standings.get(mission)

    def standings(self) -> Mapping[str, Standing]:
        return self._standings

    def decisions(self, mission: str) -> Sequence[Decision]:
        """The newest fifty, and older ones whose run has not ended; oldest first."""
        return tuple(self._decisions.get(mission, ()))

    def unfinished(self) -> list[Decision]:
        """Decisions to run whose run has not ended, as far as we know: queued, running, or lost with the process."""
        return [d for kept in self._decisions.values() for d in kept if d.outcome.runs and not d.ended]

    # --- changing: memory and waiting lines together, since a commit in another thread copies both ---

    def register(self, mission: str) -> Standing:
        """The mission's standing, made if it has none."""
        known = self._standings.get(mission)
        return known or self._put(Standing(mission=mission, registered=_whole(self._clock.now())))

    def update(self, mission: str, **changes: object) -> Standing:
        """Change fields of a mission's standing; instants lose what is below a millisecond."""
        shortened = {k: _whole(v) if isinstance(v, datetime) else v for k, v in changes.items()}
        return self._put(replace(self.register(mission), **shortened))  # type: ignore[arg-type]

    def decide(self, decision: Decision) -> None:
        """Keep a new decision; its slot, and all before it, are never due again."""
        standing = self.register(decision.mission)
        line = _line("slot", _shown(decision))
        with self._handover:
            if standing.decided_until is None or decision.due > standing.decided_until:
                self._standings[decision.mission] = replace(standing, decided_until=decision.due)
            kept = self._decisions.setdefault(decision.mission, [])
            kept.append(decision)
            _trim(kept)
            self._waiting.append(line)

    def amend(self, mission: str, due: datetime, **changes: object) -> Decision | None:
        """Say how a decision turned out; None if it is no longer kept."""
        kept = self._decisions.get(mission, [])
        for place in range(len(kept) - 1, -1, -1):
            if kept[place].due == due:
                changed = replace(kept[place], **changes)  # type: ignore[arg-type]
                line = _line("slot", _shown(changed))
                with self._handover:
                    kept[place] = changed
                    self._waiting.append(line)
                return changed
        return None

    def rewind(self, mission: str, until: datetime) -> None:
        """Drop decisions about slots after `until`: a wrong clock made them."""
        standing = replace(self.register(mission), decided_until=_whole(until))
        with self._handover:
            self._decisions[mission] = [d for d in self._decisions.get(mission, ()) if d.due <= until]
            self._standings[mission] = standing
            self._rewrite_due = True

    def forget(self, mission: str) -> None:
        """Drop all that is kept of a mission, at the next rewrite."""
        with self._handover:
            self._standings.pop(mission, None)
            self._decisions.pop(mission, None)
            self._rewrite_due = True

    # --- writing ---

    def open(self) -> None:
        """Mend what is damaged and be ready to write.

        Raises:
            StateError: the directory or file cannot be written.
        """
        try:
            make_directory(self.path.parent)
            if self._damage:
                self._set_aside(self._damage)
            self.commit_blocking()
        except OSError as error:
            raise self._trouble(error) from error

    async def commit(self) -> None:
        """Return when every change made so far survives a power loss.

        Raises:
            StateError: it doesn't. Nothing that relies on it may start; the changes stay noted, and the next commit
                writes the whole ledger anew.
        """
        await self._offload(self.commit_blocking)

    def commit_blocking(self) -> None:
        """`commit` for those who have no event loop."""
        with self._writing:
            with self._handover:
                lines, self._waiting = b"".join(self._waiting), []
                whole = list(self._whole()) if self._rewrite_due or self._log.size > _REWRITE_BYTES else None
            try:
                if whole is None:
                    try:
                        self._append(lines)
                    except OSError:
                        # What was synced in vain counts as lost: only a new file can be believed.
                        with self._handover:
                            self._waiting, whole = [], list(self._whole())
                        self._rewrite(whole)
                else:
                    self._rewrite(whole)
            except OSError as error:
                self._rewrite_due = True
                raise self._trouble(error) from error

    @property
    def has_changes(self) -> bool:
        """Whether something waits for a commit."""
        return bool(self._waiting) or self._rewrite_due

    def close(self) -> None:
        self._log.close()

    def _append(self, lines: bytes) -> None:
        if lines:
            self._log.append(lines)
        self._log.sync()

    def _rewrite(self, whole: Iterable[tuple[str, Standing | Decision]]) -> None:
        self._log.close()
        head = _line("ledger", {"version": VERSION})
        data = head + b"".join(_line(kind, _shown(thing)) for kind, thing in whole)
        self._disk.replace(self.path, data, "ledger")
        self._log = Log(self.path, what="ledger", disk=self._disk)
        self._log.open_at(len(data))
        self._rewrite_due = False

    def _whole(self) -> Iterator[tuple[str, Standing | Decision]]:
        for kept in self._decisions.values():
            for decision in kept:
                yield "slot", decision
        for standing in self._standings.values():
            yield "mission", standing

    def _put(self, standing: Standing) -> Standing:
        line = _line("mission", _shown(standing))
        with self._handover:
            self._standings[standing.mission] = standing
            self._waiting.append(line)
        return standing

    # --- what was found on disk ---

    def _read(self) -> str | None:
        """Fold the file into the memory. Answers what is damaged, if something is."""
        try:
            data = self._disk.read(self.path)
        except FileNotFoundError:
            return None
        except DamagedFileError as error:
            return error.message.removeprefix(f"{self.path} ")
        except PermissionError:
            return "may not be read"  # as damaged: what is due would else not run, for one file of another user
        except OSError as error:
            raise self._trouble(error) from error
        lines = data.splitlines(keepends=True)
        # The head was synced with the file, so that no kill leaves one without it. A last line that was not written to
        # its end is what a kill leaves; anything else is damage.
        headless = not lines or unseal(lines[0]) is None
        bad, cut = 0, False
        for line in lines:
            content = unseal(line)
            cut = content is None
            bad += content is None or not self._fold(content)
        bad -= cut and not headless
        if bad:
            return f"has {bad} damaged {'line' if bad == 1 else 'lines'}"
        return "is empty" if headless else None

    def _fold(self, content: bytes) -> bool:
        try:
            found: Record = decode(content)
            kind = found.pop("kind")
            if kind == "mission":
                standing = convert(found, Standing)
                self._standings[standing.mission] = standing
            elif kind == "slot":
                self._fold_decision(convert(found, Decision))
            elif kind == "ledger" and found["version"] > VERSION:
                raise StateError(f"{self.path} was written by a newer version", hint="use that version, or newer")
        except (JsonError, KeyError, AttributeError, TypeError):
            return False
        return True

    def _fold_decision(self, decision: Decision) -> None:
        kept = self._decisions.setdefault(decision.mission, [])
        for place in range(len(kept) - 1, -1, -1):
            if kept[place].due == decision.due:
                kept[place] = decision
                return
            if kept[place].due < decision.due:
                break
        kept.append(decision)
        _trim(kept)
        standing = self.standing(decision.mission)
        if standing is None:
            standing = Standing(mission=decision.mission, registered=decision.decided_at)
        if standing.decided_until is None or decision.due > standing.decided_until:
            standing = replace(standing, decided_until=decision.due)
        self._standings[decision.mission] = standing

    def _set_aside(self, reason: str) -> None:
        """Keep the damaged file for a person; the good lines go into a new one."""
        place = self._directory.quarantine(self.path, reason, kind="ledger")
        if place is None:
            raise StateError(f"{self.path} {reason}, and it cannot be moved to quarantine")
        self._damage = None
        found = FileQuarantined(at=self._clock.now(), kind="ledger", path=str(place), reason=reason)
        self._happenings.emit(found)

    def _trouble(self, error: OSError) -> StateError:
        self._directory.write_errors += 1
        problem = error.strerror or str(error)
        hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
        return StateError(f"cannot use the slot ledger {self.path}: {problem} (user id {os.geteuid()})", hint=hint)


def _trim(kept: list[Decision]) -> None:
    """Drop the oldest beyond fifty, but none whose run has not ended; `catchUp: all` may leave a thousand of those."""
    if len(kept) > _KEPT_DECISIONS:
        finished = (place for place, d in enumerate(kept) if d.ended or not d.outcome.runs)
        done = next(finished, None if len(kept) <= _MOST_DECISIONS else 0)
        if done is not None:
            del kept[done]


def _shown(thing: Standing | Decision) -> Record:
    return {k: v for k, v in to_builtins(thing).items() if v is not None}


def _line(kind: str, fields: Record) -> bytes:
    return seal(encode({"kind": kind, **fields}))


def _whole(instant: datetime) -> datetime:
    """To the millisecond, as it is written: what is read again must be equal."""
    instant = instant.astimezone(UTC)
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)
