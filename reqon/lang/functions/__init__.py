"""The built-in functions of spec/language.md 3.8, and those that a program registers beside them."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from reqon.errors import USERS_FAULTS, EvaluatorError, ReqonError, SemanticError
from reqon.lang.functions import dates, lists, numbers, objects, registry, texts, world
from reqon.lang.functions.registry import Builtin, World
from reqon.lang.functions.world import PlainWorld
from reqon.values import JsonError, Value, refuse_no_value

BUILTINS: Mapping[str, Builtin] = registry.BUILTINS
REGISTERED: dict[str, Callable[..., Value]] = {}


def register_function(
    name: str, function: Callable[..., Value], into: dict[str, Callable[..., Value]] | None = None
) -> None:
    """Let missions call `name`; registering it again replaces it. Plain or async.

    Raises:
        SemanticError: the name is no identifier, or a built-in's.
    """
    if not name.isidentifier():
        raise SemanticError(f"'{name}' is no identifier", code="undefined-function")
    if name in BUILTINS:
        raise SemanticError(f"'{name}' is a built-in function and cannot be replaced", code="undefined-function")
    (REGISTERED if into is None else into)[name] = function


def call_counted(builtin: Builtin, asked: World, *arguments: Value) -> Value:
    """The value of a built-in whose arguments are counted only now, because some were spread.

    Raises:
        EvaluatorError: too few or too many arguments.
    """
    if not builtin.accepts(len(arguments)):
        raise EvaluatorError(f"{builtin.name}() takes {builtin.arity_text()}, got {len(arguments)}")
    return builtin.body(asked, *arguments) if builtin.world else builtin.body(*arguments)


def call_registered(name: str, function: Callable[..., Value], *arguments: Value) -> Value:
    """The value of a registered function; an awaitable one is run to its end, on a loop of its own.

    Raises:
        EvaluatorError: the function raised, or gave what is no value; names it.
    """
    try:
        result = function(*arguments)
        if inspect.isawaitable(result):
            result = _finished(result)
        refuse_no_value(result)
    except JsonError as error:
        raise EvaluatorError(f"{name}() gave what is no value: {error.message}") from error
    except ReqonError:
        raise
    except USERS_FAULTS as error:
        raise EvaluatorError(f"{name}() failed: {type(error).__name__}: {error}") from error
    return result


def _finished(result: Awaitable[Value]) -> Value:
    async def wait() -> Value:
        return await result

    # Expressions never await, and the loop that runs the mission is busy with this very call.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, wait()).result()


__all__ = [
    "BUILTINS",
    "REGISTERED",
    "Builtin",
    "PlainWorld",
    "World",
    "call_counted",
    "call_registered",
    "dates",
    "lists",
    "numbers",
    "objects",
    "register_function",
    "texts",
    "world",
]
