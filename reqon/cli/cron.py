"""`reqon --validate-cron`: is it right, and when would it run (spec/daemon.md 1)."""

from reqon.cli import show
from reqon.cli.exits import CONFIGURATION
from reqon.cli.services import service
from reqon.errors import ReqonError
from reqon.lang.cron import parse_cron


def show_cron(text: str, timezone: str | None) -> int:
    """Print the next five runs, and on stderr what may surprise; 3 and what is wrong when the text is no schedule."""
    try:
        runs = service("cron-preview")(text, timezone)
    except ReqonError as error:
        show.rendered(error.format())
        return CONFIGURATION
    show.findings(parse_cron(text)[1])
    show.out(f"valid: {text}")
    for due in runs:
        show.out(f"  {due.strftime('%a %Y-%m-%d %H:%M')} {due.tzname()}  ({due.strftime('%z')})")
    return 0
