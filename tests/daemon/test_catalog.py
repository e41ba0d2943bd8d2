import asyncio
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reqon.errors import ConfigurationError
from reqon.lang.program import MissionProgram, Unit
from reqon_daemon.catalog import Catalog, Hashes, Plan, content_hash, read_unit
from tests.support.clocks import FakeClock
from tests.support.timetable import TimedPlan

GOOD = """mission {name} {{
  schedule: every {minutes} minutes
  store kept: memory("kept")
  action A {{ store {{ id: 1 }} -> kept {{ key: .id }} }}
  run A
}}
"""


def text(name: str, minutes: int = 15) -> str:
    return GOOD.format(name=name, minutes=minutes)


def plan(program: MissionProgram) -> Plan:
    return TimedPlan(program.name, program, program.definition_hash)


def catalog(folder: Path, **options: object) -> Catalog:
    return Catalog([folder], plan=plan, clock=FakeClock(), **options)  # type: ignore[arg-type]


def schedules(found: Catalog) -> dict[str, str]:
    return {name: m.policy.schedule.text for name, m in found.missions.items() if m.policy.schedule}


async def test_a_first_reload_reads_everything(tmp_path: Path) -> None:
    (tmp_path / "a.vague").write_text(text("A"))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.reqon").write_text(text("B", 30))
    found = catalog(tmp_path)
    done = await found.reload(settle=False)
    assert sorted(done.added) == ["A", "B"]
    assert not done.broken
    assert schedules(found) == {"A": "every 15 minutes", "B": "every 30 minutes"}
    assert not await found.reload()


async def test_of_two_with_one_name_the_one_in_service_stays_whatever_is_read_later(tmp_path: Path) -> None:
    """spec/daemon.md 1: an error that names both files, and no switch to a copy that somebody only began to edit."""
    (tmp_path / "night.vague").write_text(text("N", 30))
    found = catalog(tmp_path)
    await found.reload(settle=False)
    copy = tmp_path / "copy.vague"  # which comes first by name
    copy.write_text(text("N", 20))
    assert (await found.reload(settle=False)).refused == (str(copy),)
    for step in ("somewhere else", "everything", "the copy again"):
        if step == "somewhere else":
            (tmp_path / "other.vague").write_text(text("O"))
        elif step == "the copy again":
            copy.write_text(text("N", 10))
        await found.reload(settle=False, everything=step == "everything")
        assert schedules(found)["N"] == "every 30 minutes", step
        (finding,) = found.broken[str(copy)]
        assert finding.code == "duplicate-mission"
        assert "night.vague" in finding.message, step
        assert list(found.broken) == [str(copy)], step
    (tmp_path / "night.vague").unlink()
    await found.reload(settle=False)
    assert schedules(found)["N"] == "every 10 minutes"
    assert not found.broken


async def test_a_reload_says_what_was_added_changed_and_removed(tmp_path: Path) -> None:
    for name in "ABC":
        (tmp_path / f"{name}.vague").write_text(text(name))
    found = catalog(tmp_path)
    await found.reload(settle=False)
    old = found.missions["A"].plan.definition_hash
    untouched = found.missions["B"]
    (tmp_path / "A.vague").write_text(text("A", 20))
    (tmp_path / "C.vague").unlink()
    (tmp_path / "D.vague").write_text(text("D"))
    done = await found.reload()
    assert done.added == ("D",)
    assert done.removed == ("C",)
    assert done.changed == {"A": (old, found.missions["A"].plan.definition_hash)}
    assert found.missions["B"] is untouched


async def test_what_cannot_be_compiled_after_all_goes_out_of_service(tmp_path: Path) -> None:
    """Of very many missions most are compiled after the start: one that fails then is a broken file like others."""
    for name in "ABC":
        (tmp_path / f"{name}.vague").write_text(text(name))
    found = catalog(tmp_path)
    await found.reload(settle=False)

    def compiled(made: Plan) -> None:
        if made.name == "B":
            raise ConfigurationError("not in this release", code="not-built")

    (done,) = [reload async for reload in found.finish(compiled)]
    assert (done.removed, sorted(found.missions)) == (("B",), ["A", "C"])
    (errors,) = found.broken.values()
    assert errors[0].code == "not-built"
    assert not await found.reload()


async def test_blanks_and_comments_change_no_mission(tmp_path: Path) -> None:
    (tmp_path / "a.vague").write_text(text("A"))
    found = catalog(tmp_path)
    await found.reload(settle=False)
    (tmp_path / "a.vague").write_text("// nightly\n" + text("A").replace("  ", "\t"))
    assert not (await found.reload()).changed


