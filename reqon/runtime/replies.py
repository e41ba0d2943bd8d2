"""What the item in work was answered: kept with it, so that a killed run does not ask again (spec/reliability.md, R1).

An item that sends one request needs nothing kept: the request in work is all that a resume repeats. One that sends
several, in loops of its own or through actions it calls, is gone through again from its begin, and every request of
it that was answered finds its answer in the journal. Where the request is another than then, it is sent.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from zlib import crc32

from reqon.clock import parse_rfc3339, rfc3339
from reqon.errors import FetchError
from reqon.http.client import Client
from reqon.http.messages import Headers, Reply, Request
from reqon.runtime.fetch_spec import EFFECTS, FetchSpec
from reqon.runtime.frame import Frame
from reqon.runtime.kept import kept
from reqon.secrets import SECRETS
from reqon.values import Value, decode, encode

if TYPE_CHECKING:
    from reqon.state.backend import JournalEntry


def note_place(f: Frame) -> None:
    """Before a request leaves: all items before this one are done, and what this one was answered is written."""
    loop, work = f.loop, f.work
    if loop is not None and loop is not work:
        loop.note(loop.done if loop.spec.parallel else f.index)
    if work is not None:
        work.note(work.done if work.spec.parallel else work.f.index)


def note_begin(f: Frame) -> None:
    """Before an item, or an arm of an action's step, writes ahead of its first request: from here it is done again."""
    if f.work is not None:
        f.work.note_begin()
    elif f.key is not None and f.loop is None and not f.replaying:
        f.x.engine.bind(f)
        f.begun_step = f.step


async def ask(
    f: Frame, spec: FetchSpec, client: Client, request: Request, indices: tuple[int, ...], *, single: bool = False
) -> Reply:
    """Send a request, unless the journal has its answer already; keep the answer with the item in work.

    Raises:
        FetchError: as the client, or as it did before the kill.
    """
    work = f.work
    if work is None or f.private or not (work.spec.remembers and work.is_journaled):
        return await client.send(request, single=single)
    at: dict[str, Value] = {
        "a": work.f.key,
        "p": work.spec.path,
        "i": f.index if f.loop is work else f.item,
        "k": f"{f.origin}:{spec.step_path}:{f.index}:{indices}",
        "fp": fingerprint(request),
    }
    resume = f.x.resume
    if resume is not None and (known := resume.take_said(at)) is not None:
        return _given_back(known, resume.journal.read_body(known.body) if known.body is not None else b"null")
    trail = f.inner if f.loop is work else f.trail
    if trail:
        at["in"] = [(path, round_) for path, round_, _, _ in trail]
    assert f.x.journal is not None
    f.x.journal.write()  # what it was answered before, pages too
    try:
        reply = await client.send(request, single=single)
    except FetchError as error:
        if spec.guarded and error.status_code:
            _keep(f, request, {**at, "failed": _failure(error)}, encode(error.body))
        raise
    fields: dict[str, Value] = {**at, "st": reply.status, "h": dict(reply.headers), "at": rfc3339(reply.sent_at)}
    if not reply.is_json:
        fields["text"] = True
    if spec.paginate is not None and spec.paginate.strategy == "link":
        fields["u"] = SECRETS.redact(reply.url)
    _keep(f, request, fields, reply.raw if reply.is_json and reply.raw else encode(reply.value))
    return reply


def answer_once(f: Frame, place: str, ask_it: Callable[[], Value]) -> Value:
    """What is decided for the item in work is kept with its answers: whoever does it again decides as before."""
    work = f.work
    if work is None or f.private or not (work.spec.remembers and work.is_journaled):
        return ask_it()
    at: dict[str, Value] = {
        "a": work.f.key,
        "p": work.spec.path,
        "i": f.index if f.loop is work else f.item,
        "k": f"{place}?",
        "fp": 0,
        "effect": True,  # for what hangs on it: it outlives a failure too
    }
    resume, journal = f.x.resume, f.x.journal
    if resume is not None and (known := resume.take_said(at)) is not None and known.body is not None:
        return decode(resume.journal.read_body(known.body))
    value = ask_it()
    trail = f.inner if f.loop is work else f.trail
    if trail:
        at["in"] = [(path, round_) for path, round_, _, _ in trail]
    if journal is not None:
        journal.append("reply", at, body=encode(kept(value, journal)))
    return value


def fingerprint(request: Request) -> int:
    """What tells a request from another of the same step and round."""
    return crc32(encode([request.method, request.target, request.params, request.headers, request.body]))


def _keep(f: Frame, request: Request, fields: Mapping[str, Value], body: bytes) -> None:
    journal = f.x.journal
    assert journal is not None
    effect = {"effect": True} if request.method in EFFECTS else {}
    journal.append("reply", {**fields, **effect}, body=body)
    if effect:
        journal.write()


def _failure(error: FetchError) -> dict[str, Value]:
    return {
        "message": error.message, "kind": error.kind, "source": error.source, "method": error.method,
        "status": error.status_code, "retry_after": error.retry_after, "headers": dict(error.headers),
    }  # fmt: skip


def _given_back(entry: "JournalEntry", raw: bytes) -> Reply:
    fields, value = entry.fields, decode(raw)
    if (failed := fields.get("failed")) is not None:
        raise FetchError(
            failed["message"],
            kind=failed["kind"],
            source=failed["source"],
            method=failed["method"],
            status_code=failed["status"],
            retry_after=failed["retry_after"],
            headers=Headers(failed["headers"]),
            body=value,
        )
    is_json = "text" not in fields
    return Reply(
        status=fields["st"],
        headers=Headers(fields["h"]),
        value=value,
        raw=raw if is_json and value is not None else b"",
        is_json=is_json,
        url=fields.get("u", ""),
        attempts=0,
        sent_at=parse_rfc3339(fields["at"]),
    )
