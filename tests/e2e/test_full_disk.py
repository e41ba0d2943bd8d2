"""A disk that fills up under a running daemon, a real one, and then has room again (spec/state.md 11)."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reqon.values import decode
from tests.support.alert_target import AlertTarget, alert_target
from tests.support.daemon_process import DaemonProcess
from tests.support.peers import needs
from tests.support.processes import reqon

ITEMS = ", ".join(f"{{ id: {number} }}" for number in range(2000))
MISSIONS = f"""
mission Filling {{
  schedule: every 10 hours
  store out: file("out")
  let items = [{ITEMS}]
  let text = "{"0123456789" * 100}"
  action Fill {{
    for item in items checkpoint every 5 {{ store {{ id: item.id, text: text }} -> out {{ key: .id }} }}
  }}
  run Fill
}}
mission Small {{
  schedule: every 10 hours
  action Load {{ let x = 1 }}
  run Load
}}
"""


@pytest.fixture
async def receiver() -> AsyncIterator[AlertTarget]:
    async with alert_target() as target:
        yield target


async def test_a_run_fails_by_name_an_alert_says_so_and_with_room_it_goes_on(
    receiver: AlertTarget, tmp_path: Path
) -> None:
    """D6, on a file system of one megabyte: the last good checkpoint is readable, the daemon stays and is degraded."""
    unshare = needs("unshare")
    if os.geteuid() != 0:
        pytest.skip("needs root: a file system of its own")
    missions, state = tmp_path / "missions", tmp_path / "state"
    missions.mkdir()
    state.mkdir(mode=0o700)
    (missions / "m.vague").write_text(MISSIONS)
    script = 'mount -t tmpfs -o size=1m,mode=700 none "$0" && exec "$@"'
    within = [unshare, "--mount", "sh", "-c", script, str(state)]

    def live() -> None:
        with DaemonProcess(missions, state, within=within, alert_on_failure=True, alert_urls=receiver.url) as daemon:
            daemon.ready()
            inside = Path(f"/proc/{daemon.process.pid}/root{state}")
            daemon.state = inside  # where its socket is
            daemon.ask("trigger", mission="Filling")
            ended = daemon.said("run ended", mission="Filling", outcome="failure")
            assert "No space left on device" in json.dumps(ended), ended
            daemon.said("alert delivered")
            _, health = daemon.get("/health")
            told = decode(health)
            assert told["status"] == "degraded"
            assert "what Filling did could not be written down: see the log" in told["degraded"]
            (path,) = (inside / "execution").glob("Filling-*.json")
            assert decode(path.read_bytes())["mission"] == "Filling", "still a record"
            shown = reqon("status", "Filling", "--json", "--state-dir", inside, cwd=tmp_path).json
            assert shown["status"] in ("failed", "interrupted")  # the disk may have taken its end, or not
            assert shown["activeStep"]["index"] > 0
            more = ["nsenter", "--mount", "--target", str(daemon.process.pid)]
            subprocess.run([*more, "mount", "-o", "remount,size=64m", str(state)], check=True)
            daemon.ask("trigger", mission="Small")
            daemon.said("run ended", mission="Small", outcome="success")
            daemon.ask("trigger", mission="Filling")
            daemon.said("run ended", mission="Filling", outcome="success")
            assert len(decode((inside / "stores" / "out.json").read_bytes())) == 2000
            assert "written down" not in daemon.get("/health")[1].decode()
            assert daemon.process.poll() is None
            daemon.signal()
            assert daemon.wait() == 0

    await asyncio.to_thread(live)
    firing, *_ = [one for one in receiver.taken if one.body["alerts"][0]["labels"]["mission"] == "Filling"]
    assert firing.body["status"] == "firing"
    assert "No space left on device" in json.dumps(firing.body)
