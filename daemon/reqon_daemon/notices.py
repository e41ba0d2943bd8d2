"""What a notice says, as targets take it (spec/daemon.md 6): an incident's texts, labels and keys, redacted."""

from datetime import datetime
from hashlib import blake2b

from reqon.clock import rfc3339
from reqon.secrets import SECRETS
from reqon.values import Record
from reqon_daemon.incidents import Notice, Status
from reqon_daemon.outbox import Entry, Sender


def entry_for(sender: Sender, notice: Notice, instance: str) -> Entry:
    """The notice as it waits in the outbox for one target."""
    return Entry(
        id=notice.id,
        target=sender.key,
        status=notice.status,
        incident=notice.incident.id,
        created_at=notice.at,
        number=0,
        notice=notice_of(notice, instance),
    )


def notice_of(notice: Notice, instance: str) -> Record:
    """What a notice says, redacted, as targets take it: labels, annotations (texts all), times, keys."""
    incident, report = notice.incident, notice.incident.report
    labels = {
        "alertname": incident.kind.alert_name,
        "mission": incident.mission,
        "kind": str(incident.kind),
        "instance": instance,
        "severity": incident.kind.severity,
    }
    others = [mission for mission in incident.everyone if mission != incident.mission]
    line = report.summary + (f" (and {len(others)} more: {', '.join(others[:20])})" if others else "")
    notes = {
        "summary": line,
        "execution": report.execution_id,
        "trigger": report.trigger,
        "started": report.started_at,
        "duration": None if report.duration_seconds is None else f"{report.duration_seconds:.1f} s",
        "action": report.action,
        "step": report.step,
        "location": report.location,
        "error": report.error,
        "errorType": report.error_type,
        "hint": report.hint,
        "items": report.items_processed,
        "lastSuccess": report.last_success or ("never" if report.execution_id else None),
        "missions": ", ".join(incident.everyone) if others else None,
        "resume": report.resume,
    }
    shown = {
        name: rfc3339(value) if isinstance(value, datetime) else str(value)
        for name, value in notes.items()
        if value is not None
    }
    identity = f"{instance}\0{incident.mission}\0{incident.kind}"
    said: Record = {
        "summary": line,
        "labels": labels,
        "annotations": shown,
        "missions": list(incident.everyone),
        "startsAt": rfc3339(incident.started_at),
        "endsAt": rfc3339(notice.at) if notice.status is Status.RESOLVED else None,
        "fingerprint": blake2b(identity.encode(), digest_size=8).hexdigest(),
        "dedup": f"reqon/{instance}/{incident.mission}/{incident.kind}",
    }
    redacted: Record = SECRETS.redact_value(said)
    return redacted
