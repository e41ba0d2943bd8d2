"""A Grafana dashboard over our metrics (spec/daemon.md 4). `deploy/grafana/dashboards/reqon.json` is made from this."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from reqon.values import Record, Value, encode

WIDTH = 24
_SOURCE: Record = {"type": "prometheus", "uid": "${datasource}"}
_JOB = 'job="$job"'
_MINE = f'{_JOB},mission=~"$mission"'
_STALE = (
    f"count((time() - (reqon_mission_last_success_timestamp_seconds{{{_MINE}}} > 0"
    f" or reqon_mission_registered_timestamp_seconds{{{_MINE}}}) > reqon_mission_freshness_limit_seconds{{{_MINE}}})"
    f" unless reqon_mission_paused{{{_MINE}}} == 1) or vector(0)"
)


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of Prometheus. `legend` names a line of a graph, `column` a column of a table."""

    expression: str
    legend: str = ""
    column: str = field(default="", kw_only=True)
    unit: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph, `bars`, number (`stat`) or table. `colours` are (colour, from which value on), lowest first."""

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = field(default="timeseries", kw_only=True)
    about: str = field(default="", kw_only=True)
    bars: bool = field(default=False, kw_only=True)
    width: int = field(default=12, kw_only=True)
    height: int = field(default=8, kw_only=True)
    colours: Sequence[tuple[str, float]] = field(default=(), kw_only=True)


def _stat(title: str, expression: str, about: str, *colours: tuple[str, float], unit: str = "short") -> Panel:
    return Panel(title, [Query(expression)], unit, kind="stat", about=about, width=4, height=4, colours=colours)


def _third(title: str, queries: Sequence[Query], unit: str = "short") -> Panel:
    return Panel(title, queries, unit, width=8)


ROWS: Sequence[tuple[str, Sequence[Panel]]] = (
    (
        "Now",
        (
            _stat("Daemons up", f"sum(up{{{_JOB}}})", "Reqon processes that answer.", ("red", 0), ("green", 1)),
            _stat(
                "Scheduler's last look at the clock",
                f"max(time() - reqon_scheduler_last_tick_timestamp_seconds{{{_JOB}}})",
                "Above 60 s it stands still.",
                ("green", 0),
                ("orange", 10),
                ("red", 60),
                unit="s",
            ),
            _stat(
                "Stale missions",
                _STALE,
                "Not succeeded within their freshness limit, not paused.",
                ("green", 0),
                ("red", 1),
            ),
            _stat(
                "Failing missions",
                f"count(reqon_mission_consecutive_failures{{{_MINE}}} > 0) or vector(0)",
                "Their last run failed.",
                ("green", 0),
                ("orange", 1),
            ),
            _stat(
                "Files with mistakes",
                f'sum(reqon_missions_loaded{{{_JOB},state="invalid"}})',
                "Their last good version stays scheduled.",
                ("green", 0),
                ("orange", 1),
            ),
            _stat(
                "Alerts that wait",
                f"sum(reqon_alerts_pending{{{_JOB}}}) or vector(0)",
                "Not yet taken by their target.",
                ("green", 0),
                ("orange", 1),
            ),
            Panel(
                "Missions",
                [
                    Query(
                        f"time() - (reqon_mission_last_success_timestamp_seconds{{{_MINE}}} > 0)",
                        column="Last success",
                        unit="s",
                    ),
                    Query(
                        f"(reqon_mission_next_run_timestamp_seconds{{{_MINE}}} > 0) - time()",
                        column="Next run in",
                        unit="s",
                    ),
                    Query(f"reqon_execution_duration_seconds{{{_MINE}}}", column="Last duration", unit="s"),
                    Query(f"reqon_execution_items_processed{{{_MINE}}}", column="Items"),
                    Query(f"reqon_mission_consecutive_failures{{{_MINE}}}", column="Failures in a row"),
                    Query(f"reqon_mission_running{{{_MINE}}}", column="Running"),
                ],
                kind="table",
                about="One line a mission.",
                width=WIDTH,
            ),
        ),
    ),
    (
        "Runs",
        (
            Panel(
                "Finished runs",
                [
                    Query(
                        f"sum by (status) (increase(reqon_mission_runs_total{{{_MINE}}}[$__rate_interval]))",
                        "{{status}}",
                    )
                ],
                bars=True,
            ),
            Panel(
                "Duration, 90th percentile",
                [
                    Query(
                        "histogram_quantile(0.9, sum by (mission, le)"
                        f" (rate(reqon_mission_duration_seconds_bucket{{{_MINE}}}[$__rate_interval])))",
                        "{{mission}}",
                    )
                ],
                "s",
            ),
            Panel(
                "Items",
                [Query(f"sum by (outcome) (rate(reqon_items_total{{{_MINE}}}[$__rate_interval]))", "{{outcome}}")],
                "ops",
                about="What became of items, each second.",
            ),
            Panel(
                "Errors",
                [
                    Query(
                        f"sum by (mission) (increase(reqon_execution_errors_total{{{_MINE}}}[$__rate_interval]))",
                        "{{mission}}",
                    )
                ],
                bars=True,
            ),
            Panel(
                "Due times",
                [
                    Query(
                        f"sum by (outcome) (increase(reqon_schedule_slots_total{{{_MINE}}}[$__rate_interval]))",
                        "{{outcome}}",
                    )
                ],
                about="What was decided about each.",
                bars=True,
            ),
            Panel("Open alerts", [Query(f"sum by (kind) (reqon_alert_active{{{_MINE}}})", "{{kind}}")]),
            Panel(
                "Start lateness, 99th percentile",
                [
                    Query(
                        "histogram_quantile(0.99, sum by (le)"
                        f" (rate(reqon_schedule_lag_seconds_bucket{{{_JOB}}}[$__rate_interval])))",
                        "lateness",
                    )
                ],
                "s",
            ),
            Panel(
                "Running and queued",
                [
                    Query(f"sum(reqon_mission_running{{{_JOB}}})", "running"),
                    Query(f"sum(reqon_executions_queued{{{_JOB}}})", "queued"),
                ],
            ),
        ),
    ),
    (
        "APIs",
        (
            _third(
                "Answers",
                [
                    Query(
                        f"sum by (source, code) (rate(reqon_http_requests_total{{{_JOB}}}[$__rate_interval]))",
                        "{{source}} {{code}}",
                    )
                ],
                "reqps",
            ),
            _third(
                "Answer time, 90th percentile",
                [
                    Query(
                        "histogram_quantile(0.9, sum by (source, le)"
                        f" (rate(reqon_http_request_duration_seconds_bucket{{{_JOB}}}[$__rate_interval])))",
                        "{{source}}",
                    )
                ],
                "s",
            ),
            _third(
                "Retries and waits for limits",
                [
                    Query(
                        f"sum by (source, reason) (rate(reqon_http_retries_total{{{_JOB}}}[$__rate_interval]))",
                        "{{source}}: {{reason}}",
                    ),
                    Query(
                        f"sum by (source) (rate(reqon_rate_limit_wait_seconds_total{{{_JOB}}}[$__rate_interval]))",
                        "{{source}}: waiting, s a second",
                    ),
                ],
            ),
        ),
    ),
    (
        "The daemon",
        (
            _third("Memory", [Query(f"process_resident_memory_bytes{{{_JOB}}}", "{{instance}}")], "bytes"),
            _third(
                "Processor",
                [Query(f"rate(process_cpu_seconds_total{{{_JOB}}}[$__rate_interval])", "{{instance}}")],
                "percentunit",
            ),
            _third("State directory", [Query(f"reqon_state_bytes{{{_JOB}}}", "{{instance}}")], "bytes"),
        ),
    ),
)
QUERIES = tuple(query.expression for _, panels in ROWS for panel in panels for query in panel.queries)


def grafana_dashboard(missions: Iterable[str] = ()) -> bytes:
    """The dashboard as JSON, to import or to provision. It offers these missions, or else all that Prometheus knows."""
    panels: list[Value] = []
    top = 0
    for title, row in ROWS:
        panels.append(_row(title, len(panels) + 1, top))
        top += 1
        left = 0
        for panel in row:
            if left + panel.width > WIDTH:
                left = 0
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            panels.append(_panel(panel, len(panels) + 1, place))
            left += panel.width
            if left >= WIDTH:
                left, top = 0, top + panel.height
        top += 0 if left == 0 else row[-1].height
    board: Record = {
        "uid": "reqon",
        "title": "Reqon",
        "tags": ["reqon"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "templating": {"list": [_datasource(), _job(), _mission(sorted(missions))]},
        "panels": panels,
    }
    return encode(board, pretty=True) + b"\n"


def _row(title: str, number: int, top: int) -> Record:
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1},
        "panels": [],
    }


def _panel(panel: Panel, number: int, place: Record) -> Record:
    table = {"instant": True, "format": "table"} if panel.kind == "table" else {}
    shown: Record = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": place,
        "targets": [
            {
                "refId": _letter(at),
                "datasource": _SOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
                **table,
            }
            for at, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _units(panel)},
        "options": {},
    }
    if panel.kind == "stat":
        shown["options"] = {
            "reduceOptions": {"calcs": ["lastNotNull"]},
            "colorMode": "background",
            "graphMode": "none",
        }
    if panel.kind == "table":
        shown["transformations"] = _columns(panel)
    return shown


def _defaults(panel: Panel) -> Record:
    defaults: Record = {"unit": panel.unit}
    if panel.colours:
        # The lowest colour holds below its value too, which Grafana writes as null.
        steps = [{"color": colour, "value": value if at else None} for at, (colour, value) in enumerate(panel.colours)]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    if panel.bars:
        defaults["custom"] = {"drawStyle": "bars", "fillOpacity": 60, "stacking": {"mode": "normal"}}
    return defaults


def _columns(panel: Panel) -> list[Record]:
    """One line a mission, one column a query."""
    names = {f"Value #{_letter(at)}": query.column for at, query in enumerate(panel.queries)}
    order: Record = {
        "excludeByName": {"Time": True, "job": True, "__name__": True},
        "indexByName": {"mission": 0, "instance": 1},
        "renameByName": {"mission": "Mission", "instance": "Daemon", **names},
    }
    return [{"id": "merge", "options": {}}, {"id": "organize", "options": order}]


def _units(panel: Panel) -> list[Record]:
    return [
        {
            "matcher": {"id": "byName", "options": query.column},
            "properties": [{"id": "unit", "value": query.unit}],
        }
        for query in panel.queries
        if query.unit
    ]


def _letter(at: int) -> str:
    return chr(ord("A") + at)


def _datasource() -> Record:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": "prometheus",
        "current": {},
    }


def _job() -> Record:
    return {
        "type": "query",
        "name": "job",
        "label": "Job",
        "datasource": _SOURCE,
        "query": {"query": "label_values(reqon_build_info, job)", "refId": "job"},
        "refresh": 2,
        "sort": 1,
        "current": {},
    }


def _mission(missions: Sequence[str]) -> Record:
    chosen: Record = {
        "name": "mission",
        "label": "Mission",
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
    if missions:
        options = [{"text": name, "value": name, "selected": False} for name in missions]
        return {**chosen, "type": "custom", "allValue": None, "query": ",".join(missions), "options": options}
    asked = {"query": 'label_values(reqon_mission_info{job="$job"}, mission)', "refId": "mission"}
    return {**chosen, "type": "query", "datasource": _SOURCE, "query": asked, "refresh": 2, "sort": 1}
