"""What a built-in function is, and how the modules beside this one declare theirs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn, Protocol, TypeVar

from reqon.errors import EvaluatorError
from reqon.lang.operators import described, is_number
from reqon.values import Value

Body = TypeVar("Body", bound=Callable[..., Any])


class World(Protocol):
    """What expressions may know of the world around them; everything else is pure."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment's variables."""

    def now(self) -> datetime:
        """The instant, aware."""

    def uuid(self) -> str:
        """A new random UUID v4 as text."""

    def last_sync(self, key: Value) -> datetime | None:
        """The checkpoint kept under a sync key."""

    def webhook_url(self, path: Value) -> str:
        """The URL of the endpoint that a later `wait` uses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Builtin:
    """One built-in function.

    Attributes:
        least, most: how many arguments it takes; `most` is None where there is no limit.
        element: positions of the arguments that are evaluated once per element; `body` gets a Python callable there.
        pure: the result depends on the arguments alone.
        world: `body` takes a `World` before the arguments.
        aggregate: `sum avg min max`, whose second argument is an element argument only if the first is an array.
    """

    name: str
    body: Callable[..., Value]
    least: int
    most: int | None
    element: frozenset[int] = frozenset()
    pure: bool = True
    world: bool = False
    aggregate: bool = False

    def accepts(self, count: int) -> bool:
        """Whether it takes so many arguments."""
        return self.least <= count and (self.most is None or count <= self.most)

    def arity_text(self) -> str:
        """`2 arguments`, `1 or 2 arguments`, `at least 1 argument`."""
        if self.most is None:
            return f"at least {_arguments(self.least)}"
        if self.least == self.most:
            return _arguments(self.least)
        link = "or" if self.most == self.least + 1 else "to"
        return f"{self.least} {link} {_arguments(self.most)}"


def _arguments(count: int) -> str:
    return "1 argument" if count == 1 else f"{count} arguments"


BUILTINS: dict[str, Builtin] = {}


def builtin(
    name: str,
    least: int,
    most: int | None = -1,
    *,
    element: Iterable[int] = (),
    pure: bool = True,
    world: bool = False,
    aggregate: bool = False,
) -> Callable[[Body], Body]:
    """Declare the decorated function as a built-in; `most` left out means exactly `least` arguments."""

    def declare(body: Body) -> Body:
        BUILTINS[name] = Builtin(
            name=name,
            body=body,
            least=least,
            most=least if most == -1 else most,
            element=frozenset(element),
            pure=pure and not world,
            world=world,
            aggregate=aggregate,
        )
        return body

    return declare


def fail(function: str, expected: str, value: Value) -> NoReturn:
    """The error of a built-in that got the wrong kind of value."""
    raise EvaluatorError(f"{function}() needs {expected}, not {described(value)}")


def whole(function: str, value: Value, what: str) -> int:
    """An argument that must be an integral number."""
    if is_number(value) and value == int(value):
        return int(value)
    fail(function, f"an integer for {what}", value)
