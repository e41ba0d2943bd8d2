"""Which request follows a page (spec/runtime.md 4). Decides; sends nothing."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from urllib.parse import urljoin

from reqon.errors import USERS_FAULTS, PaginationError
from reqon.http.addresses import origin_of
from reqon.secrets import SECRETS
from reqon.values import Record, Value, encode

_USUAL_FIELDS = ("data", "items", "results", "records", "values", "value", "entries", "list", "content", "rows")
_LONGEST_LINK = 16 * 1024
_LINK_END = re.compile(r"[^,\"]+|\"(?:[^\"\\]|\\.)*\"|\"")
_LINK_PARAMETER = re.compile(r";\s*([^\s=;,\"]+)\s*(?:=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;,\"]*)))?")


class NextRequest(NamedTuple):
    """What the next request carries: parameters of ours, or a URL to follow, with nothing added."""

    params: tuple[tuple[str, Value], ...] = ()
    url: str | None = None


class Pagination(Protocol):
    """A strategy, one object per fetch. After each page `advance`; then it knows whether and what follows."""

    @property
    def has_more(self) -> bool:
        """Whether the strategy sees a further page."""

    @property
    def next_value(self) -> Value:
        """What the next request would carry under the strategy's parameter; None where there is nothing."""

    def next_request(self) -> NextRequest: ...

    def advance(self, body: Value, headers: Mapping[str, str], item_count: int, url: str) -> None:
        """Learn from a page that came from `url`.

        Raises:
            PaginationError: the pages go in circles, or leave the origin.
        """

    def state(self) -> Record:
        """`{kind, value}` for the journal: page, offset, cursor, url, custom or end; and what else `restore` needs."""

    def restore(self, state: Record) -> None:
        """Go on where a strategy with this state stood."""


@dataclass(slots=True, eq=False)
class OffsetPages:
    """`offset(name, size)`: the number of items so far. `short_stops`: a page below `size` is the last (no `until`)."""

    name: str
    size: int
    short_stops: bool
    offset: int = 0
    has_more: bool = True

    @property
    def next_value(self) -> Value:
        return self.offset

    def next_request(self) -> NextRequest:
        return NextRequest(((self.name, self.offset),))

    def advance(self, body: Value, headers: Mapping[str, str], item_count: int, url: str) -> None:  # noqa: ARG002
        self.offset += item_count
        self.has_more = item_count > 0 and not (self.short_stops and item_count < self.size)

    def state(self) -> Record:
        return {"kind": "offset" if self.has_more else "end", "value": self.offset}

    def restore(self, state: Record) -> None:
        self.offset = int(state["value"])
        self.has_more = state["kind"] != "end"


@dataclass(slots=True, eq=False)
class NumberedPages:
    """`page(name, size)`: 1, 2, 3 … or from another first number."""

    name: str
    size: int
    short_stops: bool
    page: int = 1
    has_more: bool = True

    @property
    def next_value(self) -> Value:
        return self.page

    def next_request(self) -> NextRequest:
        return NextRequest(((self.name, self.page),))

    def advance(self, body: Value, headers: Mapping[str, str], item_count: int, url: str) -> None:  # noqa: ARG002
        self.page += 1
        self.has_more = item_count > 0 and not (self.short_stops and item_count < self.size)

    def state(self) -> Record:
        return {"kind": "page" if self.has_more else "end", "value": self.page}

    def restore(self, state: Record) -> None:
        self.page = int(state["value"])
        self.has_more = state["kind"] != "end"


@dataclass(slots=True, eq=False)
class CursorPages:
    """`cursor(name, size, path)`: what `find` gives for a page, sent under `name`; a URL or a path is followed instead.

    `find(body, headers)` is the compiled path. `first` is what the mission gave for the first request.
    """

    name: str
    find: Callable[[Value, Mapping[str, str]], Value]
    first: Value = None
    has_more: bool = True
    _value: Value = None
    _url: str | None = None
    _seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._value = self.first

    @property
    def next_value(self) -> Value:
        return self._url or self._value

    def next_request(self) -> NextRequest:
        if self._url is not None:
            return NextRequest(url=self._url)
        return NextRequest(() if self._value is None else ((self.name, self._value),))

    def advance(self, body: Value, headers: Mapping[str, str], item_count: int, url: str) -> None:
        cursor = self.find(body, headers)
        if cursor is None or cursor is False or cursor == "":
            self.has_more, self._value, self._url = False, None, None
            return
        self.has_more = _leads_on(self._seen, cursor, item_count)
        if not self.has_more:
            self._value, self._url = None, None
        elif isinstance(cursor, str) and cursor.startswith(("/", "http://", "https://")):
            self._value, self._url = None, follow(url, cursor)
        else:
            self._value, self._url = cursor, None

    def state(self) -> Record:
        if not self.has_more:
            return {"kind": "end", "value": None}
        return {"kind": "url", "value": self._url} if self._url else {"kind": "cursor", "value": self._value}

    def restore(self, state: Record) -> None:
        self.has_more = state["kind"] != "end"
        self._url = state["value"] if state["kind"] == "url" else None
        self._value = state["value"] if state["kind"] == "cursor" else None
        if self.has_more and state["value"] is not None:
            self._seen.add(_mark(state["value"]))


