"""A mission's values in the journal: JSON, and what JSON would lose of them (spec/state.md 3).

An instant, a duration, what lies behind a record and the like come back as they were. Each is an object whose only
fields are `$`, its kind, and what that kind needs; an object of the mission's with a field `$` is wrapped itself.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from reqon.clock import parse_rfc3339, rfc3339
from reqon.http.pagination import find_items
from reqon.lang.operators import Backed, ErrorResponse, PagedResult, StoreHandle, ValidationErrors
from reqon.runtime.paging import journaled_origin, restored
from reqon.state.backend import Journal
from reqon.values import Value

if TYPE_CHECKING:
    from reqon.runtime.resume import ResumePoint

_PLAIN = frozenset((str, int, float, bool, type(None)))


def kept(value: Value, journal: Journal | None = None) -> Value:
    """The value as JSON. Pages that the journal has already are named by their place in it."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict and "$" not in value and _PLAIN.issuperset(map(type, value.values())):
        return value
    if kind is list and _PLAIN.issuperset(map(type, value)):
        return value
    if isinstance(value, datetime):
        return {"$": "instant", "value": rfc3339(value)}
    if isinstance(value, timedelta):
        return {"$": "duration", "seconds": value.total_seconds()}
    if isinstance(value, StoreHandle):
        return {"$": "store", "name": value.name}
    if journal is not None and (origin := journaled_origin(value, journal)) is not None:
        return {"$": "pages", "origin": origin}
    if isinstance(value, Mapping):
        return _kept_record(value, journal)
    if isinstance(value, ValidationErrors):
        return {"$": "texts", "value": list(value)}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [kept(one, journal) for one in value]
    return value


def _kept_record(value: Mapping[str, Value], journal: Journal | None) -> Value:
    fields = {name: kept(one, journal) for name, one in value.items()}
    if isinstance(value, Backed):
        return {"$": "backed", "value": fields, "behind": kept(value.backing, journal)}
    if isinstance(value, PagedResult):
        return {"$": "paged", "value": fields}
    if isinstance(value, ErrorResponse):
        return {"$": "error", "value": fields}
    return {"$": "object", "value": fields} if "$" in fields else fields


def given_back(found: Value, resume: "ResumePoint", store: Callable[[str], StoreHandle]) -> Value:
    """What `kept` was given. `store` gives the handle of a store's name."""
    if type(found) is list:
        return found if _PLAIN.issuperset(map(type, found)) else [given_back(one, resume, store) for one in found]
    if type(found) is not dict:
        return found
    if "$" not in found:
        if _PLAIN.issuperset(map(type, found.values())):
            return found
        return {name: given_back(one, resume, store) for name, one in found.items()}
    match found["$"]:
        case "instant":
            return parse_rfc3339(found["value"])
        case "duration":
            return timedelta(seconds=found["seconds"])
        case "store":
            return store(found["name"])
        case "texts":
            return ValidationErrors(found["value"])
        case "pages":
            return restored(resume, found["origin"])
    fields = {name: given_back(one, resume, store) for name, one in found["value"].items()}
    match found["$"]:
        case "backed":
            return Backed(fields, given_back(found["behind"], resume, store))
        case "paged":
            return PagedResult(fields, find_items(fields)[0])
        case "error":
            return ErrorResponse(fields)
    return fields
