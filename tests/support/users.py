"""Processes of a user that we are not. Only root can become one; whoever else runs the tests skips theirs."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from reqon.values import encode
from tests.support.processes import COMMAND, ROOT, Ended, environment

SOMEBODY = 4711
"""A user id without a name."""

# Python, its packages and this checkout may lie behind a folder that only root may enter. In a mount namespace of the
# process's own, folders that anybody may enter stand in its place, and hold nothing but these three.
_BECOME = """
import json, os, subprocess, sys, tempfile
user, hidden, command = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
folder = os.getcwd()
os.umask(0o022)
for private, needed in hidden.items():
    held = [(path, tempfile.mkdtemp()) for path in needed]
    for path, holder in held:
        subprocess.run(["mount", "--bind", path, holder], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", private], check=True)
    for path, holder in held:
        os.makedirs(path)
        subprocess.run(["mount", "--move", holder, path], check=True)
        os.rmdir(holder)
os.chdir(folder)
os.setgroups([])
os.setgid(user)
os.setuid(user)
os.execv(command[0], command)
"""


@cache
def becoming(user: int) -> tuple[str, ...]:
    """What to put before a command so that this user runs it. Skips the running test if that cannot be."""
    if os.geteuid() != 0:
        pytest.skip("only root can run a process as another user")
    hidden: dict[str, list[str]] = {}
    for path in sorted({Path(sys.base_prefix), Path(sys.prefix), ROOT}):
        private = next((p for p in reversed(path.parents) if not p.stat().st_mode & 0o001), None)
        if private is not None:
            hidden.setdefault(str(private), []).append(str(path))
    namespace = ("unshare", "--mount") if hidden else ()
    before = (*namespace, sys.executable, "-c", _BECOME, str(user), encode(hidden).decode())
    tried = subprocess.run([*before, sys.executable, "-c", ""], capture_output=True, text=True, check=False, timeout=60)
    if tried.returncode:
        pytest.skip(f"no process of another user can be started here: {tried.stderr.strip()[-200:]}")
    return before


def reqon_as(user: int, *arguments: object, cwd: Path, variables: Mapping[str, str] | None = None) -> Ended:
    """`reqon` with these arguments, run by this user to its end."""
    ended = subprocess.run(
        [*becoming(user), *COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(variables or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """An empty folder that every user may enter and read, gone after the block. That of `tmp_path` is for us alone."""
    folder = Path(tempfile.mkdtemp(prefix="reqon-users-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def give(path: Path, user: int) -> None:
    """Let a file, or a folder with all that is in it, belong to this user."""
    for one in (path, *path.rglob("*")):
        os.chown(one, user, user, follow_symlinks=False)
