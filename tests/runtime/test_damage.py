"""One file of a state directory is damaged: its mission says so or goes on, all others run (spec/reliability.md 1)."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from reqon.errors import ReqonError
from tests.runtime.test_resume import Site, interrupted
from tests.support.damages import DAMAGES, seen
from tests.support.missions import Bench, mission
from tests.support.rights import bound_by_file_modes
from tests.support.servers import ScriptedServer

SLOW = bool(os.environ.get("REQON_SLOW"))
MINE = mission(
    """
    get "/list/l" { since: lastSync }
    store response -> side
    for r in side { post "/x/{r.id}"
      store { id: r.id } -> more }""",
    stores='store side: file("side")\nstore more: file("more")',
)
OTHER = mission('get "/list/o"\nstore response -> mine', stores='store mine: file("mine")').replace(
    "mission M {", "mission Other {"
)


FILES = {
    "record": "execution/M-*-2.json",
    "journal": "execution/M-*.journal",
    "sync checkpoints": "sync-checkpoints.json",
    "store": "stores/side.json",
    "log of a store": "stores/more.log",
}


@pytest.fixture(autouse=True)
def _modes_count() -> Iterator[None]:
    with bound_by_file_modes():
        yield


@pytest.mark.parametrize("kind", FILES)
async def test_one_damaged_file_stops_nobody_else(
    kind: str, api: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """D8: fifteen damages of each kind of file; what is damaged is set aside, or named by the error of its mission."""
    site = Site(api)
    first = Bench(api, tmp_path / "whole")
    (await first.run(MINE)).ok()  # a completed run before the killed one: there is a sync checkpoint, and snapshots
    killed = await interrupted(first, site, MINE, "kill", 4)
    site.at = 0
    for number, (name, damage) in enumerate(DAMAGES.items()):
        if not SLOW and number % 4 != len(kind) % 4:
            continue
        state = tmp_path / f"damaged{number}"
        shutil.copytree(killed.state, state)
        path = max(state.glob(FILES[kind]))
        damage(path)
        before = seen(path)
        bench = Bench(api, state, killed.clock)
        assert (await bench.run(OTHER)).ok().stores["mine"], name
        caplog.clear()
        try:
            ran = await bench.resume(MINE)
            said = " ".join(error.message for error in ran.outcome.errors)
        except ReqonError as error:
            ran, said = None, error.message
        if ran is None or not ran.outcome.success:
            assert path.name in said, (kind, name, said)
        aside = list((state / "quarantine").glob("*"))
        left = (kind, name) == ("record", "unreadable")  # where it is: a run that is not found is begun anew
        assert ran is None or not ran.outcome.success or aside or left or _is_harmless(kind, name), (kind, name)
        assert _is_harmless(kind, name) or path.name in said + caplog.text, (kind, name)
        assert _is_harmless(kind, name) or any(seen(p) == before for p in state.rglob("*")), (kind, name)


def _is_harmless(kind: str, name: str) -> bool:
    """Damage that looks like the end of a killed process's last write, or like a file that a person has edited."""
    cut_tail = kind in ("journal", "log of a store")
    # One of a newer release stays as it is; in the place of what holds nothing the last synced one is put back.
    kept = kind == "record" and name in ("newer version", "a link", "a FIFO")
    return cut_tail or kept or name == "doubled" or (kind == "sync checkpoints" and name in ("NaN", "newer version"))