@dataclass(slots=True, eq=False)
class LinkPages:
    """`link(rel)`: the target of the Link header with that relation."""

    relation: str = "next"
    has_more: bool = True
    _url: str | None = None
    _seen: set[str] = field(default_factory=set)

    @property
    def next_value(self) -> Value:
        return self._url

    def next_request(self) -> NextRequest:
        return NextRequest(url=self._url)

    def advance(self, body: Value, headers: Mapping[str, str], item_count: int, url: str) -> None:  # noqa: ARG002
        target = link_target(headers.get("Link"), self.relation)
        following = None if target is None else follow(url, target)
        self.has_more = following is not None and _leads_on(self._seen, following, item_count)
        self._url = following if self.has_more else None

    def state(self) -> Record:
        return {"kind": "url" if self.has_more else "end", "value": self._url}

    def restore(self, state: Record) -> None:
        self.has_more = state["kind"] != "end"
        self._url = state["value"]
        if self._url:
            self._seen.add(_mark(self._url))


class CustomStrategy(Protocol):
    """What a registered factory gives (spec/runtime.md 4.8); `extract_items`, `state` and `restore` are optional."""

    def get_initial_params(self) -> Mapping[str, Value]: ...
    def update_from_response(self, body: Value, headers: Mapping[str, str]) -> None: ...
    def has_more(self) -> bool: ...
    def get_next_params(self) -> Mapping[str, Value]: ...


class CustomPages:
    """A registered strategy behind the protocol. What it raises is a `PaginationError` that names it.

    A `url` among its parameters is asked for instead of the fetch's own.
    """

    def __init__(self, name: str, make: Callable[[], CustomStrategy]) -> None:
        self._name = name
        with self._ours():
            self._strategy = make()
            self._params = dict(self._strategy.get_initial_params())
        target = self._params.pop("url", None)
        self._url: str | None = target if isinstance(target, str) else None
        self.has_more = True

    @contextmanager
    def _ours(self) -> Iterator[None]:
        try:
            yield
        except USERS_FAULTS as error:
            text = f"the pagination strategy '{self._name}' failed: {type(error).__name__}: {error}"
            failure = PaginationError(text, kind="pagination")
            failure.reason = "custom"
            raise failure from error

    @property
    def resumable(self) -> bool:
        """Whether the strategy can be saved; without, a resume starts its fetch over."""
        return hasattr(self._strategy, "state") and hasattr(self._strategy, "restore")

    def items_of(self, body: Value) -> list[Value] | None:
        """A page's items, if the strategy has its own way to find them."""
        extract = getattr(self._strategy, "extract_items", None)
        if extract is None:
            return None
        with self._ours():
            return list(extract(body))

    @property
    def next_value(self) -> Value:
        return self._url or (next(iter(self._params.values()), None) if self.has_more else None)

    def next_request(self) -> NextRequest:
        return NextRequest(url=self._url) if self._url else NextRequest(tuple(self._params.items()))

    def advance(self, body: Value, headers: Mapping[str, str], item_count: int, url: str) -> None:  # noqa: ARG002
        self._params, self._url = {}, None
        with self._ours():
            self._strategy.update_from_response(body, headers)
            self.has_more = bool(self._strategy.has_more())
            if self.has_more:
                self._params = dict(self._strategy.get_next_params())
        if self.has_more:
            target = self._params.pop("url", None)
            if isinstance(target, str):
                self._url = follow(url, target)

    def state(self) -> Record:
        value = None
        if self.resumable:
            with self._ours():
                value = self._strategy.state()  # type: ignore[attr-defined]  # asked just before
        return {"kind": "custom" if self.has_more else "end", "value": value, "params": self._params, "url": self._url}

    def restore(self, state: Record) -> None:
        with self._ours():
            self._strategy.restore(state["value"])  # type: ignore[attr-defined]  # only resumable ones are restored
        self._params, self._url = dict(state["params"]), state["url"]
        self.has_more = state["kind"] != "end"


