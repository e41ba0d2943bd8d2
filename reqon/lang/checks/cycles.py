"""Names that lead back to themselves."""

from collections.abc import Iterator, Mapping, Sequence


def cycles(follows: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Ways back to a name, as in `(A, B, A)`: at least one for each group of names that reach each other.

    Takes time in proportion to the graph and no recursion, however long the chains are.
    """
    done: set[str] = set()
    for start in follows:
        if start in done:
            continue
        way = [start]
        open_names = {start: 0}
        branches = [iter(follows[start])]
        while branches:
            name = next(branches[-1], None)
            if name is None:
                branches.pop()
                left = way.pop()
                del open_names[left]
                done.add(left)
            elif name in open_names:
                yield (*way[open_names[name] :], name)
            elif name in follows and name not in done:
                open_names[name] = len(way)
                way.append(name)
                branches.append(iter(follows[name]))
