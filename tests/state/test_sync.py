"""`sync-checkpoints.json`. The rules that all backends share are in the contract."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reqon.errors import StateError
from reqon.state.backend import SyncCheckpoint
from reqon.state.directory import StateDirectory
from reqon.state.sync import SyncCheckpoints
from tests.support.clocks import FakeClock
from tests.support.disks import UnreadableDisk
from tests.support.state_contract import T0


@pytest.fixture
def directory(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path, clock=FakeClock(T0), warn=lambda _: None)


@pytest.fixture
def checkpoints(directory: StateDirectory) -> SyncCheckpoints:
    return SyncCheckpoints(directory)


def test_the_file_is_as_documented(checkpoints: SyncCheckpoints, directory: StateDirectory) -> None:
    checkpoints.put("CustomerSync", {"API-/customers": SyncCheckpoint(T0, 1523, None)})
    assert directory.sync_checkpoints.read_text() == (
        '{\n  "API-/customers": {\n    "lastSync": "2024-03-01T08:15:00.412Z",\n'
        '    "itemsSynced": 1523,\n    "mission": "CustomerSync"\n  }\n}\n'
    )


def test_the_seeds_file_is_taken_over_by_the_first_mission_that_uses_a_key(
    checkpoints: SyncCheckpoints, directory: StateDirectory
) -> None:
    seed = {"API-/customers": {"lastSync": "2024-01-20T09:00:00Z", "itemsSynced": 1523, "note": "by hand"}}
    directory.sync_checkpoints.write_text(json.dumps(seed))
    then = datetime(2024, 1, 20, 9, tzinfo=UTC)
    assert checkpoints.of("A") == checkpoints.of("B") == {"API-/customers": SyncCheckpoint(then, 1523, None)}
    checkpoints.put("A", {"API-/customers": SyncCheckpoint(T0, 1, None)})
    assert checkpoints.of("B") == {}
    assert checkpoints.of("A") == {"API-/customers": SyncCheckpoint(T0, 1524, "A")}
    assert json.loads(directory.sync_checkpoints.read_text())["API-/customers"]["note"] == "by hand"


def test_a_time_is_never_later_than_now(checkpoints: SyncCheckpoints) -> None:
    checkpoints.put("A", {"k": SyncCheckpoint(T0 + timedelta(days=1), 1, None)})
    assert checkpoints.of("A")["k"].last_sync == T0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\0" * 100,
        b"[]",
        b'{"k": 5}',
        b'{"k": {"lastSync": 5}}',
        b'{"k": {"lastSync": "soon"}}',
        b'{"k": {"lastSync": "2024-01-20T09:00:00"}}',
        b'{"k": {"lastSync": "2024-01-20T09:00:00Z", "itemsSynced": NaN}}',
        b'{"k": {"lastSync": "2024-01-20T09:00:00Z", "itemsSynced": "9"}}',
        b'{"k": "\xff"}',
        b"[" * 100_000,
    ],
)
def test_nobody_guesses_what_a_damaged_file_said(
    checkpoints: SyncCheckpoints, directory: StateDirectory, content: bytes
) -> None:
    """D8, for sync checkpoints."""
    directory.sync_checkpoints.write_bytes(content)
    for use in (lambda: checkpoints.of("A"), lambda: checkpoints.put("A", {"k": SyncCheckpoint(T0, 1, None)})):
        with pytest.raises(StateError) as caught:
            use()
        assert "sync-checkpoints.json" in caught.value.message
        assert "full sync" in (caught.value.hint or "")
    assert directory.sync_checkpoints.read_bytes() == content, "and nobody writes over it"


def test_clearing_all_gets_rid_of_a_damaged_file_and_keeps_it(
    checkpoints: SyncCheckpoints, directory: StateDirectory
) -> None:
    directory.sync_checkpoints.write_bytes(b"{")
    with pytest.raises(StateError):
        checkpoints.clear("k")
    assert checkpoints.clear(None) == 0
    assert checkpoints.of("A") == {}
    assert [p.read_bytes() for p in directory.quarantine_directory.iterdir()] == [b"{"]
    assert directory.quarantined["sync"] == 1


def test_another_missions_odd_entry_is_none_of_ours(checkpoints: SyncCheckpoints, directory: StateDirectory) -> None:
    directory.sync_checkpoints.write_text('{"k": {"lastSync": 5, "mission": "B"}}')
    checkpoints.put("A", {"k": SyncCheckpoint(T0, 1, None)})
    assert checkpoints.of("A")["k"].items_synced == 1
    with pytest.raises(StateError):
        checkpoints.of("B")


@pytest.mark.parametrize("make", [Path.mkdir, lambda p: p.symlink_to("/dev/zero"), os.mkfifo])
def test_what_is_no_file_is_refused_at_once(
    checkpoints: SyncCheckpoints, directory: StateDirectory, make: Callable[[Path], None]
) -> None:
    """D8, for sync checkpoints."""
    make(directory.sync_checkpoints)
    with pytest.raises(StateError, match="not a regular file"):
        checkpoints.of("A")


def test_a_file_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    """D8, for sync checkpoints."""
    checkpoints = SyncCheckpoints(StateDirectory(tmp_path))
    checkpoints.put("A", {"k": SyncCheckpoint(T0, 1, None)})
    blind = SyncCheckpoints(StateDirectory(tmp_path, disk=UnreadableDisk(lambda _: True)))
    for use in (lambda: blind.of("A"), lambda: blind.put("A", {"x": SyncCheckpoint(T0, 1, None)})):
        with pytest.raises(StateError, match="cannot read"):
            use()
    assert set(checkpoints.of("A")) == {"k"}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["A", "B", "A/A"]), st.sampled_from(["k", "A/k", "A/A/k", "B/k"]), st.integers(0, 99)
        ),
        max_size=12,
    )
)
def test_missions_and_keys_never_mix(
    tmp_path_factory: pytest.TempPathFactory, puts: list[tuple[str, str, int]]
) -> None:
    checkpoints = SyncCheckpoints(StateDirectory(tmp_path_factory.mktemp("sync")))
    expected: dict[tuple[str, str], tuple[datetime, int]] = {}
    for mission, key, minutes in puts:
        at = T0 + timedelta(minutes=minutes)
        checkpoints.put(mission, {key: SyncCheckpoint(at, 1, None)})
        before, items = expected.get((mission, key), (at, 0))
        expected[mission, key] = (max(before, at), items + 1)
    found = {
        (mission, key): (c.last_sync, c.items_synced)
        for mission in ("A", "B", "A/A")
        for key, c in checkpoints.of(mission).items()
    }
    assert found == expected
