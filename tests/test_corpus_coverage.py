"""The corpus covers the language: what the code's own tables and the grammar name occurs in it."""

import re
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from reqon.diagnostics import Source
from reqon.lang import nodes
from reqon.lang.functions import BUILTINS
from reqon.lang.parser import parse
from reqon.lang.walk import walk
from tests.support import corpus, language_tables

ALL = corpus.missions("syntax", *corpus.RUN)


@cache
def tree_of(path: Path) -> nodes.SourceFile:
    return parse(Source(path.name, path.read_bytes().decode("utf-8-sig")))[0]


@cache
def all_nodes() -> tuple[nodes.Node, ...]:
    return tuple(node for path in ALL for node in walk(tree_of(path)))


def test_there_are_enough_missions() -> None:
    assert len(ALL) + len(corpus.missions("findings")) >= 250


def test_every_built_in_has_golden_results() -> None:
    called = {
        node.name.text
        for path in corpus.missions(*corpus.RUN)
        for node in walk(tree_of(path))
        if isinstance(node, nodes.Call)
    }
    assert set(BUILTINS) - called == set()


@pytest.mark.parametrize("table", sorted(language_tables.TABLES))
def test_every_option_has_golden_results(table: str) -> None:
    run = corpus.missions(*corpus.RUN)
    used = {key for path in run for name, key, _ in language_tables.used_options(tree_of(path)) if name == table}
    known = language_tables.TABLES[table]
    assert {*known.keys, *known.aliases} - used == set()


def test_every_construct_has_golden_results() -> None:
    kinds = {k for k in vars(nodes).values() if isinstance(k, type) and issubclass(k, nodes.Node)}
    run = {type(node) for path in corpus.missions(*corpus.RUN) for node in walk(tree_of(path))}
    # A block of generated data means nothing to run.
    assert kinds - run == {nodes.Node, nodes.IgnoredBlock}


def test_every_operator_has_golden_results() -> None:
    found = {
        node.operator
        for path in corpus.missions("operators")
        for node in walk(tree_of(path))
        if isinstance(node, nodes.Binary | nodes.Unary)
    }
    words = "or and == != < <= > >= contains startsWith endsWith in ?? + - * / % not !"
    assert found == set(words.split(" "))


@pytest.mark.parametrize("table", sorted(language_tables.TABLES))
def test_every_option_is_used(table: str) -> None:
    used = {key for path in ALL for name, key, _ in language_tables.used_options(tree_of(path)) if name == table}
    known = language_tables.TABLES[table]
    assert {*known.keys, *known.aliases} - used == set()


def test_every_word_of_an_enumerated_option_is_used() -> None:
    used = set()
    for path in ALL:
        for table, key, value in language_tables.used_options(tree_of(path)):
            kind = language_tables.TABLES[table].kind(key)
            word = value.name if isinstance(value, nodes.Name) else getattr(value, "value", None)
            if kind is not None and word in set(language_tables.words_of(kind)):
                used.add((key, word))
    strategies = {node.strategy.text for node in all_nodes() if isinstance(node, nodes.Paginate)}
    missing = {
        f"{key}: {word}"
        for known in language_tables.TABLES.values()
        for key, kind in known.keys.items()
        for word in language_tables.words_of(kind)
        if (key, word) not in used and word not in strategies
    }
    assert sorted(missing) == []


# --- the tree --------------------------------------------------------------------------------------------------------

# Forms that no text of a mission has.
IMPOSSIBLE = {
    "SchemaDef.type: some",  # of an imported document only
}


def forms(kind: type[nodes.Node]) -> set[str]:
    """What each field of a kind of node can be: there or not, empty or not, each of its words."""
    found: set[str] = set()
    for name, hint in get_type_hints(kind, vars(nodes)).items():
        if name not in nodes.compared_fields(kind) and name != "form":
            continue
        found |= {f"{kind.__name__}.{name}: {form}" for form in _forms_of(hint)}
    return found


def _forms_of(hint: Any) -> set[str]:
    origin = get_origin(hint)
    if origin is Literal:
        return {str(word) for word in get_args(hint)}
    if hint is bool:
        return {"True", "False"}
    if origin is tuple:
        return {"none", "some"}
    if origin in (Union, UnionType) and NoneType in get_args(hint):
        words = {str(w) for part in get_args(hint) if get_origin(part) is Literal for w in get_args(part)}
        return {"none", *(words or {"some"})}
    return {"some"}


