"""Whoever calls a webhook: plain HTTP/1.1 over a socket, and signatures as senders make them."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Answered:
    """What a call was answered."""

    status: int
    json: Any
    headers: dict[str, str]


def request(
    url: str,
    data: Any = None,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
) -> bytes:
    """The bytes of a call; JSON unless `body` is given."""
    parts = urlsplit(url)
    content = json.dumps(data).encode() if body is None else body
    lines = {"Host": parts.netloc, "Connection": "close", "Content-Length": str(len(content))}
    if body is None:
        lines["Content-Type"] = "application/json"
    lines |= headers or {}
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
    return head.encode("utf-8") + content


def answered(raw: bytes) -> Answered:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    return Answered(int(first.split()[1]), json.loads(body) if body else None, headers)


async def call(url: str, data: Any = None, **more: Any) -> Answered:
    """Call once, over a connection of its own."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection("127.0.0.1", parts.port)
    try:
        writer.write(request(url, data, **more))
        await writer.drain()
        return answered(await reader.read())
    finally:
        writer.close()


def signed(secret: str, body: bytes, *, algorithm: str = "sha256") -> str:
    """The hex HMAC of a body."""
    return hmac.new(secret.encode(), body, getattr(hashlib, algorithm)).hexdigest()
