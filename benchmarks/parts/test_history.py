"""`reqon history --limit 10` and `reqon status` over 100,000 records, as whole processes: at most 0.5 s (X2).

REQON_SLOW=1 makes it the full number; a tenth otherwise.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.state.test_many_records import MISSIONS, filled
from tests.support.processes import reqon


@pytest.fixture(scope="module", params=["file", "sqlite", "postgres"])
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    path = tmp_path_factory.mktemp(request.param)
    with filled(request.param, path) as (backend, url):
        backend.close()
        yield path, ["--state-dir", "state", "--state-store", request.param, *([url] if url else [])]


def looked(home: tuple[Path, list[str]], *words: object) -> Any:
    path, options = home
    url = options[4] if len(options) > 4 else ""
    return reqon(*words, "--json", *options[:4], cwd=path, seconds=60, REQON_STATE_URL=url).json


def test_history_of_many(benchmark: Any, home: tuple[Path, list[str]]) -> None:
    assert len(benchmark(looked, home, "history", "--limit", 10)) == 10


def test_history_of_one_mission_among_many(benchmark: Any, home: tuple[Path, list[str]]) -> None:
    assert len(benchmark(looked, home, "history", "M7", "--limit", 10)) == 10


def test_status_of_all(benchmark: Any, home: tuple[Path, list[str]]) -> None:
    assert len(benchmark(looked, home, "status")) >= MISSIONS