def form_of(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    if value is None or value == ():
        return "none"
    return "some"


NEVER_EMPTY = {
    "Call.name", "Stage.actions", "Run.stages", "UnionType.alternatives", "Lambda.parameters", "ObjectType.fields",
    "SourceFile.items", "MissionDef.clauses", "TransformDef.variants", "Refinement.fields", "Literal_.value",
    "LiteralPattern.value", "LiteralType.value",
}  # fmt: skip


def test_every_part_of_every_construct_is_there_and_left_out() -> None:
    kinds = [
        k for k in vars(nodes).values() if isinstance(k, type) and issubclass(k, nodes.Node) and k is not nodes.Node
    ]
    wanted = {form for kind in kinds for form in forms(kind)}
    wanted -= {form for form in wanted if form.endswith(": none") and form.partition(":")[0] in NEVER_EMPTY}
    seen: set[str] = set()
    for node in all_nodes():
        name = type(node).__name__
        for field in (*nodes.compared_fields(type(node)), "form"):
            if hasattr(node, field):
                value = getattr(node, field)
                seen |= {
                    f"{name}.{field}: {form_of(value)}",
                    f"{name}.{field}: {value}" if isinstance(value, str) else "",
                }
    assert sorted(wanted - seen - IMPOSSIBLE) == []


# --- what the tree no longer shows ------------------------------------------------------------------------------------

# The alternatives of the grammar that leave no trace in the tree, each with what it looks like in a text.
WRITTEN = {
    "comment //": r"^\s*// ",
    "comment #": r"^\s*# ",
    "comment /* */": r"/\*.*\*/",
    "comment over several lines": r"/\*[^*]*\n[^*]*\*/",
    "string in double quotes": r'"[a-z]',
    "string in single quotes": r"'[a-z]",
    "escapes": r"\\n.*\\t|\\t.*\\n",
    "escape by number": r"\\u[0-9a-fA-F]{4}",
    "number with underscores": r"\d_\d",
    "number with exponent": r"\d[eE][+-]?\d",
    "unit in the singular": r"1 (?:second|minute|hour|day|week)\b",
    "unit in the plural": r"\d (?:seconds|minutes|hours|days|weeks)\b",
    "unit that touches": r"\dms\b",
    "name in backticks": r"`[^`\n]+`",
    "key as a string": r'[{,]\s*"[^"]*":',
    "key as a number": r"[{,]\s*\d+:",
    "reserved word as a key": r"[{,]\s*(?:if|null|where|match|in|is|then|else):",
    "reserved word after a dot": r"\.(?:if|where|match|in|is)\b",
    "trailing comma": r",\s*[}\])]",
    "entries without commas": r"^\s*\w+: [\w\"]+\n\s*\w+: ",
    "method in upper case": r"\b(?:GET|POST|PUT|PATCH|DELETE) ",
    "source before the path": r"\b(?:get|post) [A-Z]\w* \"",
    "source after the path": r"\" from [A-Z]\w*",
    "source as an option": r"source: [A-Z]",
    "source as a text": r"source: \"",
    "params and query": r"query: \{",
    "option word in quotes": r"(?:strategy|backoff): \"",
    "option word bare": r"(?:strategy|backoff): [a-z]",
    "lastSync with a key": r"lastSync\(\"",
    "lastSync with a block": r"lastSync \{",
    "wildcard arm": r"_ -> ",
    "wildcard of an expression": r"_ => ",
    "arm that runs an action by its name": r"-> [A-Z]\w*\b(?!\.)\s*[,}\n]",
    "stage in brackets": r"run (?:\w+ then )*\[",
    "transform of one schema": r"transform \w+\s*: ?\w+ -> \w+ \{|transform \w+: \w+",
    "transform of any value": r"transform \w+ -> ",
    "transform of several variants": r"transform \w+ \{",
    "variant of any value": r"\(_\)",
    "delete of a record": r"delete \w+ ?\[",
    "store each": r"store each ",
    "assume if": r"assume if .*\{",
    "assume with a message alone": r"else \"",
    "assume with a severity alone": r"else (?:error|warning)\s*[,}\n]",
    "validate without a target": r"validate \{",
    "match without a subject": r"match \{",
    "conditional with question mark": r" \? .* : ",
    "conditional in words": r"\bif .* then .* else ",
    "call of a method": r"\w\.\w+\(",
    "call by a pipe": r"\| \w+\(",
    "lambda of one parameter": r"\w => ",
    "lambda of two parameters": r"\(\w+, \w+\) => ",
    "spread": r"\.\.\.\w",
    "range": r"\d ?\.\. ?\d|\d+\.\.\w",
    "operator at the start of a line": r"^\s*(?:\+|and|or|\?|then|else|where)\s",
    "byte order mark": r"\A\ufeff",
    "import with a name": r"^import \w+ from ",
    "import without a name": r"^import \"",
    "schedule every": r"schedule: every ",
    "schedule cron": r"schedule: cron ",
    "schedule at": r"schedule: at ",
    "schema from another": r"schema \w+ from ",
    "counted type": r"\d+ of |\d+\.\.\d+ of ",
    "precision": r"decimal\(\d\)",
    "optional type": r"\w\?",
    "union type": r"\w \| (?:null|\w|\")",
    "refinement": r"refine \{",
    "ignored block": r"^(?:dataset|context|distribution) ",
    "extension step": r"^\s*notify \{",
}


@cache
def texts() -> tuple[str, ...]:
    return tuple(path.read_bytes().decode() for path in ALL)


def test_carriage_returns_occur() -> None:
    assert any("\r\n" in text for text in texts())


@pytest.mark.parametrize("what", WRITTEN)
def test_every_way_to_write_occurs(what: str) -> None:
    pattern = re.compile(WRITTEN[what], re.MULTILINE)
    assert any(pattern.search(text) for text in texts())
