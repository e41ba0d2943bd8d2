"""A journal that forgets what no resume needs: what is read from it stays the same (spec/state.md 3)."""

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

from reqon.runner import RunnerSettings
from reqon.runtime.resume import ResumePoint
from reqon.state.backend import BodyRef, Journal
from reqon.state.compaction import Compacting
from reqon.state.directory import StateDirectory
from reqon.state.file import FileBackend
from reqon.state.sqlite import SqliteBackend
from reqon.values import Value, encode
from tests.support.disks import FailingDisk, PowerDisk
from tests.support.missions import Bench, mission
from tests.support.servers import ScriptedServer, reply
from tests.support.state_contract import a_record

CAP = 200_000


def known(journal: Journal, positions: Mapping[str, int]) -> dict[str, Any]:
    """All that a resume learns from a journal, bodies included."""
    point, memory = ResumePoint.read(journal, positions, {})

    def bodies(at: Any) -> Any:
        if isinstance(at, BodyRef):
            return journal.read_body(at)
        if isinstance(at, dict):
            return {name: bodies(one) for name, one in at.items()}
        if isinstance(at, list | tuple) or type(at).__name__ == "deque":
            return [bodies(one) for one in at]
        if hasattr(type(at), "__dataclass_fields__"):
            return {name: bodies(getattr(at, name)) for name in type(at).__dataclass_fields__}
        return at

    # `relied` only counts entries while they are read.
    found = bodies({name: getattr(point, name) for name in vars(point) if name not in ("journal", "relied")})
    assert isinstance(found, dict)
    return {**found, "memory": memory}


class Running:
    """What an engine appends: pages, then loops of two actions with requests, places and checkpoints."""

    def __init__(self, journal: Journal, random: Random) -> None:
        self.journal, self.random = journal, random
        self.line = 0  # of the only store
        self.at = {"0/A": 0, "0/B": 0}
        self.refs: list[tuple[BodyRef, bytes]] = []
        for action in self.at:
            self._append("bind", {"a": action, "s": 1, "n": {"out": 0}}, [1])
            for page in (1, 2):
                fields = {"a": action, "p": "0", "k": page, "st": 200, "c": 1, "fp": "f", "next": {"kind": "end"}}
                self._append("page", fields, ["x" * 300])
            self._append("loop", {"a": action, "p": "1", "total": 9000, "n": {"out": 0}}, list(range(20)))

    def _append(self, kind: str, fields: Mapping[str, Value], body: Value = None) -> None:
        raw = None if body is None else encode(body)
        ref = self.journal.append(kind, fields, body=raw)
        if ref is not None and raw is not None and kind != "reply":
            self.refs.append((ref, raw))

    def step(self) -> None:
        """One request of one item."""
        action = self.random.choice(list(self.at))
        index = self.at[action]
        inner = [["1.2", self.random.randint(0, 3), 4, 77]] if self.random.random() < 0.5 else []
        place = {"a": action, "p": "1", "i": index, "n": {"out": self.line}, "in": inner, "totals": self.totals()}
        self._append(self.random.choice(("progress", "progress", "checkpoint")), place)
        for number in range(self.random.randint(0, 2)):
            at: dict[str, Value] = {"a": action, "p": "1", "i": index, "k": f"k{number}", "fp": number, "st": 200}
            self._append("reply", {**at, "in": [i[:2] for i in inner]}, {"y": "z" * self.random.randint(0, 90)})
        if self.random.random() < 0.1:
            self._append("failed", {"a": action, "p": "1", "i": index})
        if self.random.random() < 0.1:
            self._append("memory", {"store": "m", "changes": [self.line]})
        self.line += self.random.randint(0, 1)
        self.at[action] += self.random.randint(0, 1)

    def totals(self) -> dict[str, Value]:
        return {"i": [self.line, 0, 0], "c": [0, 0, 0], "s": {}}


