"""Durations, sizes and pairs given on the command line."""

import re

from reqon.errors import ConfigurationError
from reqon.state.retention import parse_age, parse_duration

_SIZE = re.compile(r"(\d+)\s*([kmgt]?)(i?)(b?)", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


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


def age(option: str, text: str) -> float:
    """An option's age, in seconds: a duration with its unit, since what is older gets deleted.

    Raises:
        ConfigurationError: it is none; names the option.
    """
    try:
        return parse_age(text)
    except ValueError as error:
        said, _, hint = str(error).partition("; ")
        raise ConfigurationError(f"{option}: {said}", code="bad-option", hint=hint or "write 30d, 12h or 4w") from None


def written(length: float) -> str:
    """Seconds as an option takes them: `90s`, `4h`, `30d`."""
    for unit, many in (("d", 86400), ("h", 3600), ("m", 60)):
        if length and length % many == 0:
            return f"{length / many:g}{unit}"
    return f"{length:g}s"


def size(option: str, text: str) -> int:
    """An option's size, in bytes.

    Raises:
        ConfigurationError: it is none; names the option.
    """
    try:
        return parse_size(text)
    except ValueError as error:
        raise ConfigurationError(f"{option}: '{text}' is no size", code="bad-option", hint=str(error)) from None


def parse_size(text: str) -> int:
    """The bytes of `1GiB`, `500MB` (of a thousand thousands), `2G` (as GiB) or `4096`.

    Raises:
        ValueError: it is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("write a size: 1GiB, 500MB, or a number of bytes")
    number, unit, binary, byte = match.groups()
    thousand = 1000 if unit and byte and not binary else 1024
    return int(number) * int(thousand ** _POWERS[unit.lower()])


def pair(option: str, text: str) -> tuple[str, str]:
    """Name and value of `name=value`.

    Raises:
        ConfigurationError: it is no such pair; names the option.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigurationError(f"{option}: '{text}' is no name=value", code="bad-option", hint=f"{option} REGION=eu")
    return name.strip(), value
