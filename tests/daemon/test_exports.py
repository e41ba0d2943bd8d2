"""Rules and dashboard: metrics that exist, files in deploy/ that are what the code writes, rules that are tested."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from reqon.errors import ConfigurationError, SemanticError
from reqon.values import decode
from reqon_daemon.dashboard import QUERIES, ROWS, grafana_dashboard
from reqon_daemon.exports import export
from reqon_daemon.metrics import Metrics, metric_names
from reqon_daemon.rules import CRITICAL, MISSING, RULES, prometheus_rules
from tests.support.peers import needs

ROOT = Path(__file__).parents[2]
NAMES = metric_names(Metrics())
OTHERS = ("up", "process_resident_memory_bytes", "process_cpu_seconds_total")


def _known(expression: str) -> None:
    named = set(re.findall(r"\b(?:reqon|process)_[a-z_]+|\bup\b", expression))
    assert named, expression
    for name in named:
        assert re.sub(r"_(bucket|count|sum)$", "", name) in {*NAMES, *OTHERS}, name


def test_every_rule_reads_metrics_that_exist() -> None:
    for rule in RULES:
        _known(rule.expression)
    assert {rule.name for rule in RULES if rule.severity == CRITICAL} == {
        "ReqonMissionStale",
        "ReqonStalled",
        "ReqonAbsent",
    }


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("prometheus/rules.yml", lambda: prometheus_rules().encode()),
        ("grafana/dashboards/reqon.json", grafana_dashboard),
    ],
    ids=["rules", "dashboard"],
)
def test_deploy_has_what_export_writes(name: str, made: Callable[[], bytes], update_golden: bool) -> None:
    path = ROOT / "deploy" / name
    if update_golden:
        path.write_bytes(made())
    assert path.read_bytes() == made(), "pytest --update-golden writes it anew"


def test_each_rule_is_seen_to_fire_in_a_unit_test() -> None:
    """`promtool test rules` runs them, in tests/test_docs.py."""
    read = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules_test.yml").read_text())
    fired = {case["alertname"] for test in read["tests"] for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {rule.name for rule in RULES}


def test_each_rule_and_alert_has_its_section_in_the_runbook() -> None:
    from reqon_daemon.incidents import Kind  # noqa: PLC0415

    sections = set(re.findall(r"^#+ (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE))
    own = {kind.alert_name for kind in Kind}
    assert sections >= {rule.name for rule in (*RULES, MISSING)} | own
    for rule in yaml.safe_load(prometheus_rules(["M"]))["groups"][-1]["rules"]:
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md{MISSING.anchor}"


ODD = ["Plain", "it's", 'A"x', "{{ x }}", "back\\slash", "Ünïcode"]


def test_rules_for_odd_names_are_yaml_that_says_what_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(prometheus_rules(ODD, job="my job", runbook="https://wiki.example.com/reqon"))
    groups = yaml.safe_load(file.read_text())["groups"]
    missing = groups[-1]["rules"]
    assert len(missing) == len(ODD)
    assert all(rule["annotations"]["runbook_url"].startswith("https://wiki.example.com/reqon#") for rule in missing)
    assert groups[0]["rules"][0]["expr"] == 'up{job="my job"} == 0 or absent(up{job="my job"})'
    checked = subprocess.run([needs("promtool"), "check", "rules", str(file)], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_mission_that_is_loaded_nowhere_pages(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(prometheus_rules(["There", "Gone"]))
    case = {
        "interval": "1m",
        "input_series": [{"series": 'reqon_mission_info{mission="There"}', "values": "1x60"}],
        "alert_rule_test": [
            {
                "eval_time": "20m",
                "alertname": MISSING.name,
                "exp_alerts": [
                    {
                        "exp_labels": {"severity": "critical", "mission": "Gone"},
                        "exp_annotations": {
                            "summary": "No daemon has the mission Gone loaded",
                            "description": MISSING.description,
                            "runbook_url": f"docs/runbook.md{MISSING.anchor}",
                        },
                    }
                ],
            }
        ],
    }
    test = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    tested = subprocess.run(
        [needs("promtool"), "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, check=False
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_the_dashboard_is_json_and_reads_metrics_that_exist() -> None:
    board = decode(grafana_dashboard())
    assert len({panel["id"] for panel in board["panels"]}) == len(ROWS) + sum(len(panels) for _, panels in ROWS)
    for query in QUERIES:
        _known(query)
    places = [panel["gridPos"] for panel in board["panels"]]
    for at, one in enumerate(places):
        for other in places[at + 1 :]:
            apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            assert apart or one["y"] + one["h"] <= other["y"], "two panels lie on each other"


def test_the_dashboard_offers_the_missions_that_are_named() -> None:
    chosen = decode(grafana_dashboard(["B", "A"]))["templating"]["list"][-1]
    assert (chosen["type"], chosen["query"]) == ("custom", "A,B")


def test_export_speaks_of_the_missions_of_its_paths(tmp_path: Path) -> None:
    (tmp_path / "m.vague").write_text("mission M { action A { let x = 1 } run A }")
    assert 'mission="M"' in export("prometheus-rules", [tmp_path])
    assert '"query": "M"' in export("grafana", [tmp_path])
    with pytest.raises(ConfigurationError, match="cannot be exported") as refused:
        export("grafna", [])
    assert "did you mean 'grafana'?" in str(refused.value.hint)
    (tmp_path / "m.vague").write_text("mission M {")
    with pytest.raises(SemanticError):
        export("grafana", [tmp_path])
