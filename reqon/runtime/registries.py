"""What users' code adds to missions (spec/runtime.md 20): functions, stores, auth providers, paginations, steps."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reqon.errors import SemanticError, refuse_uncallable
from reqon.http.auth import BUILT_IN as AUTH_KINDS
from reqon.http.auth import Fields
from reqon.http.pagination import CustomStrategy
from reqon.http.tokens import AuthProvider
from reqon.lang.check import Registered
from reqon.lang.checks.steps import STEP_WORDS
from reqon.lang.functions import REGISTERED, register_function
from reqon.lang.options import PAGINATION_NAMES
from reqon.state.custom import registered_state_stores
from reqon.stores import registry as stores
from reqon.values import Value

log = logging.getLogger("reqon")

AuthFactory = Callable[[Fields], AuthProvider]
PaginationFactory = Callable[[Mapping[str, Any]], CustomStrategy]
# Called with the step and where it stands; what it gives is discarded, what it raises fails the step as `extension`.
StepHandler = Callable[[Any, Any], Awaitable[object] | object]


@dataclass(slots=True, eq=False)
class Registries:
    """One set of extensions: the process's own, or those of one `Reqon()`."""

    functions: dict[str, Callable[..., Value]] = field(default_factory=dict)
    adapters: dict[str, stores.AdapterFactory] = field(default_factory=dict)
    auth_providers: dict[str, AuthFactory] = field(default_factory=dict)
    paginations: dict[str, PaginationFactory] = field(default_factory=dict)
    steps: dict[str, StepHandler] = field(default_factory=dict)

    def register_function(self, name: str, function: Callable[..., Value]) -> None:
        """Let missions call `name(…)`. Plain or async; must not block for long.

        Raises:
            SemanticError: the name is no identifier, or a built-in's.
        """
        _note(name, function, self.functions)
        register_function(name, function, self.functions)

    def register_store_adapter(self, name: str, factory: stores.AdapterFactory) -> None:
        """Make `name("identifier")` a store: `factory(identifier, config)` answers its adapter.

        Raises:
            ConfigurationError: the name is no identifier, or one of ours.
        """
        stores.check_adapter_name(name)
        _note(name, factory, self.adapters)
        self.adapters[name] = factory

    def register_auth_provider(self, name: str, factory: AuthFactory) -> None:
        """Make `auth: name` mean what `factory(credential record)` answers: an object with `async get_token()`.

        It may have `async refresh_token()`, asked after a 401, and `async get_headers()`, instead of Authorization.

        Raises:
            SemanticError: the name is no identifier, or one of ours.
        """
        _add(name, factory, self.auth_providers, AUTH_KINDS, "auth type")

    def register_pagination_strategy(self, name: str, factory: PaginationFactory) -> None:
        """Make `paginate: name(…)` mean what `factory({"args": […], "fetch": options})` answers, for each fetch.

        The object has `get_initial_params()`, `update_from_response(body, headers)`, `has_more()`,
        `get_next_params()`; it may have `extract_items(body)`, and `state()` with `restore(value)` for resumes.

        Raises:
            SemanticError: the name is no identifier, or one of ours.
        """
        _add(name, factory, self.paginations, PAGINATION_NAMES, "pagination strategy")

    def register_step_handler(self, word: str, handler: StepHandler) -> None:
        """Make `word { options }` a step: `handler(step, context)`, plain or async; `step.options` are evaluated.

        Raises:
            SemanticError: the word is no identifier, or begins a step of the language.
        """
        _add(word, handler, self.steps, STEP_WORDS, "step")

    def known(self) -> Registered:
        """The names, for the checker."""
        return Registered(
            functions=frozenset(self.functions),
            adapters=frozenset(self.adapters),
            auth=frozenset(self.auth_providers),
            pagination=frozenset(self.paginations),
            steps=frozenset(self.steps),
            state_stores=frozenset(registered_state_stores()),
        )


def _add(name: str, thing: Any, into: dict[str, Any], ours: Any, kind: str) -> None:
    if not name.isidentifier():
        raise SemanticError(f"'{name}' is no identifier", hint="use letters, digits and _")
    if name in ours:
        raise SemanticError(f"'{name}' is a built-in {kind} and cannot be replaced")
    _note(name, thing, into)
    into[name] = thing


def _note(name: str, thing: object, into: Mapping[str, object]) -> None:
    refuse_uncallable(name, thing)
    if name in into:
        log.debug("%s is registered again: the new one counts", name)


# The process's own: what `reqon.register_…` fills, and what the command line and the daemon use.
GLOBAL = Registries(functions=REGISTERED, adapters=stores.REGISTERED)
