"""Prometheus rules and a Grafana dashboard over our metrics, as texts (spec/daemon.md 4).

A page for what nobody may sleep through: a stale mission, a daemon that is stalled or gone. A ticket for the rest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from reqon.values import Record, encode

PAGE = "page"
TICKET = "ticket"

_FRESH = (
    "(reqon_mission_last_success_timestamp_seconds > reqon_mission_registered_timestamp_seconds"
    " or reqon_mission_registered_timestamp_seconds)"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One alerting rule. `lasting` is how long it must hold, in Prometheus' form."""

    name: str
    expression: str
    lasting: str
    severity: str
    summary: str


RULES = (
    Rule(
        "ReqonMissionStale",
        f"time() - {_FRESH} > reqon_mission_freshness_limit_seconds and reqon_mission_paused == 0",
        "2m",
        PAGE,
        "{{ $labels.mission }} has not succeeded within its freshness limit",
    ),
    Rule(
        "ReqonSchedulerStalled",
        "time() - reqon_scheduler_last_tick_timestamp_seconds > 60",
        "1m",
        PAGE,
        "the scheduler of {{ $labels.instance }} no longer ticks",
    ),
    Rule("ReqonAbsent", "absent(reqon_build_info)", "5m", PAGE, "no Reqon daemon is scraped"),
    Rule(
        "ReqonMissionFailing",
        "reqon_mission_last_run_success == 0",
        "5m",
        TICKET,
        "the last run of {{ $labels.mission }} failed",
    ),
    Rule(
        "ReqonMissionStuck",
        "reqon_mission_running > 0 and time() - reqon_mission_last_progress_timestamp_seconds > 1800",
        "5m",
        TICKET,
        "{{ $labels.mission }} runs, but nothing was finished for half an hour",
    ),
    Rule(
        "ReqonSlotsMissed",
        'increase(reqon_schedule_slots_total{outcome="missed"}[1h]) > 0',
        "0m",
        TICKET,
        "{{ $labels.mission }} did not run when it was due",
    ),
    Rule(
        "ReqonMissionsInvalid",
        'reqon_missions_loaded{state="invalid"} > 0',
        "10m",
        TICKET,
        "{{ $value }} mission files cannot be loaded; their last good versions run",
    ),
    Rule(
        "ReqonCircuitOpen",
        'reqon_circuit_breaker_state{state="open"} == 1',
        "10m",
        TICKET,
        "the circuit breaker of {{ $labels.source }} stays open",
    ),
    Rule(
        "ReqonTokenExpired",
        "time() > reqon_oauth_token_expiry_timestamp_seconds and reqon_oauth_token_expiry_timestamp_seconds > 0",
        "1h",
        TICKET,
        "the access token of {{ $labels.source }} has expired and was not renewed",
    ),
    Rule(
        "ReqonAlertsPending",
        "reqon_alerts_pending > 0",
        "15m",
        TICKET,
        "alerts to {{ $labels.target }} are not delivered",
    ),
    Rule(
        "ReqonStateNotWritten",
        "increase(reqon_state_write_errors_total[15m]) > 0",
        "0m",
        TICKET,
        "state could not be written on {{ $labels.instance }}",
    ),
    Rule(
        "ReqonInternalErrors",
        "increase(reqon_internal_errors_total[1h]) > 0",
        "0m",
        TICKET,
        "Reqon has a fault of its own on {{ $labels.instance }}; its log has the traceback",
    ),
)


