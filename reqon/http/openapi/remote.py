"""Documents from URLs, kept in `<state>/oas-cache` (spec/runtime.md 10.1)."""

import asyncio
import hashlib
import logging
import re
import threading
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from reqon.clock import SYSTEM, Clock
from reqon.errors import FetchError, ReqonError, SpecError
from reqon.files import DISK, make_directory
from reqon.http.addresses import origin_of
from reqon.http.auth import Credentials, credentials_for
from reqon.http.connections import Connections
from reqon.http.messages import Reply, Request, SourceSettings
from reqon.http.openapi.reading import MAX_BYTES
from reqon.http.openapi.references import shown
from reqon.values import Record, Value, decode, encode

log = logging.getLogger("reqon")

T = TypeVar("T")

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_NAME = 100
_TIMEOUT_SECONDS = 60.0
_ACCEPT = "application/vnd.oai.openapi+json, application/json, application/yaml, text/yaml, */*;q=0.5"


@dataclass(frozen=True, slots=True)
class SpecAuth:
    """Credentials for downloading a source's document, as `specAuth` gives them; sent to its origin only."""

    source: str = ""
    fields: Mapping[str, Value] = field(default_factory=dict)
    headers: Mapping[str, Value] = field(default_factory=dict)


NO_AUTH = SpecAuth()


def cache_name(url: str) -> str:
    """The name of a URL's file in the cache: `<host>-<file name>`, told apart by a hash where the path says more."""
    parts = urlsplit(url)
    path = PurePosixPath(unquote(parts.path) or "/")
    name = _UNSAFE.sub("_", path.name).strip("._")[-_MAX_NAME:] or "openapi"
    host = _UNSAFE.sub("_", parts.hostname or "").strip("._")
    if parts.path.count("/") == 1 and path.name and not parts.query and parts.port is None:
        return f"{host}-{name}"
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    stem, dot, suffix = name.rpartition(".")
    return f"{host}-{stem}-{digest}.{suffix}" if dot and stem else f"{host}-{name}-{digest}"


class RemoteDocuments:
    """Downloads documents once and keeps them; a kept one is used without asking.

    Attributes:
        directory: where they are kept; None keeps nothing.
        offline: open no socket: only what is kept.
        refresh: ask anew for each document once (`--no-oas-cache`).
    """

    def __init__(
        self,
        directory: Path | None,
        *,
        environment: Mapping[str, str],
        offline: bool = False,
        refresh: bool = False,
        keep: bool = True,
        clock: Clock = SYSTEM,
    ) -> None:
        self.directory = directory
        self.offline = offline
        self.refresh = refresh
        self._keep = keep and not offline
        self._environment = environment
        self._clock = clock
        self._asked: set[str] = set()
        self._here: dict[str, bytes] = {}

    def path_of(self, url: str) -> Path | None:
        """Where a document is kept, whether it is there or not."""
        return self.directory / cache_name(url) if self.directory is not None else None

    def read(self, url: str, auth: SpecAuth) -> bytes | None:
        """The document's bytes; None when it is not kept and no socket may be opened.

        Raises:
            SpecError: it cannot be downloaded.
        """
        if (here := self._here.get(url)) is not None:
            return here
        kept, tag = self._kept(url)
        if kept is not None and (self.offline or not self.refresh or url in self._asked):
            return kept
        if self.offline:
            return None
        downloaded = _in_own_thread(self._download(url, auth, tag if kept is not None else None))
        self._asked.add(url)
        if downloaded is None:
            assert kept is not None
            log.info("the specification %s has not changed", shown(url))
            return kept
        self._put(url, *downloaded)
        return downloaded[0]

    # --- the cache ---

    def _kept(self, url: str) -> tuple[bytes | None, str | None]:
        path = self.path_of(url)
        if path is None:
            return None, None
        try:
            meta = decode(DISK.read(_meta(path), 64 * 1024))
            if not isinstance(meta, dict) or not isinstance(meta.get("url"), str):
                log.warning("the kept specification %s cannot be used: its .meta does not say whose it is", path.name)
                return None, None
            if meta["url"] != url:
                return None, None
            data = DISK.read(path, MAX_BYTES)
            if meta.get("sha256", digest := hashlib.sha256(data).hexdigest()) != digest:
                log.warning("the kept specification %s cannot be used: it is not what was downloaded", path.name)
                return None, None
            return data, meta.get("etag")
        except FileNotFoundError:
            return None, None
        except (OSError, ReqonError) as error:
            log.warning("the kept specification %s cannot be used: %s", path.name, error)
            return None, None

    def _put(self, url: str, data: bytes, tag: str | None) -> None:
        path = self.path_of(url)
        if path is None or not self._keep:
            self._here[url] = data
            return
        try:
            make_directory(path.parent)
            # Without its `.meta` a document is none: never the new one under the old one's tag.
            DISK.remove(_meta(path))
            DISK.replace(path, data, "oas-cache")
            meta: Record = {"url": url, "etag": tag, "sha256": hashlib.sha256(data).hexdigest()}
            DISK.replace(_meta(path), encode(meta, pretty=True) + b"\n", "oas-cache-meta")
        except OSError as error:
            self._here[url] = data
            log.warning("the specification %s cannot be kept: %s", path.name, error.strerror or error)

    # --- the download ---

    async def _download(self, url: str, auth: SpecAuth, tag: str | None) -> tuple[bytes, str | None] | None:
        """The document and its ETag; None when the one with this tag is still right."""
        connections = Connections(
            clock=self._clock, environment=self._environment, state_directory=None, random=lambda: 0.5
        )
        try:
            settings = _settings(url, auth)
            client = connections.client(settings, _credentials(settings), lambda _event: None, lambda *_: False)
            reply: Reply = await client.send(_request(url, tag))
        except FetchError as error:
            hint = error.hint or "give the document as a file, if the address cannot be reached from here"
            raise SpecError(f"the specification cannot be had: {error.message}", hint=hint) from error
        finally:
            await connections.close()
        if reply.status == 304:
            return None
        return reply.raw, reply.headers.get("ETag")


def _settings(url: str, auth: SpecAuth) -> SourceSettings:
    try:
        origin = origin_of(url.partition("?")[0])
    except ValueError as error:
        raise SpecError(f"'{shown(url)}' cannot be asked for: {error}") from None
    fields = dict(auth.fields)
    kind = fields.pop("type", None)
    return SourceSettings(
        name=auth.source or "specification",
        base=origin,
        auth=kind if isinstance(kind, str) else None if fields else "none",
        inline=fields,
        headers=tuple(auth.headers.items()),
        timeout_seconds=_TIMEOUT_SECONDS,
        max_response_bytes=MAX_BYTES,
    )


def _credentials(settings: SourceSettings) -> Credentials | None:
    try:
        return credentials_for(settings, None, {})
    except ReqonError as error:
        raise SpecError(
            f"specAuth: {error.message}", hint="the document's own credentials stand in specAuth"
        ) from error


def _request(url: str, tag: str | None) -> Request:
    headers: list[tuple[str, Value]] = [("Accept", _ACCEPT)]
    if tag is not None:
        headers.append(("If-None-Match", tag))
    return Request(method="GET", target=url, template=urlsplit(url).path or "/", headers=tuple(headers), as_bytes=True)


def _meta(path: Path) -> Path:
    return path.with_name(path.name + ".meta")


def _in_own_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end what is asynchronous, wherever we are called from: within an event loop or not."""
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits
            failures.append(error)

    thread = threading.Thread(target=run, name="specification", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    with suppress(IndexError):
        return results[0]
    raise AssertionError("unreachable")
