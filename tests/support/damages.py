"""The fifteen damages that may befall a file of state (spec/reliability.md 1, D8)."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], object]


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


def _instead(make: Damage) -> Damage:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def _doubled(path: Path) -> None:
    """Each line and each entry of an object stands twice: the same id, number or name again."""
    text = path.read_bytes()
    lines = text.splitlines(keepends=True)
    if len(lines) > 1 and lines[0].strip() == b"{":
        path.write_bytes(lines[0] + b"".join(lines[1:-1]).rstrip() + b",\n" + b"".join(lines[1:]))
    else:
        path.write_bytes(text * 2)


DAMAGES: dict[str, Damage] = {
    "cut": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "empty": lambda p: p.write_bytes(b""),
    "NULs": lambda p: p.write_bytes(bytes(500)),
    "not JSON": lambda p: p.write_bytes(b"<html>\n"),
    "wrong type": lambda p: p.write_bytes(b'"seven"\n'),
    "1 GiB": _huge,
    "nesting 100,000": lambda p: p.write_bytes(b"[" * 100_000 + b"]" * 100_000),
    "NaN": lambda p: p.write_bytes(b'{"a": NaN}\n'),
    "newer version": lambda p: p.write_bytes(b'{"reqonVersion": "99.0.0", "version": 99, "n": "x"}\n'),
    "a link": _instead(lambda p: p.symlink_to("/etc/hostname")),
    "a FIFO": _instead(os.mkfifo),
    "a directory": _instead(Path.mkdir),
    "unreadable": lambda p: p.chmod(0),
    "bad UTF-8": lambda p: p.write_bytes(p.read_bytes()[:-9] + b"\xff\xfe" + p.read_bytes()[-9:]),
    "doubled": _doubled,
}


def seen(path: Path) -> tuple[object, ...]:
    """What a file is, by which it is known again wherever it was put."""
    found = path.lstat()
    return stat.S_IFMT(found.st_mode), None if path.is_dir() else found.st_size, _content(path)


def _content(path: Path) -> bytes | str | None:
    if path.is_symlink():
        return str(path.readlink())
    if not path.is_file() or path.stat().st_size > 1 << 20:
        return None
    mode = path.stat().st_mode
    path.chmod(0o600)
    content = path.read_bytes()
    path.chmod(stat.S_IMODE(mode))
    return content
