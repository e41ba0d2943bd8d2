"""Built-in functions on texts. They take any scalar by its text form; null stays null."""

import re
import unicodedata
from datetime import timedelta
from urllib.parse import quote

from reqon.lang.functions.registry import builtin, fail, whole
from reqon.lang.operators import MAX_TEXT, elements, iterable, kind_of, text, text_form, too_large
from reqon.values import Value

_WORD = re.compile(r"\S+")
_NOT_SLUG = re.compile(r"[^a-z0-9]+")
_NOT_WORD = re.compile(r"[\W_]+")
# Letters that Unicode does not take apart into an ASCII letter and a mark.
_FOLDS = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "ae", "ø": "o", "Ø": "o", "ł": "l", "Ł": "l", "đ": "d", "Đ": "d"}
    | {"œ": "oe", "Œ": "oe", "þ": "th", "Þ": "th", "ð": "d", "Ð": "d", "\u0131": "i"}
)


@builtin("lowercase", 1)
def lowercase(s: Value) -> str | None:
    return None if s is None else text_form(s, "lowercase").lower()


@builtin("uppercase", 1)
def uppercase(s: Value) -> str | None:
    return None if s is None else text_form(s, "uppercase").upper()


@builtin("capitalize", 1)
def capitalize(s: Value) -> str | None:
    if s is None:
        return None
    return _WORD.sub(lambda m: m[0][0].upper() + m[0][1:].lower(), text_form(s, "capitalize"))


def words(s: str) -> list[str]:
    """The words of an identifier or phrase: split at all but letters and digits, and at `aB` and `ABc`."""
    found = []
    for part in _NOT_WORD.split(s):
        start = 0
        for at in range(1, len(part)):
            before, here = part[at - 1], part[at]
            if here.isupper() and (not before.isupper() or (at + 1 < len(part) and part[at + 1].islower())):
                found.append(part[start:at])
                start = at
        if part:
            found.append(part[start:])
    return found


@builtin("kebabCase", 1)
def kebab_case(s: Value) -> str | None:
    return None if s is None else "-".join(word.lower() for word in words(text_form(s, "kebabCase")))


@builtin("snakeCase", 1)
def snake_case(s: Value) -> str | None:
    return None if s is None else "_".join(word.lower() for word in words(text_form(s, "snakeCase")))


@builtin("camelCase", 1)
def camel_case(s: Value) -> str | None:
    if s is None:
        return None
    first, *rest = words(text_form(s, "camelCase")) or [""]
    return first.lower() + "".join(word[0].upper() + word[1:].lower() for word in rest)


@builtin("slugify", 1)
def slugify(s: Value) -> str | None:
    if s is None:
        return None
    folded = unicodedata.normalize("NFKD", text_form(s, "slugify").translate(_FOLDS))
    return _NOT_SLUG.sub("-", folded.encode("ascii", "ignore").decode("ascii").lower()).strip("-")


@builtin("trim", 1)
def trim(s: Value) -> str | None:
    return None if s is None else text_form(s, "trim").strip()


@builtin("trimStart", 1)
def trim_start(s: Value) -> str | None:
    return None if s is None else text_form(s, "trimStart").lstrip()


@builtin("trimEnd", 1)
def trim_end(s: Value) -> str | None:
    return None if s is None else text_form(s, "trimEnd").rstrip()


@builtin("substring", 2, 3)
def substring(s: Value, start: Value, end: Value = None) -> str | None:
    """Characters from `start` to before `end` (null: the end of the text), both clamped to the text."""
    if s is None:
        return None
    whole_text = text_form(s, "substring")
    first = max(0, whole("substring", start, "the start"))
    last = len(whole_text) if end is None else max(0, whole("substring", end, "the end"))
    return whole_text[first:last]


@builtin("split", 2)
def split(s: Value, separator: Value) -> list[str] | None:
    if s is None:
        return None
    whole_text, at = text_form(s, "split"), text_form(separator, "split")
    return whole_text.split(at) if at else list(whole_text)


@builtin("join", 1, 2)
def join(xs: Value, separator: Value = ",") -> str | None:
    """The elements' texts joined; null elements as ""."""
    if xs is None:
        return None
    return joined([text(x) for x in _listed("join", xs)], text_form(separator, "join"))


def joined(parts: list[str], separator: str = "") -> str:
    """Texts joined, if one value may be that large."""
    if sum(map(len, parts)) + len(separator) * len(parts) > MAX_TEXT:
        too_large("a text")
    return separator.join(parts)


def _listed(function: str, xs: Value) -> list[Value]:
    found = elements(xs)
    if found is None:
        fail(function, "an array or a store", xs)
    return list(found)


@builtin("replace", 3)
def replace(s: Value, what: Value, by: Value) -> str | None:
    """All occurrences of a literal text replaced; an empty one is found nowhere."""
    if s is None:
        return None
    whole_text, old, new = text_form(s, "replace"), text_form(what, "replace"), text_form(by, "replace")
    if not old:
        return whole_text
    if len(new) > len(old) and len(whole_text) + whole_text.count(old) * (len(new) - len(old)) > MAX_TEXT:
        too_large("a text")
    return whole_text.replace(old, new)


@builtin("concat", 1, None)
def concat(*values: Value) -> Value:
    """One array of the arguments' elements if all but nulls are arrays, else the joined text; nulls add nothing."""
    present = [value for value in values if value is not None]
    if present and all(elements(value) is not None for value in present):
        return [element for value in present for element in iterable(value, "concat")]
    return joined([text(value) for value in present])


@builtin("toString", 1)
def to_string(x: Value) -> str:
    return text(x)


@builtin("toBoolean", 1)
def to_boolean(x: Value) -> bool:
    """`"true" "1" "yes"` and `"false" "0" "no" ""` by their meaning, in any case; else by truthiness."""
    if isinstance(x, str):
        return x.lower() not in ("false", "0", "no", "")
    # A duration of 0 or an empty array is truthy, as in conditions.
    return bool(x) or isinstance(x, timedelta) or kind_of(x) in ("array", "object", "store")


@builtin("pathSegments", 1)
def path_segments(x: Value) -> str | None:
    """Several URL path segments from one text: each piece between `/` percent-encoded."""
    return None if x is None else "/".join(quote(piece, safe="") for piece in text_form(x, "pathSegments").split("/"))