async def test_a_broken_edit_keeps_the_last_good_version_until_it_is_mended(tmp_path: Path) -> None:
    """H1: syntax error, then fix: last good stays; fix live."""
    path = tmp_path / "a.vague"
    path.write_text(text("A"))
    found = catalog(tmp_path)
    await found.reload(settle=False)
    good = found.missions["A"]
    path.write_text(text("A").replace("action A {", "action A {{"))
    done = await found.reload()
    assert done.refused == (str(path),)
    assert done.broken[str(path)][0].span is not None
    assert found.missions["A"] is good
    assert str(path) in (await found.reload()).broken
    path.write_text(text("A", 20))
    done = await found.reload()
    assert list(done.changed) == ["A"]
    assert not done.broken
    assert schedules(found) == {"A": "every 20 minutes"}


async def test_one_bad_file_of_ten_leaves_nine(tmp_path: Path) -> None:
    """H3: one bad file of ten: nine run. A file that makes the parser raise something else: the same."""
    for number in range(10):
        (tmp_path / f"m{number}.vague").write_text(text(f"M{number}"))
    (tmp_path / "m3.vague").write_text("mission M3 { run }")

    def load(path: Path) -> Iterable[Unit]:
        if path.name == "m7.vague":
            raise RecursionError("too deep")
        return read_unit(path)

    found = catalog(tmp_path, load=load)
    done = await found.reload(settle=False)
    assert sorted(found.missions) == [f"M{n}" for n in range(10) if n not in (3, 7)]
    assert set(done.broken) == {str(tmp_path / "m3.vague"), str(tmp_path / "m7.vague")}
    assert "RecursionError" in done.broken[str(tmp_path / "m7.vague")][0].message


async def test_a_plan_that_cannot_be_made_breaks_its_file_only(tmp_path: Path) -> None:
    def refuse(program: MissionProgram) -> Plan:
        if program.name == "A":
            raise ConfigurationError("no credentials for 'Api'")
        return plan(program)

    for name in "AB":
        (tmp_path / f"{name}.vague").write_text(text(name))
    found = Catalog([tmp_path], plan=refuse, clock=FakeClock())
    done = await found.reload(settle=False)
    assert list(found.missions) == ["B"]
    assert done.broken[str(tmp_path / "A.vague")][0].message == "no credentials for 'Api'"


@pytest.mark.parametrize(
    "schedule",
    [
        "every 0 minutes",
        'cron "* * * *"',
        'cron "60 * * * *"',
        'cron "0 0 30 2 *"',
        'cron "*/0 * * * *"',
        'cron "0 24 * * *"',
        'cron "0 0 0 * *"',
        'cron "0 0 * 13 *"',
        'cron "0 0 * * 8"',
        'cron "0 0 31 4,6 *"',
        'cron "0 0 * * * *"',
        'cron "@never"',
        'cron "5-1 * * * *"',
        'cron "a * * * *"',
        'cron ""',
        'at "soon"',
        'at "25:00"',
        'at "2031-13-01T00:00:00Z"',
        'cron "0 9 * * *" { timezone: "Europe/Atlantis" }',
        'cron "0 9 * * *" { catchUp: "some" }',
    ],
)
async def test_a_bad_schedule_is_refused_with_its_place_and_the_others_run(tmp_path: Path, schedule: str) -> None:
    """S7: 20 bad schedules: refused with line and column, the others run."""
    path = tmp_path / "bad.vague"
    path.write_text(text("Bad").replace("every 15 minutes", schedule))
    (tmp_path / "good.vague").write_text(text("Good"))
    found = catalog(tmp_path)
    done = await found.reload(settle=False)
    assert list(found.missions) == ["Good"]
    span = done.broken[str(path)][0].span
    assert span is not None
    assert (span.line, span.column > 2) == (2, True)


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("nowhere"),
    ],
)
async def test_what_is_no_file_is_refused_and_nobody_waits_for_it(make: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "a.vague").write_text(text("A"))
    make(tmp_path / "odd.vague")
    found = catalog(tmp_path)
    done = await asyncio.wait_for(found.reload(settle=False), 60)
    assert (done.added, done.refused) == (("A",), (str(tmp_path / "odd.vague"),))
    assert not await asyncio.wait_for(found.reload(), 60)
    (tmp_path / "odd.vague").unlink()
    (tmp_path / "odd.vague").write_text(text("B"))
    assert (await found.reload()).added == ("B",)


async def test_a_mission_folder_is_one_unit(tmp_path: Path) -> None:
    folder = tmp_path / "tides"
    (folder / "actions").mkdir(parents=True)
    (folder / "mission.vague").write_text(
        'mission Tides {\n  schedule: every 1 hour\n  store kept: memory("kept")\n  run A\n}\n'
    )
    (folder / "actions" / "a.vague").write_text("action A { store { id: 1 } -> kept { key: .id } }\n")
    found = catalog(tmp_path)
    assert (await found.reload(settle=False)).added == ("Tides",)
    (folder / "actions" / "a.vague").write_text("action A { store { id: 2 } -> kept { key: .id } }\n")
    assert list((await found.reload()).changed) == ["Tides"]