def follow(current: str, target: str) -> str:
    """The URL that a page names, resolved against the page's own.

    Raises:
        PaginationError: reason origin: it leads elsewhere, or is no URL.
    """
    try:
        url = urljoin(current, target).partition("#")[0]
        same = origin_of(url.partition("?")[0]) == origin_of(current.partition("?")[0])
    except ValueError:
        raise _pagination("origin", "the next page's address is not a valid URL", target) from None
    if not same:
        raise _pagination("origin", "the next page's address leads to another origin", url)
    if not url.isascii() or any(c <= " " or c in "\x7f\\" for c in url):
        raise _pagination("origin", "the next page's address is not a valid URL", url)
    return url


def link_target(header: str | None, relation: str) -> str | None:
    """The target of the first link with this relation (RFC 8288)."""
    if not header:
        return None
    header = header[:_LONGEST_LINK]
    at = header.find("<")
    while at >= 0:
        close = header.find(">", at)
        end = close + 1
        while piece := _LINK_END.match(header, end):
            end = piece.end()
        for name, quoted, plain in _LINK_PARAMETER.findall(header, close + 1, end):
            if close > 0 and name.lower() == "rel" and relation.lower() in (quoted or plain).lower().split():
                return header[at + 1 : close].strip()
        at = header.find("<", end) if close > 0 else -1
    return None


def _leads_on(seen: set[str], cursor: Value, item_count: int) -> bool:
    """Whether a page's cursor leads to another page: an empty page that names itself again is the last.

    Raises:
        PaginationError: it was followed before, and brings items again.
    """
    mark = _mark(cursor)
    if mark in seen:
        if not item_count:
            return False
        raise _pagination("cursor_loop", "the API gave the same next page twice; it would never end", mark)
    seen.add(mark)
    return True


def _mark(cursor: Value) -> str:
    return cursor if isinstance(cursor, str) else encode(cursor).decode()


def _pagination(reason: str, message: str, value: str) -> PaginationError:
    error = PaginationError(f"{message}: {SECRETS.excerpt(value, 200)}", kind="pagination")
    error.reason = reason
    return error


# --- the items of a page ---

Place = tuple[str, ...]


def find_items(
    body: Value, *, path: Place | None = None, until_path: Place | None = None
) -> tuple[list[Value], Place | None]:
    """A page's items and where they are: `()` the body itself, `("meta", "rows")` in it, or None: nowhere, 0 items.

    `path` is the fetch's `items` option, `until_path` what `until` takes the length of.
    """
    if isinstance(body, Sequence) and not isinstance(body, str | bytes):
        return body, ()  # type: ignore[return-value]  # lists and what stands for them
    if not isinstance(body, dict):
        return [], None
    for place in (path, until_path):
        if place is not None and (items := items_at(body, place)) is not None:
            return items, place
    found = _usual_place(body)
    if found is None:
        for name, inner in body.items():
            if isinstance(inner, dict) and (deeper := _usual_place(inner)) is not None:
                found = (name, *deeper)
                break
    if found is None:
        return [], None
    return items_at(body, found) or [], found


def items_at(body: Value, place: Place) -> list[Value] | None:
    """The list at a place of the body; None if there is none."""
    for name in place:
        if not isinstance(body, dict):
            return None
        body = body.get(name)
    return body if isinstance(body, list) else None


def with_items(body: Value, place: Place, items: Value) -> Value:
    """The body with another list at that place; what lies around it is copied, never changed."""
    if not place:
        return items
    return {**body, place[0]: with_items(body.get(place[0]), place[1:], items)}


def _usual_place(body: Record) -> Place | None:
    for name in _USUAL_FIELDS:
        if isinstance(body.get(name), list):
            return (name,)
    lists = [name for name, value in body.items() if isinstance(value, list)]
    if not lists:
        return None
    return (next((n for n in lists if body[n] and isinstance(body[n][0], dict)), lists[0]),)
