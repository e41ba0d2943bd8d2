"""JSON values to try: what an API may send."""

from hypothesis import strategies as st

_INTEGERS = st.one_of(
    st.integers(),
    st.integers(-(10**399), 10**399),
    st.sampled_from([2**53 + 1, 2**63, 2**64, -(2**63) - 1, 0, -1]),
)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = st.none() | st.booleans() | _INTEGERS | _FLOATS | _TEXTS

JSON_VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4), max_leaves=12
)


def deep(levels: int) -> object:
    """A value nested so deeply, lists and objects in turn."""
    value: object = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value