async def test_an_edited_import_reloads_who_imports_it(tmp_path: Path) -> None:
    missions = tmp_path / "missions"
    missions.mkdir()
    shared = tmp_path / "shared.vague"
    shared.write_text("action A { store { id: 1 } -> kept { key: .id } }\n")
    (missions / "m.vague").write_text(
        'import "../shared.vague"\nmission M {\n  store kept: memory("kept")\n  run A\n}\n'
    )
    found = catalog(missions)
    assert (await found.reload(settle=False)).added == ("M",)
    shared.write_text("action A { store { id: 2 } -> kept { key: .id } }\n")
    assert list((await found.reload()).changed) == ["M"]


async def test_a_file_that_vanishes_for_a_moment_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.vague"
    path.write_text(text("A"))

    class Recreating(FakeClock):
        """Somebody writes the file again while we wait for 250 ms."""

        async def sleep(self, seconds: float) -> None:
            path.write_text(text("A", 20))
            await super().sleep(seconds)

    found = Catalog([tmp_path], plan=plan, clock=Recreating())
    await found.reload(settle=False)
    path.unlink()
    done = await found.reload()
    assert list(done.changed) == ["A"]
    assert not done.removed


async def test_a_vanished_file_is_gone_after_two_seconds(tmp_path: Path) -> None:
    clock = FakeClock()
    (tmp_path / "a.vague").write_text(text("A"))
    found = Catalog([tmp_path], plan=plan, clock=clock)
    await found.reload(settle=False)
    (tmp_path / "a.vague").unlink()
    assert (await found.reload()).removed == ("A",)
    assert sum(clock.slept) == pytest.approx(2.0)


async def test_half_a_file_is_not_read_while_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "a.vague"
    path.write_text(text("A"))
    whole = text("A", 20)
    steps = iter(range(20, len(whole) + 20, 20))

    class Writing(FakeClock):
        async def sleep(self, seconds: float) -> None:
            path.write_text(whole[: next(steps, len(whole))])
            await super().sleep(seconds)

    found = Catalog([tmp_path], plan=plan, clock=Writing())
    await found.reload(settle=False)
    path.write_text("mission A")
    done = await found.reload()
    assert not done.broken
    assert schedules(found) == {"A": "every 20 minutes"}


async def test_a_file_that_never_stands_still_keeps_its_last_good_version(tmp_path: Path) -> None:
    path = tmp_path / "a.vague"
    path.write_text(text("A"))
    minutes = iter(range(100, 1000))

    class Restless(FakeClock):
        async def sleep(self, seconds: float) -> None:
            path.write_text(text("A", next(minutes)))
            await super().sleep(seconds)

    found = Catalog([tmp_path], plan=plan, clock=Restless())
    await found.reload(settle=False)
    path.write_text(text("A", 99))
    (tmp_path / "b.vague").write_text(text("B"))
    done = await found.reload()
    assert done.added == ("B",)
    assert schedules(found)["A"] == "every 15 minutes"


async def test_a_config_map_swap_is_seen(tmp_path: Path) -> None:
    for version, minutes in (("..2026_01", 15), ("..2026_02", 20)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "a.vague").write_text(text("A", minutes))
    (tmp_path / "..data").symlink_to("..2026_01")
    (tmp_path / "a.vague").symlink_to("..data/a.vague")
    found = catalog(tmp_path)
    assert (await found.reload(settle=False)).added == ("A",)
    (tmp_path / "..data_tmp").symlink_to("..2026_02")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert list((await found.reload()).changed) == ["A"]
    assert schedules(found) == {"A": "every 20 minutes"}


async def test_reloads_at_the_same_time_wait_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.vague").write_text(text("A"))
    found = catalog(tmp_path)
    done = await asyncio.gather(*(found.reload() for _ in range(5)))
    assert sum(bool(d) for d in done) == 1


def test_a_file_is_read_again_when_it_may_have_changed(tmp_path: Path) -> None:
    file = tmp_path / "a.vague"
    file.write_text("one")
    clock = FakeClock(datetime.now(UTC))
    hashes = Hashes(clock)
    first = hashes.of(file)
    assert first == content_hash(file)
    clock.advance(60)
    assert hashes.of(file) == first  # kept from here on
    read = file.stat()
    file.write_text("two")
    os.utime(file, ns=(read.st_atime_ns, read.st_mtime_ns))  # as long and, it says, as old as before
    second = hashes.of(file)
    assert second == content_hash(file) != first
    (tmp_path / "b").write_text("six")
    (tmp_path / "b").replace(file)
    assert hashes.of(file) == content_hash(file) != second
    file.unlink()
    assert hashes.of(file) is None
