"""JSON pointers (RFC 6901), as `$ref` writes them and as messages show places in a document."""

from collections.abc import Sequence

from reqon.values import Value


class MissingError(Exception):
    """There is nothing at a pointer; `args[0]` is the first token that leads nowhere."""


def tokens_of(pointer: str) -> list[str]:
    """The tokens of a pointer that is percent-decoded already, such as `/paths/~1bins~1{id}`.

    Raises:
        MissingError: it is no pointer, such as an anchor's name.
    """
    if not pointer:
        return []
    if not pointer.startswith("/"):
        raise MissingError(pointer)
    if "~" in pointer:
        return [token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/")]
    return pointer[1:].split("/")


def pointer_of(tokens: Sequence[object]) -> str:
    """The pointer of such tokens, not percent-encoded: for messages and keys."""
    return "".join("/" + str(token).replace("~", "~0").replace("/", "~1") for token in tokens)


def walk_to(value: Value, tokens: Sequence[str]) -> Value:
    """What lies at the end of these tokens.

    Raises:
        MissingError: nothing does.
    """
    for token in tokens:
        if isinstance(value, dict) and token in value:
            value = value[token]
        elif isinstance(value, list) and token.isdecimal() and int(token) < len(value):
            value = value[int(token)]
        else:
            raise MissingError(token)
    return value
