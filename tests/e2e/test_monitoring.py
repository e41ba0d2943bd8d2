"""The daemon among the programs that watch it: Prometheus, Alertmanager, and whoever is called in the end."""

import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from reqon_daemon.dashboard import QUERIES
from tests.support.monitoring import Alertmanager, Prometheus
from tests.support.orders_api import OrdersApi
from tests.support.peers import needs
from tests.support.processes import ROOT, Process, soon

MISSION = """
mission Orders {{
  schedule: every 1 second {{ runImmediately: true }}
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 2, initialDelay: 10 }} }}
  store orders: memory("orders")
  action Load {{
    get "/orders" {{ params: {{ limit: 20 }} }}
    store response.orders -> orders {{ key: .id }}
  }}
  run Load
}}
"""
SECONDS = 60  # until something comes of it, on a machine that is busy


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=5, orders=20) as running:
        yield running


def at_once(rules: str) -> str:
    """The rules of deploy/, each a second after its condition holds: nobody wants to wait for five minutes here."""
    read = yaml.safe_load(rules)
    for group in read["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = "1s"
    return yaml.safe_dump(read)


def notices(api: OrdersApi, name: str, status: str) -> list[dict[str, Any]]:
    """What Alertmanager's receiver was told about an alert."""
    return [
        alert
        for body in api.alerts()
        for alert in body["alerts"]
        if alert["labels"]["alertname"] == name and alert["status"] == status
    ]


def test_a_failing_mission_reaches_the_receiver_by_two_ways_and_recovery_ends_both(
    api: OrdersApi, tmp_path: Path
) -> None:
    """A rule of deploy/ over what Prometheus scrapes, and the daemon's own alert; the dashboard has data meanwhile."""
    (tmp_path / "missions").mkdir()
    (tmp_path / "missions" / "orders.vague").write_text(MISSION.format(url=api.url))
    rules = (ROOT / "deploy" / "prometheus" / "rules.yml").read_text()
    with Alertmanager(tmp_path / "alertmanager", f"{api.url}/_alerts") as alertmanager:
        told = f"alertmanager+{alertmanager.url}"
        options = ["missions", "--daemon", "--metrics-port", 0, "--alert-on-failure", "--alert-url", told]
        with Process(options, cwd=tmp_path) as daemon:
            daemon.said('"message":"ready"')
            scraped = _metrics_address(daemon)
            with Prometheus(
                tmp_path / "prometheus",
                scrapes=scraped,
                rules=at_once(rules),
                alertmanager=f"127.0.0.1:{alertmanager.port}",
            ) as prometheus:
                soon(
                    lambda: prometheus.query('reqon_mission_runs_total{status="success"} > 1'),
                    "a scrape",
                    seconds=SECONDS,
                )
                assert not api.alerts()
                api.fail(500, "/orders", times=10**6)
                for name in ("ReqonMissionFailing", "ReqonMissionFailed"):
                    soon(partial(notices, api, name, "firing"), f"{name} at the receiver", seconds=SECONDS)
                (rule,) = notices(api, "ReqonMissionFailing", "firing")[:1]
                (own,) = notices(api, "ReqonMissionFailed", "firing")[:1]
                assert rule["labels"]["mission"] == own["labels"]["mission"] == "Orders"
                assert rule["annotations"]["runbook_url"] == "docs/runbook.md#reqonmissionfailing"
                assert "--resume" in own["annotations"]["resume"]
                _amtool_shows(alertmanager, {"ReqonMissionFailing", "ReqonMissionFailed"})
                for query in QUERIES:
                    soon(partial(prometheus.query, _filled(query)), query, seconds=SECONDS)
                _promtool_likes(scraped)
                api.heal()
                for name in ("ReqonMissionFailing", "ReqonMissionFailed"):
                    soon(partial(notices, api, name, "resolved"), f"{name} resolved", seconds=SECONDS)
                assert len({n["startsAt"] for n in notices(api, "ReqonMissionFailed", "firing")}) == 1
                soon(lambda: not _active(alertmanager), "nothing fires any more", seconds=SECONDS)


def _metrics_address(daemon: Process) -> str:
    line = next(line for line in daemon.err.splitlines() if '"purpose":"metrics"' in line)
    return line.partition('"url":"http://')[2].partition('"')[0]


def _active(alertmanager: Alertmanager) -> set[str]:
    return {alert["labels"]["alertname"] for alert in alertmanager.alerts()}


def _amtool_shows(alertmanager: Alertmanager, names: set[str]) -> None:
    command = [needs("amtool"), f"--alertmanager.url={alertmanager.url}", "alert", "query"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert all(name in shown for name in names), shown


def _promtool_likes(address: str) -> None:
    with urlopen(f"http://{address}/metrics", timeout=30) as answer:
        text = answer.read()
    checked = subprocess.run(
        [needs("promtool"), "check", "metrics"], input=text, capture_output=True, check=False, timeout=60
    )
    # The seed's names stay as they are, whatever its naming rules say.
    complaints = [line for line in checked.stderr.decode().splitlines() if line.startswith("reqon_")]
    assert checked.returncode in (0, 3), checked.stderr
    assert complaints == [], complaints


def _filled(query: str) -> str:
    """The query as Grafana asks it, with a rate interval that suits a scrape each second."""
    return query.replace("$job", "reqon").replace("$mission", ".*").replace("$__rate_interval", "20s")
