"""Parameters of an operation: where a value goes and how it is written (spec/runtime.md 10.3)."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from reqon.diagnostics import nearest
from reqon.errors import FetchError
from reqon.http.paths import Encoded, text_of
from reqon.values import Value, encode

Place = Literal["path", "query", "header", "cookie"]

# The separator between the elements of a list that is one parameter; each is legal in a query as it stands.
_SEPARATORS = {"form": ",", "simple": ",", "spaceDelimited": "%20", "pipeDelimited": "%7C", "tabDelimited": "%09"}
_ORDER: Mapping[str, int] = {"path": 0, "header": 1, "query": 2, "cookie": 3}
# OpenAPI: parameters of these names are ignored; the connection, credentials and the body say them.
_NOT_THEIRS = frozenset(("accept", "content-type", "authorization"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of an operation. `as_json`: its value is written as JSON text, whatever it is."""

    name: str
    place: Place
    required: bool = False
    style: str = "form"
    explode: bool = True
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """A call's parameters where they belong: pairs in order, ready for the request."""

    query: tuple[tuple[str, Value], ...]
    headers: tuple[tuple[str, Value], ...]


def by_name(parameters: Iterable[Parameter]) -> dict[str, Parameter]:
    """Which parameter a name in `params` means: path parameters first, then header, query and cookie ones."""
    found: dict[str, Parameter] = {}
    for parameter in sorted(parameters, key=lambda p: _ORDER[p.place], reverse=True):
        found[parameter.name] = parameter
        if parameter.place == "header":
            found[parameter.name.lower()] = parameter
    return found


def placed(given: Iterable[tuple[str, Value]], known: Mapping[str, Parameter]) -> Placed:
    """The values of `params`, path parameters left out; what the document doesn't know goes to the query.

    Raises:
        FetchError: kind bad_path or bad_header: a value has no form at its place.
    """
    query: list[tuple[str, Value]] = []
    headers: list[tuple[str, Value]] = []
    cookies: list[str] = []
    for name, value in given:
        parameter = known.get(name) or known.get(name.lower())
        if parameter is not None and parameter.place == "header":
            headers.append((parameter.name, _header(parameter, value)))
            continue
        parameter = known.get(name)
        if parameter is None:
            query.append((name, value))
        elif parameter.place == "query":
            query += _query(parameter, value)
        elif parameter.place == "cookie" and value is not None:
            cookies.append(f"{quote(name, safe='')}={_cookie(parameter, value)}")
    if cookies:
        headers.append(("Cookie", "; ".join(cookies)))
    return Placed(tuple(query), tuple(headers))


def refuse_missing(
    parameters: Collection[Parameter], *, present: Collection[str], headers: Collection[str], operation: str
) -> None:
    """See that every required parameter is there, but those of the path, which cannot be left out anyway.

    `present` are the names that have a value, `headers` the headers that are sent in any case, in lower case.

    Raises:
        FetchError: kind bad_path for the query, bad_header for headers and cookies.
    """
    known = {parameter.name for parameter in parameters}
    there = {*headers, *(name.lower() for name in present)}
    for parameter in parameters:
        name = parameter.name
        if not parameter.required or parameter.place == "path":
            continue
        if parameter.place == "header":
            missing = name.lower() not in there and name.lower() not in _NOT_THEIRS
        else:
            missing = name not in present and not (parameter.place == "cookie" and "cookie" in headers)
        if missing:
            similar = nearest(name, [other for other in present if other not in known])
            hint = f"add it to params: {{ {name}: … }}"
            raise FetchError(
                f"{operation} needs the {parameter.place} parameter '{name}', which has no value",
                kind="bad_path" if parameter.place == "query" else "bad_header",
                hint=hint if similar is None else f"is '{similar}' in params meant? Then write '{name}'",
            )


# --- how values are written ------------------------------------------------------------------------------------------


def _query(parameter: Parameter, value: Value) -> list[tuple[str, Value]]:
    name = parameter.name
    if parameter.as_json:
        return [(name, None if value is None else encode(value).decode())]
    if isinstance(value, dict):
        fields = [(k, v) for k, v in value.items() if v is not None]
        if parameter.style == "deepObject":
            return [pair for k, v in fields for pair in _deep(f"{name}[{k}]", v)]
        if parameter.style == "form" and parameter.explode:
            return fields
        return [(name, _joined(parameter, [part for k, v in fields for part in (k, v)]))]
    if isinstance(value, list) and not (parameter.explode and parameter.style in ("form", "deepObject")):
        return [(name, _joined(parameter, [v for v in value if v is not None]))]
    return [(name, value)]


def _deep(name: str, value: Value) -> list[tuple[str, Value]]:
    if isinstance(value, dict):
        return [pair for k, v in value.items() if v is not None for pair in _deep(f"{name}[{k}]", v)]
    return [(name, value)]


def _joined(parameter: Parameter, parts: list[Value]) -> Value:
    """Several values as one parameter; null leaves it out when there are none."""
    if not parts:
        return None
    separator = _SEPARATORS.get(parameter.style, ",")
    return Encoded(separator.join(quote(_text(parameter, part), safe="") for part in parts))


def _header(parameter: Parameter, value: Value) -> Value:
    """A header's value in the style `simple`; null leaves it out."""
    if value is None:
        return None
    if parameter.as_json:
        return encode(value).decode()
    if isinstance(value, dict):
        fields = [(k, v) for k, v in value.items() if v is not None]
        if parameter.explode:
            return ",".join(f"{k}={_text(parameter, v)}" for k, v in fields)
        return ",".join(part for k, v in fields for part in (k, _text(parameter, v)))
    if isinstance(value, list):
        return ",".join(_text(parameter, v) for v in value if v is not None)
    return _text(parameter, value)


def _cookie(parameter: Parameter, value: Value) -> str:
    if isinstance(value, dict):
        value = [part for k, v in value.items() if v is not None for part in (k, v)]
    parts = value if isinstance(value, list) else [value]
    return ",".join(quote(_text(parameter, part), safe="") for part in parts if part is not None)


def _text(parameter: Parameter, value: Value) -> str:
    text = encode(value).decode() if isinstance(value, dict | list) else text_of(value)
    if text is None:
        raise FetchError(f"parameter '{parameter.name}' is not a finite number", kind="bad_path")
    return text