def prometheus_rules(missions: Iterable[str] = ()) -> str:
    """A rules file for Prometheus; with a rule that pages when one of these missions is no longer loaded."""
    missing = [
        Rule(
            "ReqonMissionMissing",
            f"absent(reqon_mission_info{{mission={_text(name)}}})",
            "15m",
            PAGE,
            f"the mission {name} is not loaded anywhere",
        )
        for name in sorted(missions)
    ]
    lines = ["groups:", "  - name: reqon", "    rules:"]
    for rule in (*RULES, *missing):
        lines += [
            f"      - alert: {rule.name}",
            f"        expr: {_text(rule.expression)}",
            f"        for: {rule.lasting}",
            "        labels:",
            f"          severity: {rule.severity}",
            "        annotations:",
            f"          summary: {_text(rule.summary)}",
        ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph: its queries with their legends, and the unit of its axis as Grafana calls it."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = field(default="timeseries", kw_only=True)


_REQUESTS = "reqon_http_request_duration_seconds_bucket"
_MINE = '{mission=~"$mission"}'
PANELS = (
    Panel("Last run", [(f"reqon_mission_last_run_success{_MINE}", "{{mission}}")], kind="stat"),
    Panel(
        "Age of the last success",
        [(f"time() - (reqon_mission_last_success_timestamp_seconds{_MINE} > 0)", "{{mission}}")],
        "s",
    ),
    Panel("Next run in", [(f"(reqon_mission_next_run_timestamp_seconds{_MINE} > 0) - time()", "{{mission}}")], "s"),
    Panel("Duration", [(f"reqon_execution_duration_seconds{_MINE}", "{{mission}}")], "s"),
    Panel("Items", [(f"reqon_execution_items_processed{_MINE}", "{{mission}}")]),
    Panel("Errors", [(f"increase(reqon_execution_errors_total{_MINE}[$__rate_interval])", "{{mission}}")]),
    Panel("Running and queued", [("sum(reqon_mission_running)", "running"), ("reqon_executions_queued", "queued")]),
    Panel(
        "Start lateness, 99 %",
        [("histogram_quantile(0.99, sum by (le) (rate(reqon_schedule_lag_seconds_bucket[$__rate_interval])))", "p99")],
        "s",
    ),
    Panel(
        "Requests by answer",
        [("sum by (source, code) (rate(reqon_http_requests_total[$__rate_interval]))", "{{source}} {{code}}")],
        "reqps",
    ),
    Panel(
        "Request duration, 95 %",
        [
            (
                f"histogram_quantile(0.95, sum by (source, le) (rate({_REQUESTS}[$__rate_interval])))",
                "{{source}}",
            )
        ],
        "s",
    ),
    Panel(
        "Items by outcome",
        [(f"sum by (outcome) (rate(reqon_items_total{_MINE}[$__rate_interval]))", "{{outcome}}")],
    ),
    Panel(
        "Slots", [(f"sum by (outcome) (increase(reqon_schedule_slots_total{_MINE}[$__rate_interval]))", "{{outcome}}")]
    ),
    Panel("Incidents", [(f"reqon_alert_active{_MINE} == 1", "{{mission}} {{kind}}")]),
    Panel("State", [("reqon_state_bytes", "{{instance}}")], "bytes"),
)


def grafana_dashboard() -> bytes:
    """A dashboard to import, as JSON; it asks for the data source and offers a choice of missions."""
    datasource = {"type": "prometheus", "uid": "${datasource}"}
    panels = [
        {
            "id": number,
            "type": panel.kind,
            "title": panel.title,
            "datasource": datasource,
            "gridPos": {"h": 8, "w": 12, "x": 12 * ((number - 1) % 2), "y": 8 * ((number - 1) // 2)},
            "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
            "targets": [
                {"refId": chr(ord("A") + at), "expr": query, "legendFormat": legend, "datasource": datasource}
                for at, (query, legend) in enumerate(panel.queries)
            ],
        }
        for number, panel in enumerate(PANELS, 1)
    ]
    choose_source: Record = {"name": "datasource", "type": "datasource", "query": "prometheus"}
    choose_mission: Record = {
        "name": "mission",
        "type": "query",
        "datasource": datasource,
        "query": "label_values(reqon_mission_info, mission)",
        "includeAll": True,
        "multi": True,
        "refresh": 2,
    }
    board = {
        "title": "Reqon",
        "uid": "reqon",
        "schemaVersion": 39,
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": [choose_source, choose_mission]},
        "panels": panels,
    }
    return encode(board, pretty=True) + b"\n"


def _text(text: str) -> str:
    """A text as YAML, and PromQL, take it: JSON's form."""
    return encode(text).decode()
