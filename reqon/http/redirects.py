"""Where a redirect leads, and what may be taken along (spec/runtime.md 2.8). Decides; sends nothing."""

from typing import NamedTuple
from urllib.parse import unquote_plus, urljoin

from reqon.http.addresses import origin_of
from reqon.http.paths import MAX_URL, encode_query
from reqon.http.transport import RawAnswer, TransportError

STATUSES = frozenset((301, 302, 303, 307, 308))


class Hop(NamedTuple):
    """The next request of a redirect. `crosses`: it leaves the origin; credentials and source headers stay behind."""

    method: str
    url: str
    origin: str
    keeps_body: bool
    crosses: bool


def next_hop(method: str, url: str, answer: RawAnswer, *, has_body: bool, key: tuple[str, str] | None) -> Hop | None:
    """What follows an answer; None if it is no redirect. `key` is the API key's query parameter, if there is one.

    Raises:
        TransportError: kind redirect: from https to http, a body to another origin, or to something that is no URL.
    """
    location = answer.headers.get("Location")
    if answer.status not in STATUSES or not location:
        return None
    try:
        target = urljoin(url, location.strip()).partition("#")[0]
        origin = origin_of(target.partition("?")[0])
    except ValueError as error:
        raise refused(f"the server redirects to something that cannot be asked: {error}") from None
    if url.startswith("https:") and not origin.startswith("https:"):
        raise refused("the server redirects from https to http")
    if len(target) > MAX_URL or not target.isascii() or any(c <= " " or c in "\x7f\\" for c in target):
        raise refused("the server redirects to an invalid URL")
    keeps_body = has_body
    if answer.status == 303 or (answer.status in (301, 302) and method == "POST"):
        method, keeps_body = ("HEAD" if method == "HEAD" else "GET"), False
    crosses = origin != origin_of(url.partition("?")[0])
    if crosses and keeps_body:
        raise refused("the server redirects a request with a body to another origin")
    if key is not None:
        target = _without(target, key[0]) if crosses else _with(target, key)
    return Hop(method, target, origin, keeps_body, crosses)


def refused(message: str) -> TransportError:
    """A redirect that isn't followed."""
    return TransportError(message, kind="redirect", sent=True)


def _with(url: str, key: tuple[str, str]) -> str:
    path, _, query = url.partition("?")
    return f"{path}?{encode_query((key,), query)}"


def _without(url: str, name: str) -> str:
    """The URL without this parameter, which a server may have copied into its redirect."""
    path, _, query = url.partition("?")
    kept = [pair for pair in query.split("&") if unquote_plus(pair.partition("=")[0]) != name]
    return f"{path}?{'&'.join(kept)}" if any(kept) else path
