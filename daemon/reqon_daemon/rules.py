"""Alerting rules for Prometheus over our metrics (spec/daemon.md 4). `deploy/prometheus/rules.yml` is made from these.

critical: somebody gets up, because data grows old or nobody is left to say so. warning: somebody looks at it in working
hours. Each rule's section in docs/runbook.md says what to do.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from reqon.values import encode

CRITICAL = "critical"
WARNING = "warning"
JOB = "reqon"
RUNBOOK = "docs/runbook.md"

_HEAD = """\
# What somebody should know about a daemon whose job in Prometheus is called `{job}`.
# Written by `reqon export prometheus-rules`; `promtool test rules rules_test.yml` tests it.
#
# critical: somebody gets up. Data grows old, or nobody is left to say so.
# warning: somebody looks at it in working hours.
#
# The daemon tells of failed runs itself (--alert-on-failure). What it cannot tell is its own end: the first two.
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """One alerting rule. `lasting` is how long it must hold, in Prometheus' form; "" fires at the first look."""

    name: str
    expression: str
    severity: str
    summary: str
    description: str = ""
    lasting: str = ""

    @property
    def anchor(self) -> str:
        """Its section in the runbook."""
        return f"#{self.name.lower()}"


DAEMON_RULES = (
    Rule(
        "ReqonAbsent",
        f'up{{job="{JOB}"}} == 0 or absent(up{{job="{JOB}"}})',
        CRITICAL,
        "Reqon does not answer on {{ with $labels.instance }}{{ . }}{{ else }}any address{{ end }}",
        "No mission runs while its daemon is away. See its log and `systemctl status reqon`.",
        lasting="2m",
    ),
    Rule(
        "ReqonStalled",
        "time() - reqon_scheduler_last_tick_timestamp_seconds > 60",
        CRITICAL,
        "The scheduler on {{ $labels.instance }} last looked at the clock {{ $value | humanizeDuration }} ago",
        "The process lives, but starts nothing. Restart it; what ran is resumed.",
        lasting="1m",
    ),
    Rule(
        "ReqonReloadFailed",
        "reqon_config_last_reload_successful == 0",
        WARNING,
        "Mission files on {{ $labels.instance }} have mistakes",
        "The last good versions stay scheduled. `reqon check` shows the mistakes, and so does /health.",
        lasting="5m",
    ),
    Rule(
        "ReqonQueueGrows",
        "min_over_time(reqon_executions_queued[15m]) > 0",
        WARNING,
        "Executions on {{ $labels.instance }} have waited for their turn for 15 minutes",
        "More is due than --max-running lets run at once.",
    ),
    Rule(
        "ReqonStartsLate",
        "histogram_quantile(0.9, sum by (instance, le) (rate(reqon_schedule_lag_seconds_bucket[30m]))) > 60",
        WARNING,
        "Runs on {{ $labels.instance }} start {{ $value | humanizeDuration }} late",
        "The machine is overloaded, or more is due than --max-running lets run at once.",
        lasting="15m",
    ),
    Rule(
        "ReqonStateNotWritten",
        "increase(reqon_state_write_errors_total[15m]) > 0",
        WARNING,
        "State on {{ $labels.instance }} could not be written",
        "Is the disk full? Runs fail until it can; the log names the file.",
    ),
    Rule(
        "ReqonStateQuarantined",
        # A series of this kind begins with its first file: an increase alone would not see it.
        "increase(reqon_state_quarantined_total[1h]) > 0"
        " or (reqon_state_quarantined_total > 0 unless reqon_state_quarantined_total offset 1h)",
        WARNING,
        "A damaged {{ $labels.kind }} file on {{ $labels.instance }} was set aside",
        "It lies in quarantine/ of the state directory.",
    ),
    Rule(
        "ReqonInternalError",
        "increase(reqon_internal_errors_total[1h]) > 0",
        WARNING,
        "A fault of Reqon itself on {{ $labels.instance }}",
        "The log has its traceback. Please report it.",
    ),
    Rule(
        "ReqonAlertsUndelivered",
        "min_over_time(reqon_alerts_pending[15m]) > 0",
        WARNING,
        "Alerts for {{ $labels.target }} have waited for 15 minutes",
        "The target does not take them. They are tried again for 72 hours.",
    ),
)

