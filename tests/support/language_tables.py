"""Which words the language knows, taken from the code's own tables: what corpus, guide and editors must cover."""

from collections.abc import Iterator

from reqon.lang import options
from reqon.lang.kinds import Either, Kind, Registered, Table, Words

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
