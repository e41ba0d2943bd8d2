import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from reqon.clock import rfc3339
from reqon.state.directory import StateDirectory
from reqon_daemon.happenings import SlotOutcome
from reqon_daemon.ledger import Decision, Ledger

SLOW = bool(os.environ.get("REQON_SLOW"))
RESTARTS = 200 if SLOW else 8


def start(state: Path, runs: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.ticking", str(state), str(runs)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_and_restarted_each_slot_is_decided_once_and_runs_once(tmp_path: Path) -> None:
    """S3: 200 restarts within 2 s of a slot: one run each; killed between decision and start: one run."""
    chance = Random(7)
    decided: dict[str, Decision] = {}
    state, runs = tmp_path / "state", tmp_path / "runs"
    for number in range(RESTARTS):
        process = start(state, runs)
        try:
            time.sleep(chance.uniform(0.0, 2.0))
        finally:
            process.send_signal(signal.SIGKILL if number < RESTARTS - 1 else signal.SIGSTOP)
            if number == RESTARTS - 1:  # the last one may finish what it began
                process.send_signal(signal.SIGCONT)
                time.sleep(2.5)
                process.kill()
            process.wait(10)
            assert process.stdout is not None
            process.stdout.close()
        for decision in Ledger(StateDirectory(state)).decisions("M"):
            known = decided.setdefault(rfc3339(decision.due), decision)
            assert (known.outcome, known.first_due) == (decision.outcome, decision.first_due)
    names = {path.name for path in runs.iterdir()}
    assert not [name for name in names if name.startswith("twice")]
    runs_decided = {due for due, decision in decided.items() if decision.outcome.runs}
    assert names <= runs_decided
    assert len(runs_decided - names) <= 1  # the very last may have been cut off again
    assert {d.outcome for d in decided.values()} <= {
        SlotOutcome.FIRED,
        SlotOutcome.COALESCED,
        SlotOutcome.SKIPPED_OVERLAP,
    }
    covered = sorted((d.first_due, d.due) for d in decided.values())
    assert all(before[1] < after[0] for before, after in pairwise(covered))
