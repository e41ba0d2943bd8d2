"""The next runs of a cron text, before any mission has it: what `reqon --validate-cron` shows."""

from datetime import datetime

from reqon.clock import SYSTEM, Clock
from reqon.errors import ConfigurationError
from reqon.lang.cron import read_cron
from reqon_daemon.policy import cron_rule
from reqon_daemon.slots import Schedule
from reqon_daemon.zones import system_zone, zone


def next_runs(text: str, timezone: str | None = None, *, count: int = 5, clock: Clock = SYSTEM) -> list[datetime]:
    """The next `count` due times, each in the zone the text is read in, by default the system's.

    Raises:
        SemanticError: the text is wrong; all its findings.
        ConfigurationError: there is no such zone.
    """
    fields = read_cron(text)
    try:
        where = zone(timezone) if timezone is not None else system_zone()
    except LookupError as error:
        raise ConfigurationError(str(error), code="bad-timezone", hint="an IANA name, such as Europe/London") from error
    schedule = Schedule(rule=cron_rule(fields, where), text=text, zone=where)
    found: list[datetime] = []
    at = clock.now()
    while len(found) < count and (due := schedule.next_after(at)) is not None:
        found.append(due.astimezone(where.rules))
        at = due
    return found
