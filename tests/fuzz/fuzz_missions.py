"""Fuzzing mission texts with atheris: `make fuzz`, or with a time of your own: `make fuzz FUZZ="-max_total_time=3600"`.

Seeds are the corpus, the golden missions and what earlier runs found new; a finding lies in `.fuzz/` as the bytes that
made it, and `python tests/fuzz/fuzz_missions.py FILE` shows it again. Everything after `--` goes to libFuzzer.
"""

import gc
import sys
import time
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "daemon")]

with atheris.instrument_imports(include=["reqon.lang", "reqon.diagnostics", "reqon.runtime.steps"]):
    from reqon.lang.functions import BUILTINS
    from reqon.lang.lexer import RESERVED
    from reqon.lang.steps import StepParser
    from tests.support.any_text import load_any
    from tests.support.language_tables import option_keys, option_words

WORK = ROOT / ".fuzz"
LIMIT_SECONDS = 2.0
_MARKS = "{ } ( ) [ ] , : . ... .. = => -> == != < <= > >= + - * / % ! ? ?? | ~ @ ` ' \" /* */ // # _ \\ \n \r\n \t \0"
_WORDS = "mission action schema transform source store let import run schedule every cron at refine when any of"


def one(data: bytes) -> None:
    """One text: nothing raised, nothing slow. The limit is N5's, for a machine that does other things as well."""
    began = time.process_time()
    load_any(data)
    took = time.process_time() - began
    assert took < LIMIT_SECONDS, f"{took:.1f} s for {len(data)} bytes"


def dictionary() -> str:
    """The words and marks of the language for libFuzzer."""
    words = {*RESERVED, *StepParser.step_words(), *BUILTINS, *option_keys(), *option_words(), *_WORDS.split()}
    lines = [f'"{word}"' for word in sorted(words) if word.isascii()]
    lines += ['"' + "".join(f"\\x{byte:02x}" for byte in mark.encode()) + '"' for mark in _MARKS.split(" ") if mark]
    return "\n".join(lines) + "\n"


def main() -> None:
    WORK.mkdir(exist_ok=True)
    found = WORK / "corpus"
    found.mkdir(exist_ok=True)
    for path in [*ROOT.glob("tests/corpus/**/*.vague"), *ROOT.glob("tests/golden/*.vague")]:
        (found / f"seed-{path.stem}").write_bytes(path.read_bytes())
    (WORK / "words.txt").write_text(dictionary())
    given = sys.argv[1:]
    flags = ["-timeout=30", "-rss_limit_mb=2048", f"-dict={WORK / 'words.txt'}", f"-artifact_prefix={WORK}/"]
    single = [word for word in given if not word.startswith("-")]
    atheris.Setup([sys.argv[0], *flags, *given, *([] if single else [str(found)])], one)
    gc.freeze()
    atheris.Fuzz()


if __name__ == "__main__":
    main()
