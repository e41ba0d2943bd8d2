"""From a location to a specification: read, checked, compiled, remembered (spec/runtime.md 10.1)."""

import gc
import hashlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from reqon.clock import SYSTEM, Clock
from reqon.errors import ReqonError, SpecError
from reqon.files import DISK
from reqon.http.openapi.document import Document, compiled, digest_of, problems_error, same_text
from reqon.http.openapi.reading import MAX_BYTES, read_document
from reqon.http.openapi.references import is_url, shown
from reqon.http.openapi.remote import NO_AUTH, RemoteDocuments, SpecAuth
from reqon.http.openapi.spec import Spec

log = logging.getLogger("reqon")

COMPILED_FROM: Final = 128 * 1024  # bytes: smaller documents are read in no time
_SUFFIX = ".compiled"

Stamp = tuple[int, int]  # modification time in ns, and size


class NotHereError(SpecError):
    """A document from a URL that was not downloaded yet, where nothing may be downloaded."""


@dataclass(slots=True)
class _Known:
    """A specification, and what its files were like when they were read."""

    spec: Spec
    stamps: dict[str, Stamp] = field(default_factory=dict)


_known: dict[str, _Known] = {}
_lock = threading.RLock()


class Specifications:
    """Loads documents for missions; what one load of a process has read, the next one finds.

    `directory` is `<state>/oas-cache`, None to keep nothing; `keep` False writes nothing there.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        offline: bool = False,
        refresh: bool = False,
        keep: bool = True,
        clock: Clock = SYSTEM,
    ) -> None:
        self._directory = directory
        self._keep = keep and directory is not None
        self._remote = RemoteDocuments(
            directory,
            environment=os.environ if environment is None else environment,
            offline=offline,
            refresh=refresh,
            keep=keep,
            clock=clock,
        )
        self._refreshed: set[str] = set()

    def load(self, location: str, *, folder: Path, auth: SpecAuth = NO_AUTH) -> Spec:
        """The specification at a URL, or at a path, which is relative to `folder`.

        Raises:
            NotHereError: it lies behind a URL, is not kept, and must not be downloaded now.
            SpecError: it cannot be had, or is none; with all that is wrong with it.
        """
        place = location if is_url(location) else os.path.realpath(folder / location)
        with _lock:
            known = _known.get(place)
            refreshing = self._remote.refresh and is_url(place) and place not in self._refreshed
            if known is not None and not refreshing and self._unchanged(known):
                return known.spec
            try:
                fresh = _Known(self._spec(place, shown(location), auth))
            except SpecError as error:
                error.spec, error.problems = shown(location), error.problems or (error.message,)
                raise
            self._refreshed.add(place)
            self._stamp(fresh)
            _known[place] = fresh
            log.info("Spec valid: %d operations found in %s", fresh.spec.count, shown(location))
            return fresh.spec

    def _spec(self, place: str, name: str, auth: SpecAuth) -> Spec:
        root = self._document(place, auth, whole=True, name=name)
        spec = Spec(root, lambda other: self._document(other, auth, whole=False, name=_short(other)), name)
        if problems := spec.gather():
            raise problems_error(name, problems)
        return spec

    # --- one document -------------------------------------------------------------------------------------------------

    def _document(self, place: str, auth: SpecAuth, *, whole: bool, name: str) -> Document:
        data = self._bytes(place, auth, name)
        digest = digest_of(data)
        kept = self._compiled_path(place) if len(data) >= COMPILED_FROM else None
        if kept is not None and (known := _read_compiled(kept, place, digest)) is not None:
            return known
        with _quick_building():
            form = compiled(read_document(data, name), digest=digest, name=name, whole=whole)
        if kept is not None and self._keep:
            self._write_compiled(kept, form)
        return Document(place, form)

    def _bytes(self, place: str, auth: SpecAuth, name: str) -> bytes:
        if is_url(place):
            data = self._remote.read(place, auth)
            if data is None:
                hint = "run it once with the network; the document is kept then"
                raise NotHereError(f"the specification {name} was not downloaded yet", hint=hint)
            return data
        try:
            return DISK.read(Path(place), MAX_BYTES)
        except FileNotFoundError:
            raise SpecError(f"the specification '{name}' does not exist", hint="check the path") from None
        except (OSError, ReqonError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SpecError(f"the specification '{name}' cannot be read: {reason}") from error

    def _compiled_path(self, place: str) -> Path | None:
        if self._directory is None:
            return None
        if is_url(place):
            path = self._remote.path_of(place)
            return None if path is None else path.with_name(path.name + _SUFFIX)
        name = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return self._directory / f"{Path(place).stem[:60]}-{name}{_SUFFIX}"

    def _write_compiled(self, path: Path, form: bytes) -> None:
        try:
            if path.parent.parent.is_dir():  # `check` makes no state directory
                from reqon.files import make_directory  # noqa: PLC0415

                make_directory(path.parent)
                DISK.replace(path, form, "oas-cache", durable=False)
        except OSError as error:
            log.debug("the compiled specification %s cannot be kept: %s", path.name, error)

    # --- whether it is still the same ---------------------------------------------------------------------------------

    def _stamp(self, known: _Known) -> None:
        known.stamps = {place: stamp for place in known.spec.locations if (stamp := self._stamp_of(place)) is not None}

    def _unchanged(self, known: _Known) -> bool:
        # Documents that were opened later have no stamp yet: they are taken as they are now.
        for place in known.spec.locations:
            stamp = self._stamp_of(place)
            if known.stamps.setdefault(place, stamp or (0, 0)) != (stamp or (0, 0)):
                return False
        return True

    def _stamp_of(self, place: str) -> Stamp | None:
        path = self._remote.path_of(place) if is_url(place) else Path(place)
        if path is None:
            return None
        try:
            status = path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size


def _read_compiled(path: Path, place: str, digest: str) -> Document | None:
    """The compiled form of this text; None where there is none, or a damaged one."""
    try:
        form = DISK.read(path, 4 * MAX_BYTES)
        return Document(place, form) if same_text(form, digest) else None
    except (OSError, ReqonError, ValueError):
        return None


def forget() -> None:
    """Forget every specification of this process, so that it is read again."""
    with _lock:
        _known.clear()


def _short(place: str) -> str:
    return shown(place) if is_url(place) else Path(place).name


@contextmanager
def _quick_building() -> Iterator[None]:
    """While hundreds of thousands of values are made, looking for garbage among them takes half the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
