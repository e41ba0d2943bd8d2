"""Identifiers: of executions, ordered by time; and keys that a repeated step makes again (spec/README.md, 47)."""

import re
import secrets
from base64 import b32encode
from datetime import UTC, datetime, timedelta
from hashlib import sha256

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: in the order of the numbers, without i l o u
_OURS = re.compile(rf"exec_([{_ALPHABET}]{{26}})")
_ACCEPTED = re.compile(r"[A-Za-z0-9_-]{1,64}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_RANDOM_BITS = 80


def new_execution_id(at: datetime) -> str:
    """`exec_` and 26 characters: 48 bits of milliseconds, 80 random bits. Ids of later milliseconds sort later."""
    number = (((at - _EPOCH) // _MILLISECOND) << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
    return "exec_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def execution_time(execution_id: str) -> datetime | None:
    """When an execution of this id began, to the millisecond; None if the id is not one of `new_execution_id`."""
    match = _OURS.fullmatch(execution_id)
    if match is None:
        return None
    number = 0
    for character in match[1]:
        number = number << 5 | _ALPHABET.index(character)
    try:
        return _EPOCH + (number >> _RANDOM_BITS) * _MILLISECOND
    except OverflowError:
        return None


def is_execution_id(text: str) -> bool:
    """Whether a text may be an execution's id, ours or another program's: safe in a file name."""
    return _ACCEPTED.fullmatch(text) is not None


def derived_key(prefix: str, execution_id: str, step: str, *indices: int) -> str:
    """A key such as `auto_7pq…` for what a step makes: the same for the same execution, step and loop indices.

    Never random, so that a step done again after a crash overwrites what it wrote. 26 characters after `prefix`.
    """
    place = f"{execution_id}\0{step}\0{'.'.join(map(str, indices))}"
    return prefix + b32encode(sha256(place.encode()).digest()[:20])[:26].decode().lower()
