"""X3: what no module may do, read from the source: write, sync, look at the clock, swallow, wait for ever."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "reqon").rglob("*.py"), *(ROOT / "daemon").rglob("*.py")])
FILES, CLOCK = ROOT / "reqon" / "files.py", ROOT / "reqon" / "clock.py"

# Opened, but no state: streams given back or led nowhere, other programs' business.
MAY_OPEN = {
    "reqon/cli/main.py": "streams that its starter closed, and the one that nobody reads",
    "reqon/cli/show.py": "the stream that nobody reads",
    "reqon/cli/fmt.py": "mission files, which are not ours",
}
MAY_SWALLOW = {"reqon/state/postgres.py": "what closing a connection says that is broken already"}
MAY_WAIT = {
    "reqon/http/openapi/remote.py": "for requests that have their own deadlines",
    "reqon/state/custom.py": "for nothing: it is done, its exception was asked for first, with a limit",
    "reqon/stores/waiting.py": "for one statement, whose limits are its database's",
}
SYNCS = {"fsync", "fdatasync"}
CLOCKS = {("time", "time"), ("time", "monotonic"), ("time", "perf_counter"), ("time", "time_ns"), ("time", "sleep")}
INSTANTS = {("datetime", "now"), ("datetime", "utcnow"), ("date", "today")}
# Blocking waits that take a limit: by position or by name.
WAITS = {"join": 0, "result": 0, "exception": 0, "wait": 0, "communicate": 1}


def trees() -> list[object]:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in SOURCES]


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str, str]]:
    """Each call with what it is called on, as a name, and its own name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Attribute):
                on = function.value
                yield node, on.id if isinstance(on, ast.Name) else getattr(on, "attr", ""), function.attr
            elif isinstance(function, ast.Name):
                yield node, "", function.id


def writes(call: ast.Call, name: str) -> bool:
    if name in ("write_text", "write_bytes"):
        return True
    if name != "open":
        return False
    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    modes = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    flags = {node.attr for one in call.args for node in ast.walk(one) if isinstance(node, ast.Attribute)}
    return any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes) or bool(
        flags & {"O_WRONLY", "O_RDWR", "O_APPEND", "O_CREAT"}
    )


@pytest.mark.parametrize("path", trees())
def test_files_are_opened_for_writing_and_synced_in_one_module(path: Path) -> None:
    """X3."""
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}: {name}"
        for call, _, name in calls(ast.parse(path.read_text()))
        if name in SYNCS or writes(call, name)
    ]
    if path != FILES and str(path.relative_to(ROOT)) not in MAY_OPEN:
        assert found == []


@pytest.mark.parametrize("path", trees())
def test_the_clock_is_looked_at_in_one_module(path: Path) -> None:
    """X3."""
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}: {on}.{name}"
        for call, on, name in calls(ast.parse(path.read_text()))
        if (on, name) in CLOCKS | INSTANTS
    ]
    if path != CLOCK:
        assert found == []


@pytest.mark.parametrize("path", trees())
def test_no_exception_is_swallowed(path: Path) -> None:
    """X3: a handler that only passes names what it passes over, and never all there is."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            names = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else {"everything"}
            silent = all(isinstance(one, ast.Pass | ast.Continue) for one in node.body)
            if silent and names & {"everything", "Exception", "BaseException"}:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "suppress":
            names = {n.id for one in node.args for n in ast.walk(one) if isinstance(n, ast.Name)}
            if names & {"Exception", "BaseException"}:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == [] or str(path.relative_to(ROOT)) in MAY_SWALLOW


@pytest.mark.parametrize("path", trees())
def test_no_thread_or_process_is_waited_for_without_a_limit(path: Path) -> None:
    """X3: what is awaited has its deadline around it; what blocks a thread has it in the call."""
    tree = ast.parse(path.read_text())
    awaited = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Await)}
    found = []
    for call, on, name in calls(tree):
        if name not in WAITS or id(call) in awaited:
            continue
        blocks = any(word in on.lower() for word in ("thread", "process", "ready", "future"))
        limited = len(call.args) > WAITS[name] or any(keyword.arg == "timeout" for keyword in call.keywords)
        if blocks and not limited:
            found.append(f"{path.relative_to(ROOT)}:{call.lineno}: {on}.{name}")
    assert found == [] or str(path.relative_to(ROOT)) in MAY_WAIT
