"""Health: what is asked of it, and by whom."""

import asyncio
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from reqon.clock import SYSTEM
from reqon.events import Emitted, EventBus, MissionFailed, MissionStarted
from reqon.state.ids import new_execution_id
from reqon.values import decode
from reqon_daemon.health import TICK_LIMIT_SECONDS, Health
from reqon_daemon.heartbeat import Heartbeat, run_id
from reqon_daemon.sdnotify import Systemd
from tests.support.alert_target import alert_target
from tests.support.clocks import FakeClock


def _health(clock: FakeClock) -> Health:
    return Health(clock, lock_held=lambda: True)


def test_health_has_the_documented_shape() -> None:
    clock = FakeClock()
    health = _health(clock)
    health.missions_loaded = 3
    clock.advance(3600)
    page = health.routes()["/health"]({})
    assert decode(page.body) == {"status": "ok", "uptime": 3600, "missionsLoaded": 3}
    assert page.status == 200


def test_what_is_wrong_is_said_and_forgotten_when_it_is_mended() -> None:
    health = _health(FakeClock())
    health.concern("load", ("b.vague cannot be loaded",))
    health.concern("state", ("the disk is nearly full",))
    said = decode(health.routes()["/healthz"]({}).body)
    assert said["status"] == "degraded"
    assert said["degraded"] == ["b.vague cannot be loaded", "the disk is nearly full"]
    health.concern("load")
    health.concern("state")
    assert "degraded" not in decode(health.routes()["/health"]({}).body)


def test_a_scheduler_that_stopped_ticking_is_not_alive() -> None:
    """K2 in part: a wedged scheduler."""
    clock = FakeClock()
    health = _health(clock)
    live = health.routes()["/livez"]
    assert live({}).status == 200
    clock.advance(TICK_LIMIT_SECONDS + 1)
    assert live({}).status == 503
    health.ticked()
    assert live({}).status == 200


def test_a_lost_lock_is_not_alive() -> None:
    health = Health(FakeClock(), lock_held=lambda: False)
    assert health.routes()["/-/healthy"]({}).status == 503
    health.phase = "ready"
    said = decode(health.routes()["/health"]({}).body)
    assert said["status"] == "degraded" and "restart" in said["degraded"][0]


def test_only_a_ready_daemon_is_ready() -> None:
    health = _health(FakeClock())
    for phase, status in (("loading", 503), ("recovering", 503), ("ready", 200), ("draining", 503)):
        health.phase = phase
        assert health.routes()["/readyz"]({}).status == status
        assert health.routes()["/-/ready"]({}).status == status


async def test_pings_tell_of_runs_and_of_the_daemon() -> None:
    async with alert_target() as target:
        health = Health(lock_held=lambda: True)
        heartbeat = Heartbeat(f"{target.url}/ping/{{mission}}?key=k", health)
        bus = EventBus()
        heartbeat.listen(bus)
        at = SYSTEM.now()
        execution = new_execution_id(at)
        started = MissionStarted(stage_count=1, is_resume=False, trigger="schedule")
        totals = {"stages_completed": 0, "error_count": 1, "items_processed": 0, "duration_seconds": 1.0}
        failed = MissionFailed(status="failed", error="x", error_type="http", **totals)  # type: ignore[arg-type]
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(heartbeat.run())
            bus.emit(Emitted(started, 1, execution, "A/B", at))
            bus.emit(Emitted(failed, 2, execution, "A/B", at))
            await target.count(3)
            await heartbeat.flush(5)  # at the end of a daemon: what its last runs said goes out
            bus.emit(Emitted(started, 1, execution, "A/B", at))
            await heartbeat.flush(30)
            assert len(target.taken) == 4
            target.hold = asyncio.Event()
            bus.emit(Emitted(failed, 2, execution, "A/B", at))
            await heartbeat.flush(0.05)
            running.cancel()
        paths = [one.path for one in target.taken]
        assert paths[:4] == ["/ping/A/B/start", "/ping/A/B/fail", "/ping/daemon", "/ping/A/B/start"]
        assert heartbeat.address("A", "/start", run_id(execution)).endswith(f"?key=k&rid={run_id(execution)}")


def test_an_execution_has_a_uuid_of_its_own() -> None:
    first, second = (run_id(new_execution_id(SYSTEM.now())) for _ in range(2))
    assert first is not None
    assert first != second
    assert run_id("exec_not-ours") is None


def test_systemd_is_told_in_its_words() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
            supervisor.bind(str(path))
            supervisor.settimeout(5)
            environ = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}
            systemd = Systemd.from_environment(environ, pid=7)
            assert systemd.watchdog_seconds == 15
            systemd.ready("3 missions")
            assert supervisor.recv(4096) == b"READY=1\nSTATUS=3 missions"
            systemd.alive()
            assert supervisor.recv(4096) == b"WATCHDOG=1"
            systemd.stopping(within_seconds=29)
            assert supervisor.recv(4096) == b"STOPPING=1\nSTATUS=draining"
            assert supervisor.recv(4096) == b"EXTEND_TIMEOUT_USEC=29000000"
            systemd.reloading()
            assert supervisor.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")


def test_nobody_is_told_when_nobody_asked() -> None:
    Systemd.from_environment({}).ready("x")
    Systemd.from_environment({"NOTIFY_SOCKET": "/nowhere/at/all"}).ready("x")
    assert Systemd.from_environment({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}, pid=2).watchdog_seconds is None


def test_the_observing_half_imports_no_http_client() -> None:
    code = "import reqon_daemon.alerts, reqon_daemon.exposition, sys; sys.exit('aiohttp' in sys.modules)"
    root = Path(__file__).parents[2]
    path = f"{root}:{root / 'daemon'}"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, check=False).returncode == 0
