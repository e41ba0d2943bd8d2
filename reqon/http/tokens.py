"""Tokens that may change while missions run (spec/runtime.md 3.3 to 3.5)."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

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

    async def obtain(self, told: Told) -> None:
        """Nothing to do: a configured token counts as fresh."""

    async def renew(self, refused: int, told: Told) -> bool:
        return self.generation > refused

    def adopt(self, value: Value) -> bool:
        token = token_in(value)
        if token is None:
            return False
        SECRETS.add(token)
        self.headers = (("Authorization", f"Bearer {token}"),)
        self.generation += 1
        return True
