"""The TextMate grammar of editors/vscode: it knows the words of the language and leaves no text of the corpus out."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from reqon.lang.functions import BUILTINS
from reqon.lang.lexer import RESERVED
from reqon.lang.steps import StepParser
from tests.support import corpus, language_tables

ROOT = Path(__file__).parents[1] / "editors" / "vscode"
GRAMMAR = json.loads((ROOT / "syntaxes" / "reqon.tmLanguage.json").read_text("utf-8"))


@cache
def rules() -> tuple[dict[str, Any], ...]:
    """All rules in their order, with their expressions compiled."""
    found = [rule for part in GRAMMAR["patterns"] for rule in GRAMMAR["repository"][part["include"][1:]]["patterns"]]
    return tuple({**rule, "re": re.compile(rule.get("match") or rule["begin"], re.MULTILINE)} for rule in found)


def tokens(text: str) -> Iterator[tuple[str, str]]:
    """The text and scope of each token, as an editor would colour them: the first rule that matches at a place."""
    at = 0
    while at < len(text):
        if text[at] in " \t\r\n\ufeff":
            at += 1
            continue
        rule, match = next(((r, m) for r in rules() if (m := r["re"].match(text, at)) and m.end() > at), (None, None))
        assert rule is not None, f"nothing colours {text[at : at + 20]!r}"
        assert match is not None
        end = match.end()
        if "begin" in rule:
            end = closing(text, match.end(), rule)
        if "captures" in rule:
            for number, capture in rule["captures"].items():
                yield match[int(number)], capture["name"]
        else:
            yield text[at:end], rule["name"]
        at = end


def closing(text: str, at: int, rule: dict[str, Any]) -> int:
    """Where a token that has an end of its own ends; escapes inside are passed over."""
    end = re.compile(rule["end"], re.MULTILINE)
    while at < len(text) and not (found := end.match(text, at)):
        at += 2 if text[at] == "\\" and "patterns" in rule else 1
    return found.end() if at < len(text) and found else len(text)


def scopes(text: str) -> dict[str, str]:
    return dict(tokens(text))


@pytest.mark.parametrize("path", corpus.missions("syntax", "worked", *corpus.RUN), ids=corpus.name_of)
def test_every_character_of_a_mission_is_coloured(path: Path) -> None:
    text = path.read_bytes().decode()
    seen = [scope for _, scope in tokens(text)]
    assert all(scope.endswith(".reqon") for scope in seen)
    assert len(seen) > 3
    # Blocks of another language are skipped, whatever stands in them.
    assert path.stem == "generated_data" or not any(scope.startswith("invalid.") for scope in seen)


def test_built_in_functions_are_functions() -> None:
    plain = {name for name in BUILTINS if scopes(f"let x = {name}(1)").get(name) != "support.function.reqon"}
    method = {name for name in BUILTINS if scopes(f"let x = a.{name}(1)").get(name) != "support.function.reqon"}
    assert (plain, method) == (set(), set())


def test_option_keys_are_options() -> None:
    found = {key: scopes(f"  {key}: 5").get(key) for key in language_tables.option_keys()}
    assert {key for key, scope in found.items() if scope != "support.type.property-name.option.reqon"} == set()


def test_option_words_are_constants() -> None:
    found = {word: scopes(f"backoff: {word}").get(word) for word in language_tables.option_words()}
    assert {word for word, scope in found.items() if scope != "constant.language.option.reqon"} == set()


def test_words_that_start_steps_are_keywords() -> None:
    found = {word: scopes(f"{word} x")[word] for word in StepParser.step_words()}
    assert {word for word, scope in found.items() if not scope.startswith("keyword.")} == set()


def test_reserved_words_are_keywords_operators_or_constants() -> None:
    found = {word: scopes(f"x {word} y")[word] for word in RESERVED}
    wrong = {word for word, scope in found.items() if not scope.startswith(("keyword.", "constant.language"))}
    assert wrong == set()


def test_what_means_nothing_in_a_string_is_part_of_the_string() -> None:
    assert (
        scopes('let x = "// no # comment \\" {y}" // yes')['"// no # comment \\" {y}"'] == "string.quoted.double.reqon"
    )
    assert scopes("a # b")["# b"].startswith("comment.")
    assert scopes("timeout: 30 seconds")["30 seconds"] == "constant.numeric.duration.reqon"


def test_the_extension_names_the_files_it_has() -> None:
    package = json.loads((ROOT / "package.json").read_text("utf-8"))["contributes"]
    assert (ROOT / package["grammars"][0]["path"]).is_file()
    assert (ROOT / package["languages"][0]["configuration"]).is_file()
    assert package["grammars"][0]["scopeName"] == GRAMMAR["scopeName"]
