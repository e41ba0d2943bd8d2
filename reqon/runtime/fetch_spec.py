"""What is known of a request step before it runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reqon.diagnostics import Span
from reqon.runtime.registries import PaginationFactory
from reqon.values import Value

if TYPE_CHECKING:  # at run time only where a mission calls operations
    from reqon.http.openapi.operation import Operation
    from reqon.http.openapi.spec import Spec

EFFECTS = frozenset(("POST", "PUT", "PATCH", "DELETE"))

# `until` of a page, its code and headers, the parameter's next value, and whether the strategy sees a further page.
Until = Callable[[Value, Mapping[str, Value], Value, bool], object]


@dataclass(frozen=True, slots=True)
class PaginateSpec:
    """`paginate:` as written: its strategy, the parameter, the page size, and what finds a cursor.

    `custom` makes the decider of a registered strategy, given its `arguments`.
    """

    strategy: str
    parameter: str
    size: int
    find_cursor: Callable[[Value, Mapping[str, str]], Value] | None = None
    relation: str = "next"
    custom: PaginationFactory | None = None
    arguments: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class SinceSpec:
    """`since:` as written. `uses_checkpoint`: its value is the fetch's sync checkpoint."""

    uses_checkpoint: bool
    parameter: str = "modified_since"
    format: str = "iso"
    update_from: Callable[[Value], Value] | None = None


@dataclass(frozen=True, slots=True)
class FetchSpec:
    """What is known of a request step before it runs.

    Attributes:
        document, operation: those of a `call`.
        held: a later step puts the whole response into a memory store, so leaving items in the journal saves nothing.
        before_loop: it stands in an arm together with a loop, which a resume reaches by going through the arm again.
    """

    source: str
    method: str
    path: str
    template: str
    guarded: bool
    shows_request: bool
    step_path: str
    paginate: PaginateSpec | None = None
    since: SinceSpec | None = None
    until_path: tuple[str, ...] | None = None
    keeps_sync: bool = False
    held: bool = False
    before_loop: bool = False
    span: Span | None = field(default=None, compare=False)
    document: "Spec | None" = field(default=None, compare=False)
    operation: "Operation | None" = field(default=None, compare=False)
