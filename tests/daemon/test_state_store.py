"""The daemon finds what it must take up again in every state store."""

import signal
from pathlib import Path

from reqon.state.choice import StateStores
from reqon.state.directory import StateDirectory
from reqon.state.records import ExecutionStatus
from tests.support.daemon_process import DaemonProcess
from tests.support.orders_api import OrdersApi
from tests.support.processes import soon

MISSION = """
mission Visits {
  schedule: every 1 hour { runImmediately: true }
  stateStore: sqlite
  source Shop { auth: none, base: "SHOP_URL" }
  store customers: file("customers")
  action List { get "/customers" { params: { per_page: 40 } } }
  action Visit {
    for customer in response.customers {
      get "/customers/{customer.id}"
      store response -> customers { key: .id }
    }
  }
  run List then Visit
}
"""


def test_a_killed_daemon_resumes_a_mission_whose_state_lies_in_sqlite(tmp_path: Path) -> None:
    missions, state = tmp_path / "missions", tmp_path / "state"
    missions.mkdir()
    with OrdersApi(customers=40) as api:
        (missions / "visits.vague").write_text(MISSION.replace("SHOP_URL", api.url))
        api.hold("/customers/", at=20)
        with DaemonProcess(missions, state) as daemon:
            assert api.reached.wait(30)
            daemon.signal(signal.SIGKILL)
            daemon.wait()
        api.release()
        backend = StateStores(StateDirectory(state))
        with DaemonProcess(missions, state) as daemon:
            daemon.said("resuming", mission="Visits")
            soon(lambda: backend.list("Visits", status=ExecutionStatus.COMPLETED), "completed")
        backend.close()
        visited = [r["path"] for r in api.requests("/customers/")]
        assert len(visited) == 41
        assert len(set(visited)) == 40
        assert list((state / "execution").iterdir()) == []
