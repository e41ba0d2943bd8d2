"""`reqon fmt`: mission files in their canonical form (spec/daemon.md 1)."""

from pathlib import Path
from typing import Annotated

from reqon.cli import show
from reqon.cli.exits import Done
from reqon.cli.options import Argument, Option
from reqon.diagnostics import Source
from reqon.errors import ConfigurationError
from reqon.files import write_report
from reqon.lang.folders import SUFFIXES, path_order, refuse_no_file
from reqon.lang.loader import no_such_path
from reqon.lang.parser import parse
from reqon.lang.printer import to_text


def fmt(
    paths: Annotated[list[Path], Argument(metavar="PATH...", help="Mission files or folders.")],
    check: Annotated[bool, Option("--check", help="Change nothing; 1 if a file is not in its form.")] = False,
) -> None:
    """Bring mission files into their canonical form. Comments stay; a file with syntax errors is left as it is."""
    broken = changed = 0
    for file in _files(paths):
        text = _read(file)
        tree, findings = parse(Source(str(file), text))
        errors = [d for d in findings if d.severity == "error"]
        if errors:
            broken += 1
            show.findings(errors)
            continue
        formatted = to_text(tree)
        if formatted != text:
            changed += 1
            show.out(f"{'would format' if check else 'formatted'} {file}")
            if not check:
                write_report(file, formatted.encode())
    raise Done(2 if broken else 1 if check and changed else 0)


def _files(paths: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted((p for p in path.rglob("*") if _is_mission_text(p.relative_to(path))), key=path_order)
        elif path.exists():
            found.append(path)
        else:
            raise no_such_path(path)
    return list(dict.fromkeys(found))


def _is_mission_text(below: Path) -> bool:
    hidden = any(part.startswith(".") or part == "node_modules" for part in below.parts)
    return below.suffix in SUFFIXES and not hidden


def _read(file: Path) -> str:
    try:
        refuse_no_file(file)
        return file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"'{file}' cannot be read: {error}", code="path-not-readable") from error