def backend_of(kind: str, path: Path) -> FileBackend | SqliteBackend:
    directory = StateDirectory(path).open()
    return FileBackend(directory, journal_max=CAP) if kind == "file" else SqliteBackend(directory, journal_max=CAP)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_a_compacted_journal_says_what_it_said_before(kind: str, seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    backend = backend_of(kind, tmp_path)
    record = backend.create(a_record())
    journal = backend.journal(record)
    running = Running(journal, random)
    appended = size = 0
    for _ in range(12):
        for _ in range(random.randint(20, 120)):
            running.step()
            appended += 1
        journal.sync()
        positions = {"out": running.line}
        safe = {"out": random.randint(max(0, running.line - 40), running.line)}
        before = known(backend.journal(record), positions), known(backend.journal(record), safe)
        assert isinstance(journal, Compacting)
        journal.compact(safe)
        assert (known(backend.journal(record), positions), known(backend.journal(record), safe)) == before
        assert all(journal.read_body(ref) == body for ref, body in running.refs)
        size = max(size, journal.size)
    assert appended > 500
    assert size < CAP // 2, "old lines went"
    assert not journal.full
    journal.close()
    backend.close()


def test_what_is_appended_while_it_is_compacted_is_not_lost(tmp_path: Path) -> None:
    late: list[tuple[BodyRef | None, bytes]] = []

    class Busy(PowerDisk):
        def sync(self, fd: int, what: str) -> None:
            super().sync(fd, what)
            if what == "journal" and journal.size > CAP // 8:  # the new file is being made
                body = encode([f"late {len(late)}"])
                late.append((journal.append("bind", {"a": "0/C", "s": len(late)}, body=body), body))
                journal.write()

    backend = FileBackend(StateDirectory(tmp_path, disk=Busy(tmp_path)).open(), journal_max=CAP)
    record = backend.create(a_record())
    journal = backend.journal(record)
    running = Running(journal, Random(1))
    while journal.size < CAP // 3:
        running.step()
        journal.write()
    before = len(late)
    journal.compact({"out": running.line})
    assert len(late) > before
    assert journal.size < CAP // 8
    for ref, body in late:
        assert ref is not None
        assert journal.read_body(ref) == body
    journal.append("bind", {"a": "0/C", "s": 99})
    journal.close()
    entries = [e.fields["s"] for e in backend.journal(record).entries() if e.fields.get("a") == "0/C"]
    assert entries == [*range(len(late)), 99]


@pytest.mark.parametrize("what", ["write", "sync"])
def test_a_compaction_that_the_disk_refuses_costs_nothing(what: str, tmp_path: Path) -> None:
    """D6, for compactions."""
    disk = FailingDisk()
    backend = FileBackend(StateDirectory(tmp_path, disk=disk).open(), journal_max=CAP)
    record = backend.create(a_record())
    journal = backend.journal(record)
    running = Running(journal, Random(2))
    while journal.size < CAP // 3:
        running.step()
        journal.write()
    size = journal.size
    disk._for_ever = True
    setattr(disk, f"_{what}", getattr(disk, f"{what}s") + 1)
    journal.compact({"out": running.line})
    assert disk.refused
    disk._write = disk._sync = 0
    assert journal.size == size
    running.step()
    journal.close()
    assert len(known(backend.journal(record), {"out": running.line})["actions"]) == 2


async def test_a_long_loop_leaves_a_short_journal(api: ScriptedServer, tmp_path: Path) -> None:
    """The cap does not count lines that later ones made useless."""
    count = 400
    sizes: list[int] = []

    def answer(_: object) -> bytes:
        sizes.append(sum(path.stat().st_size for path in (tmp_path / "state").rglob("*.journal")))
        return reply(data={"pad": "x" * 500})

    api.on("/list", reply(data=[{"id": f"i{n}"} for n in range(count)])).on("*", answer)
    text = mission('get "/list"\nfor r in response checkpoint every 20 { get "/a/{r.id}"\nget "/b/{r.id}" }')
    bench = Bench(api, tmp_path / "state", settings=RunnerSettings(journal_max_bytes=100_000))
    ran = await bench.run(text)
    assert ran.ok().record.items_processed == count
    assert max(sizes) < 100_000 / 2
