"""Durations given on the command line."""

from reqon.errors import ConfigurationError
from reqon.state.retention import parse_duration


def seconds(option: str, text: str) -> float:
    """An option's duration, in seconds.

    Raises:
        ConfigurationError: it is none; names the option.
    """
    try:
        return parse_duration(text)
    except ValueError:
        raise ConfigurationError(
            f"{option}: '{text}' is no duration", code="bad-option", hint="write 30d, 12h, 90m, 45s, or milliseconds"
        ) from None
