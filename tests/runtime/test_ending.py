"""What is on disk when a run says that it has completed."""

from pathlib import Path
from typing import Any

from reqon.events import MissionCompleted
from reqon.values import decode
from tests.support.missions import Bench, mission
from tests.support.servers import ScriptedServer, reply

KEEP = mission(
    'get "/rows"\nstore response -> kept { key: .id }\nqueue { item: { id: "q" } }',
    stores='store kept: file("kept")',
)


class _Looking(list[Any]):
    """A list that keeps, beside each event, what the stores' files said when it was told."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def append(self, _: Any) -> None:
        paths = (self.state / "stores" / "kept.json", self.state / "dead-letter" / "M.json")
        super().append([set(decode(path.read_bytes())) for path in paths])


async def test_a_run_that_says_it_completed_has_its_records_in_the_files_people_read(
    api: ScriptedServer, bench: Bench
) -> None:
    api.on("/rows", reply(data=[{"id": "a"}, {"id": "b"}]))
    seen = _Looking(bench.state)
    bench.listen, bench.heard = [MissionCompleted], seen
    (await bench.run(KEEP)).ok()
    assert seen == [[{"a", "b"}, {"q"}]]
