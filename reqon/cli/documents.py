"""OpenAPI documents for commands that run nothing."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from reqon.state.directory import StateDirectory

if TYPE_CHECKING:
    from reqon.http.openapi.loading import Specifications


def documents(state: Path, variables: Mapping[str, str], *, offline: bool) -> "Callable[[], Specifications]":
    """What loads them, made when it is first asked for. Without `offline` it downloads what is not kept.

    A state directory that isn't there is not made; in one that is, downloads are kept.
    """

    @cache
    def made() -> "Specifications":
        from reqon.http.openapi.loading import Specifications  # noqa: PLC0415  # only where a source has one

        keep = state.is_dir()
        return Specifications(StateDirectory(state).oas_cache, environment=variables, offline=offline, keep=keep)

    return made
