"""One operation of a document: what a call of it sends, and where its answers are described (spec/runtime.md 10.3)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reqon.errors import SpecError
from reqon.http.body import media_type
from reqon.http.openapi.parameters import Parameter, by_name
from reqon.http.openapi.references import Found, References

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_PLACES = ("path", "query", "header", "cookie")
_DEFAULT_STYLES = {"path": "simple", "query": "form", "header": "simple", "cookie": "form"}
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Operation:
    """One operation. Its parts are read when they are asked for; each may raise SpecError for a `$ref` that fails.

    `item` is the path's item, `found` the operation in it.
    """

    id: str
    method: str
    path: str
    item: Found
    found: Found
    references: References

    @property
    def parts(self) -> list[tuple[bool, str]]:
        """The path in order: (True, a parameter's name) or (False, text)."""
        return split_path(self.path)

    @cached_property
    def path_parameters(self) -> tuple[str, ...]:
        return path_parameters(self.path)

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The path's parameters and the operation's own, which replace equal ones."""
        known: dict[tuple[str, str], Parameter] = {}
        for place in (self.item, self.found):
            for parameter in self._parameters(place.below("parameters")):
                known[parameter.place, parameter.name] = parameter
        for name in self.path_parameters:
            known.setdefault(("path", name), Parameter(name=name, place="path", required=True, style="simple"))
        return tuple(known.values())

    @cached_property
    def by_name(self) -> dict[str, Parameter]:
        return by_name(self.parameters)

    def _parameters(self, listed: Found) -> Iterator[Parameter]:
        for index in range(len(listed.value) if isinstance(listed.value, list) else 0):
            found = self.references.resolved(listed.below(index))
            written: Any = found.value
            if not isinstance(written, dict) or written.get("in") not in _PLACES or "name" not in written:
                raise SpecError(f"{found.place}: a parameter needs 'name', and 'in': {', '.join(_PLACES)}")
            place = written["in"]
            style = written.get("style")
            style = style if isinstance(style, str) else _DEFAULT_STYLES[place]
            explode = written.get("explode")
            content = written.get("content")
            yield Parameter(
                name=str(written["name"]),
                place=place,
                required=written.get("required") is True,
                style=style,
                explode=explode if isinstance(explode, bool) else style in ("form", "deepObject"),
                as_json=isinstance(content, dict) and any(media_type(name).reading == "json" for name in content),
            )

    @cached_property
    def body_type(self) -> str | None:
        """The Content-Type of a body: JSON if it is offered, else a form, else the first; None: nothing is said."""
        body = self.references.resolved(self.found.below("requestBody"))
        content = body.below("content").value
        offered = [name for name in content if "*" not in name] if isinstance(content, dict) else []
        chosen = next((name for name in offered if media_type(name).reading == "json"), None)
        if chosen is None:
            chosen = _FORM if _FORM in offered else next((n for n in offered if n.startswith("text/")), None)
        return chosen or next(iter(offered), None)

    # --- answers ------------------------------------------------------------------------------------------------------

    def response(self, status: int) -> Found | None:
        """What is said of answers with this status: exactly, else by its hundred, else by default."""
        responses = self.found.below("responses")
        for name in (str(status), f"{status // 100}XX", f"{status // 100}xx", "default"):
            found = responses.below(name)
            if found.value is not None:
                return self.references.resolved(found)
        return None

    def content(self, status: int, received: str | None) -> Found | None:
        """The media type object for an answer: that of the type received, else any JSON one."""
        response = self.response(status)
        content = response.below("content") if response is not None else None
        if content is None or not isinstance(content.value, dict):
            return None
        wanted = media_type(received).name
        names = {media_type(name).name: name for name in content.value}
        ranges = (wanted, f"{wanted.partition('/')[0]}/*", "*/*")
        chosen = next((names[name] for name in ranges if name in names), None)
        if chosen is None:
            chosen = next((full for name, full in names.items() if media_type(name).reading == "json"), None)
        return None if chosen is None else self.references.resolved(content.below(chosen))

    def answer_schemas(self) -> Iterator[Found]:
        """The schemas of all answers."""
        responses = self.found.below("responses")
        for status in responses.value if isinstance(responses.value, dict) else ():
            content = self.references.resolved(responses.below(status)).below("content")
            for name in content.value if isinstance(content.value, dict) else ():
                schema = self.references.resolved(content.below(name)).below("schema")
                if schema.value is not None:
                    yield schema

    def success(self) -> tuple[int, Found] | None:
        """The lowest 2xx status that has a body, and its media type object, JSON if there is one."""
        responses = self.found.below("responses").value
        names = [str(name) for name in responses] if isinstance(responses, dict) else []
        exact = sorted(int(name) for name in names if name.isdecimal() and name.startswith("2"))
        others = [200] if any(name.upper() == "2XX" or name == "default" for name in names) else []
        for status in (*exact, *others):
            found = self.content(status, "application/json")
            if found is not None:
                return status, found
        return None


def split_path(path: str) -> list[tuple[bool, str]]:
    """A path template in order: (True, a parameter's name) or (False, text)."""
    return [(bool(index % 2), piece) for index, piece in enumerate(_PLACEHOLDER.split(path)) if piece or index % 2]


def path_parameters(path: str) -> tuple[str, ...]:
    """The names that a path template has placeholders for."""
    return tuple(dict.fromkeys(_PLACEHOLDER.findall(path)))
