"""What users' code and OpenAPI documents add to the language, for the checker."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from reqon.errors import SpecError
from reqon.lang import nodes
from reqon.lang.check import Registered
from reqon.runtime.registries import GLOBAL, Registries
from reqon.state.directory import StateDirectory

if TYPE_CHECKING:  # at run time only where a source has a document
    from reqon.http.openapi.loading import Specifications


def registered(
    specifications: "Callable[[], Specifications] | None" = None,
    *,
    folder: Path | None = None,
    registries: Registries = GLOBAL,
) -> Registered:
    """The names that are known now: in this process, or to one `Reqon()`.

    With `specifications`, calls are checked against the documents of their sources; `folder` is where relative paths of
    a text start that is no file.
    """
    if specifications is None:
        return registries.known()
    operations = Operations(specifications, folder or Path())
    return replace(registries.known(), operations=operations, components=Components(specifications))


def specifications_in(state: Path, variables: Mapping[str, str], *, offline: bool) -> "Callable[[], Specifications]":
    """OpenAPI documents for those who run nothing; made when it is first asked for.

    Without `offline` what is not kept is downloaded. A state directory that isn't there is not made; in one that is,
    downloads are kept.
    """

    @cache
    def made() -> "Specifications":
        from reqon.http.openapi.loading import Specifications  # noqa: PLC0415  # only where a source has one

        keep = state.is_dir()
        return Specifications(StateDirectory(state).oas_cache, environment=variables, offline=offline, keep=keep)

    return made


class Operations:
    """What the checker asks of documents. Of one that cannot be had it knows nothing: the plan says what is wrong."""

    def __init__(self, specifications: "Callable[[], Specifications]", folder: Path) -> None:
        self._specifications = specifications
        self._folder = folder

    def __call__(self, source: nodes.SourceDef) -> Mapping[str, Collection[str]] | None:
        """Operation ids with their path parameters; None if the text alone doesn't say them."""
        from reqon.runtime.sources import written_spec  # noqa: PLC0415

        try:
            spec = written_spec(source, self._specifications(), self._folder)
        except SpecError:
            return None
        return None if spec is None else spec.path_parameters()


class Components:
    """What an import takes out of documents."""

    def __init__(self, specifications: "Callable[[], Specifications]") -> None:
        self._specifications = specifications

    def __call__(self, item: nodes.ImportDef, folder: Path) -> Mapping[str, nodes.SchemaDef]:
        """The component schemas of a document.

        Raises:
            SpecError: it cannot be used.
        """
        from reqon.runtime.components import component_schemas  # noqa: PLC0415

        return component_schemas(self._specifications().load(item.path, folder=folder), item.path_span)
