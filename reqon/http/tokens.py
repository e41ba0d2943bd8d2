"""Tokens that may change while missions run (spec/runtime.md 3.3 to 3.5)."""

from collections.abc import Callable, Mapping
from datetime import datetime
from inspect import isawaitable
from typing import Any, Protocol

from reqon.errors import USERS_FAULTS, AuthenticationError
from reqon.secrets import SECRETS
from reqon.values import Value

# Told after a token request: reason (expiry, 401, initial), the error if it failed, the new token's end.
Told = Callable[[str, str | None, datetime | None], None]


class Tokens(Protocol):
    """One credential's tokens, shared by all that use it. `generation` grows with each new token."""

    generation: int
    headers: tuple[tuple[str, str], ...]

    @property
    def is_fresh(self) -> bool:
        """Whether the present token may be used without asking for another."""

    async def obtain(self, told: Told) -> None:
        """Get a fresh token, one caller for all.

        Raises:
            AuthenticationError: there is none to be had.
        """

    async def renew(self, refused: int, told: Told) -> bool:
        """The server refused the token of this generation: whether there is another now.

        Raises:
            AuthenticationError: the token endpoint says no.
        """

    def adopt(self, value: Value) -> bool:
        """Take a token found in an answer; whether there was one."""

    def forgive(self) -> None:
        """A new run begins: ask again, although the last one was told no."""

    async def close(self) -> None:
        """Let what is under way end, shortly."""


def token_in(value: Value) -> str | None:
    """The first non-empty text of `access_token`, `accessToken`, `token`."""
    if isinstance(value, dict):
        for name in ("access_token", "accessToken", "token"):
            found = value.get(name)
            if isinstance(found, str) and found.strip():
                return found.strip()
    return None


class BearerToken:
    """A configured token: nothing renews it, but a mission may bring another."""

    is_fresh = True

    def __init__(self, token: str) -> None:
        self.generation = 0
        self.headers: tuple[tuple[str, str], ...] = (("Authorization", f"Bearer {token}"),)

    async def obtain(self, told: Told) -> None:  # the protocol's
        """Nothing to do: a configured token counts as fresh."""

    async def renew(self, refused: int, told: Told) -> bool:  # noqa: ARG002  # the protocol's
        return self.generation > refused

    def adopt(self, value: Value) -> bool:
        token = token_in(value)
        if token is None:
            return False
        SECRETS.add(token)
        self.headers = (("Authorization", f"Bearer {token}"),)
        self.generation += 1
        return True

    def forgive(self) -> None:
        """Nothing is held against it."""

    async def close(self) -> None:
        """Nothing is under way."""


class AuthProvider(Protocol):
    """What a factory given to `register_auth_provider` makes; `refresh_token` and `get_headers` are optional."""

    async def get_token(self) -> str: ...


class ProviderTokens:
    """A registered provider's tokens: it is asked before each request, and keeps what it wants to keep."""

    is_fresh = False

    def __init__(self, source: str, provider: AuthProvider) -> None:
        self.generation = 0
        self.headers: tuple[tuple[str, str], ...] = ()
        self._source = source
        self._provider = provider

    async def obtain(self, told: Told) -> None:  # noqa: ARG002  # the protocol's
        get_headers = getattr(self._provider, "get_headers", None)
        if get_headers is None:
            self._use((("Authorization", f"Bearer {await self._asked('get_token')}"),))
            return
        headers = await self._asked("get_headers", Mapping)
        self._use(tuple((str(name), str(value)) for name, value in headers.items()))

    async def renew(self, refused: int, told: Told) -> bool:
        if self.generation > refused:
            return True
        if getattr(self._provider, "refresh_token", None) is None:
            return False
        try:
            token = await self._asked("refresh_token")
        except AuthenticationError as error:
            told("401", error.message, None)
            raise
        told("401", None, None)
        self._use((("Authorization", f"Bearer {token}"),))
        return True

    async def _asked(self, method: str, wanted: type = str) -> Any:
        """What a method of the provider gives, plain or async.

        Raises:
            AuthenticationError: it failed, or gave something else.
        """
        try:
            given = getattr(self._provider, method)()
            if isawaitable(given):
                given = await given
        except USERS_FAULTS as error:
            raise self._failed(f"{type(error).__name__}: {error}") from error
        if not isinstance(given, wanted) or not given:
            kind = type(given).__name__ if given != "" else "an empty text"
            raise self._failed(f"{method} gave {kind}, not a {'text' if wanted is str else 'dict'}")
        return given

    def _failed(self, why: str) -> AuthenticationError:
        return AuthenticationError(f"the auth provider of source '{self._source}' failed: {why}", kind="auth")

    def adopt(self, value: Value) -> bool:  # noqa: ARG002  # the protocol's
        return False

    def forgive(self) -> None:
        """Nothing is held against it."""

    async def close(self) -> None:
        """What it holds is its own."""

    def _use(self, headers: tuple[tuple[str, str], ...]) -> None:
        if headers != self.headers:
            for name, value in headers:
                SECRETS.add_header(name)
                SECRETS.add(value, value.removeprefix("Bearer "))
            SECRETS.forget(*(v.removeprefix("Bearer ") for _, v in self.headers), *(v for _, v in self.headers))
            self.headers = headers
            self.generation += 1
