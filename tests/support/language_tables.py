"""Which words the language knows, taken from the code's own tables: what corpus, guide and editors must cover."""

from collections.abc import Iterable, Iterator

from reqon.lang import nodes, options
from reqon.lang.kinds import Either, Kind, Paging, Registered, Table, Words, block_of
from reqon.lang.walk import walk

TABLES: dict[str, Table] = {
    name.lower(): table for name, table in vars(options).items() if isinstance(table, Table)
} | {"fetch": options.fetch_table("get")}


def option_keys() -> set[str]:
    """Every option key, aliases included."""
    return {key for table in TABLES.values() for key in (*table.keys, *table.aliases)}


def option_words() -> set[str]:
    """Every word that an enumerated option takes, in all its spellings."""
    return {word for table in TABLES.values() for kind in table.keys.values() for word in words_of(kind)}


def words_of(kind: Kind) -> Iterator[str]:
    """The words that a kind of value takes: enumerated ones, and the built-in names of what can be registered."""
    if isinstance(kind, Words):
        yield from (*kind.words, *kind.aliases)
    elif isinstance(kind, Registered):
        yield from kind.words
    elif isinstance(kind, Either):
        for part in kind.kinds:
            yield from words_of(part)


# --- which options a text uses ---------------------------------------------------------------------------------------


def used_options(tree: nodes.Node) -> Iterator[tuple[str, str, nodes.Node]]:
    """Each option that a text writes: the name of its table, its key as written, its value."""
    for node in walk(tree):
        match node:
            case nodes.SourceDef():
                yield from _listed("source", node.options)
            case nodes.Fetch() | nodes.CallStep():
                yield from _listed("fetch", node.options)
            case nodes.Retry() | nodes.Jump():
                yield from _listed("retry_step", node.options)
            case nodes.StoreStep():
                yield from _listed("store_step", node.options)
            case nodes.Queue():
                yield from _listed("queue", node.options)
            case nodes.Wait():
                yield from _listed("wait", node.options)
            case nodes.ActionDef():
                yield from _listed("action", node.options)
            case nodes.Since():
                yield from _listed("since", node.options)
            case nodes.Schedule():
                yield from _listed("schedule", node.options)
            case nodes.MissionDef():
                yield from _listed("mission", [c for c in node.clauses if isinstance(c, nodes.Option)])
            case nodes.StoreDef():
                yield from _adapter(node)


def _listed(table: str, written: Iterable[nodes.Option]) -> Iterator[tuple[str, str, nodes.Node]]:
    for option in written:
        yield from _used(table, option.key, option.value)


def _used(table: str, key: str, value: nodes.Node) -> Iterator[tuple[str, str, nodes.Node]]:
    yield table, key, value
    if not isinstance(value, nodes.ObjectLiteral):
        return
    kind = TABLES[table].kind(key)
    inner = options.PAGINATE if isinstance(kind, Paging) else block_of(kind) if kind is not None else None
    name = next((name for name, known in TABLES.items() if known is inner), None)
    for entry in value.entries if name is not None else ():
        if isinstance(entry, nodes.Entry):
            yield from _used(str(name), entry.key, entry.value)


def _adapter(node: nodes.StoreDef) -> Iterator[tuple[str, str, nodes.Node]]:
    for call in walk(node.adapter):
        table = options.STORE_TABLES.get(call.name.text) if isinstance(call, nodes.Call) else None
        if table is None or not isinstance(call, nodes.Call) or len(call.arguments) < 2:
            continue
        name = next(name for name, known in TABLES.items() if known is table)
        given = call.arguments[1]
        for entry in given.entries if isinstance(given, nodes.ObjectLiteral) else ():
            if isinstance(entry, nodes.Entry):
                yield name, entry.key, entry.value