MISSION_RULES = (
    Rule(
        "ReqonMissionStale",
        # Whatever the reason is: it fails, it was not started, its run was lost. One that never succeeded counts from
        # when it was first loaded.
        "(time() - (reqon_mission_last_success_timestamp_seconds > 0 or reqon_mission_registered_timestamp_seconds)"
        " > reqon_mission_freshness_limit_seconds) unless reqon_mission_paused == 1",
        CRITICAL,
        "{{ $labels.mission }} has not succeeded for {{ $value | humanizeDuration }}",
        "`reqon why {{ $labels.mission }}` says why.",
        lasting="2m",
    ),
    Rule(
        "ReqonMissionFailing",
        "reqon_mission_consecutive_failures > 0",
        WARNING,
        "{{ $labels.mission }} failed {{ $value }} times in a row",
        "`reqon status {{ $labels.mission }}` shows the error and the command to resume.",
        lasting="5m",
    ),
    Rule(
        "ReqonMissionStuck",
        "reqon_mission_running > 0 and time() - reqon_mission_last_progress_timestamp_seconds > 900",
        WARNING,
        "{{ $labels.mission }} runs, but nothing has moved for 15 minutes",
        "`stuckAfter` on the mission ends such runs; `reqon cancel {{ $labels.mission }}` does it by hand.",
    ),
    Rule(
        "ReqonSlotsMissed",
        'increase(reqon_schedule_slots_total{outcome="missed"}[1h]) > 0',
        WARNING,
        '{{ $labels.mission }} missed {{ $value | printf "%.0f" }} of its times',
        "`reqon why {{ $labels.mission }}` says why.",
    ),
    Rule(
        "ReqonItemsSetAside",
        'increase(reqon_items_total{outcome="dead_lettered"}[1h]) > 0',
        WARNING,
        '{{ $labels.mission }} set {{ $value | printf "%.0f" }} items aside for a person',
        "Missions put them into a store of their own or into dead-letter/ of the state directory.",
    ),
    Rule(
        "ReqonPausedForLong",
        "min_over_time(reqon_mission_paused[1d]) == 1",
        WARNING,
        "{{ $labels.mission }} has been paused for a day",
        "`reqon unpause {{ $labels.mission }}` lets it run again.",
    ),
)

SOURCE_RULES = (
    Rule(
        "ReqonBreakerOpen",
        'reqon_circuit_breaker_state{state="open"} == 1',
        WARNING,
        "No requests go to {{ $labels.source }}: too many failed",
        "It is tried again by itself; `reqon why` names the missions that wait for it.",
        lasting="10m",
    ),
    Rule(
        "ReqonRateLimited",
        "rate(reqon_rate_limit_wait_seconds_total[30m]) > 0.5",
        WARNING,
        "Runs spend {{ $value | humanizePercentage }} of the time waiting for the limits of {{ $labels.source }}",
        "Run less often, or ask the API's owner for more.",
        lasting="30m",
    ),
    Rule(
        "ReqonTokenExpired",
        "time() - reqon_oauth_token_expiry_timestamp_seconds > 0",
        WARNING,
        "The access token of {{ $labels.source }} expired {{ $value | humanizeDuration }} ago and was not renewed",
        "The next run renews it, or fails with the reason.",
        lasting="1d",
    ),
)

GROUPS = (("reqon-daemon", DAEMON_RULES), ("reqon-missions", MISSION_RULES), ("reqon-sources", SOURCE_RULES))
RULES = (*DAEMON_RULES, *MISSION_RULES, *SOURCE_RULES)

MISSING = Rule(
    "ReqonMissionMissing",
    "absent(reqon_mission_info{mission=MISSION})",
    CRITICAL,
    "No daemon has the mission MISSION loaded",
    "Its file is gone or was never right; `reqon check` on the mission files says which.",
    lasting="15m",
)


def prometheus_rules(missions: Iterable[str] = (), *, job: str = JOB, runbook: str = RUNBOOK) -> str:
    """A rules file; with a rule for each of these missions that tells when nobody has it loaded.

    `job` is the daemons' job in Prometheus, `runbook` the address at which docs/runbook.md can be read.
    """
    loaded = tuple(_missing(name) for name in sorted(missions))
    groups = (*GROUPS, *([("reqon-loaded", loaded)] if loaded else []))
    lines = [_HEAD.format(job=job) + "groups:"]
    for name, rules in groups:
        lines += [f"  - name: {name}", "    rules:"]
        for rule in rules:
            mine = rule.expression.replace(f'job="{JOB}"', f"job={_quoted(job)}")
            lines += [*_lines(replace(rule, expression=mine), runbook), ""]
    return "\n".join(lines)


def _missing(mission: str) -> Rule:
    shown = mission.replace("{{", "{ {")  # else it would be read as a template
    return replace(
        MISSING,
        expression=MISSING.expression.replace("MISSION", _quoted(mission)),
        summary=MISSING.summary.replace("MISSION", shown),
    )


def _lines(rule: Rule, runbook: str) -> Iterator[str]:
    yield f"      - alert: {rule.name}"
    yield f"        expr: {_scalar(rule.expression)}"
    if rule.lasting:
        yield f"        for: {rule.lasting}"
    yield "        labels:"
    yield f"          severity: {rule.severity}"
    yield "        annotations:"
    yield f"          summary: {_scalar(rule.summary)}"
    if rule.description:
        yield f"          description: {_scalar(rule.description)}"
    yield f"          runbook_url: {_scalar(runbook + rule.anchor)}"


def _scalar(text: str) -> str:
    """A text as YAML takes it on one line: in single quotes, where nothing but they themselves is special."""
    return _quoted(text) if not text.isprintable() else "'" + text.replace("'", "''") + "'"


def _quoted(text: str) -> str:
    """A text in double quotes, as JSON, YAML and PromQL take it."""
    return encode(text).decode()
