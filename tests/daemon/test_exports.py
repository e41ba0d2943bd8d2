"""Rules and dashboard speak of metrics that exist."""

import re

from reqon.values import decode
from reqon_daemon.exports import PAGE, PANELS, RULES, grafana_dashboard, prometheus_rules
from reqon_daemon.metrics import Metrics, metric_names

NAMES = metric_names(Metrics())


def _known(expression: str) -> None:
    named = set(re.findall(r"\breqon_[a-z_]+", expression))
    assert named
    for name in named:
        assert re.sub(r"_(bucket|count|sum)$", "", name) in NAMES, name


def test_every_rule_reads_metrics_that_exist() -> None:
    for rule in RULES:
        _known(rule.expression)
        assert rule.expression.count("(") == rule.expression.count(")")
    assert {rule.name for rule in RULES if rule.severity == PAGE} == {
        "ReqonMissionStale",
        "ReqonSchedulerStalled",
        "ReqonAbsent",
    }


def test_the_rules_file_names_the_loaded_missions() -> None:
    text = prometheus_rules(["B", 'A"x'])
    assert text.startswith("groups:\n  - name: reqon\n    rules:\n      - alert: ")
    assert text.count("- alert: ") == len(RULES) + 2
    assert r'expr: "absent(reqon_mission_info{mission=\"B\"})"' in text
    assert all(line.isprintable() for line in text.splitlines())


def test_the_dashboard_is_json_and_reads_metrics_that_exist() -> None:
    board = decode(grafana_dashboard())
    assert len(board["panels"]) == len(PANELS)
    for panel in board["panels"]:
        for target in panel["targets"]:
            _known(target["expr"])
    assert len({panel["id"] for panel in board["panels"]}) == len(PANELS)
