"""A specification as missions use it: its operations, its servers, its schemas."""

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urljoin

from reqon.errors import SpecError
from reqon.http.openapi.document import Document, operations_of
from reqon.http.openapi.mock import mock_response
from reqon.http.openapi.operation import Operation, path_parameters
from reqon.http.openapi.pointers import pointer_of
from reqon.http.openapi.references import Found, References, is_url
from reqon.http.openapi.schemas import Bundle
from reqon.http.openapi.validation import ResponseCheck
from reqon.values import Value


class Spec:
    """One OpenAPI document with all that belongs to it. Shared by all missions of a process; safe for threads.

    `shown` is its location as the mission gives it, `count` the number of its operations.
    """

    def __init__(self, root: Document, open_document: Callable[[str], Document], shown: str) -> None:
        self.root = root
        self.shown = shown
        self.references = References(root, open_document)
        self.count = root.count
        self._elsewhere: dict[str, tuple[str, str]] = {}
        self._unread: list[str] = []
        self._operations: dict[str, Operation] = {}
        self._checks: dict[tuple[str, str], ResponseCheck] = {}
        self._prepared: set[str] = set()
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"Spec({self.shown}, {self.count} operations)"

    @property
    def url(self) -> str | None:
        """Where it was downloaded from; None for a file."""
        return self.root.location if is_url(self.root.location) else None

    @property
    def locations(self) -> Iterable[str]:
        """Where its documents lie, as far as they were opened."""
        return list(self.references.documents)

    def gather(self) -> list[tuple[str, str]]:
        """Find the operations of paths whose item is a `$ref`; what is wrong with them, each with its place.

        An item that cannot be read is none of it: whoever calls one of its operations hears of it.
        """
        problems: list[tuple[str, str]] = []
        for path in self.root.elsewhere:
            try:
                item = self._item(path)
            except SpecError as error:
                self._unread.append(error.message)
                continue
            for method, operation in operations_of(item.value) if isinstance(item.value, dict) else ():
                self.count += 1
                identity = operation.get("operationId")
                if not isinstance(identity, str) or not identity:
                    continue
                first = self.root.operations.get(identity) or self._elsewhere.setdefault(identity, (method, path))
                if first != (method, path):
                    problem = f"operationId '{identity}' is that of {first[0].upper()} {first[1]} already"
                    problems.append((pointer_of(("paths", path, method)), problem))
        return problems

    # --- operations ---------------------------------------------------------------------------------------------------

    @property
    def operations(self) -> Mapping[str, tuple[str, str]]:
        """OperationId -> (method, path)."""
        return {**self.root.operations, **self._elsewhere} if self._elsewhere else self.root.operations

    def path_parameters(self) -> dict[str, tuple[str, ...]]:
        """OperationId -> the names in its path."""
        return {identity: path_parameters(path) for identity, (_, path) in self.operations.items()}

    def operation(self, identity: str) -> Operation | None:
        """The operation with this id, None if there is none.

        Raises:
            SpecError: a `$ref` on the way to it leads nowhere.
        """
        with self._lock:
            known = self._operations.get(identity)
            if known is None:
                place = self.operations.get(identity)
                if place is None:
                    return None
                method, path = place
                item = self._item(path)
                known = self._operations[identity] = Operation(
                    identity, method.upper(), path, item, item.below(method), self.references
                )
            return known

    def unknown(self, identity: str) -> str | None:
        """What to say to somebody who asks for an operation that there isn't."""
        if self._unread:
            return f"perhaps it is in a part that cannot be read: {self._unread[0]}"
        similar = similar_names(identity, self.operations)
        return f"operations with a similar name: {', '.join(similar)}" if similar else None

    def _item(self, path: str) -> Found:
        pointer = pointer_of(("paths", path))
        item = self.root.at(pointer)
        found = Found(self.root, pointer, item)
        resolved = self.references.resolved(found)
        if isinstance(item, dict) and len(item) > 1 and "$ref" in item and isinstance(resolved.value, dict):
            # Operations beside the reference, which 3.0 leaves undefined and tools write all the same.
            return resolved._replace(value={**{k: v for k, v in item.items() if k != "$ref"}, **resolved.value})
        return resolved

    # --- servers ------------------------------------------------------------------------------------------------------

    def server(self) -> str | None:
        """The first server's URL with its variables' defaults; relative ones resolved, None where that can't be.

        Raises:
            SpecError: a variable without default.
        """
        servers: Any = self.root.at("/servers") if self.root.has("/servers") else None
        first = servers[0] if isinstance(servers, list) and servers else {"url": "/"}
        url = first.get("url") if isinstance(first, dict) else None
        if not isinstance(url, str):
            raise SpecError(f"{self.shown}#/servers/0: 'url' is missing")
        variables = first.get("variables")
        for name, variable in variables.items() if isinstance(variables, dict) else ():
            default = variable.get("default") if isinstance(variable, dict) else None
            if default is not None:
                url = url.replace(f"{{{name}}}", str(default))
        if "{" in url:
            raise SpecError(f"{self.shown}#/servers/0: '{url}' has a variable without default")
        if is_url(url):
            return url.rstrip("/")
        if self.url is None:
            # Swagger 2.0 without schemes: a file was had by none.
            return f"https:{url.rstrip('/')}" if url.startswith("//") else None
        return urljoin(self.url, url).rstrip("/")

    # --- schemas ------------------------------------------------------------------------------------------------------

    def schemas(self) -> list[str]:
        """The names of the component schemas."""
        return self.root.names("/components/schemas")

    def component(self, name: str) -> Found:
        """A component schema, as it is written."""
        pointer = pointer_of(("components", "schemas", name))
        return Found(self.root, pointer, self.root.at(pointer))

    def mock(self, operation: Operation) -> tuple[int, Value] | None:
        """A made-up answer of the operation's success and its status; None when it has no body that is described."""
        found = operation.success()
        return None if found is None else (found[0], mock_response(found[1], self.references))

    def check(self, operation: Operation, status: int, content_type: str | None) -> ResponseCheck | None:
        """What checks an answer; None when the document says nothing of its body.

        Raises:
            SpecError: its schema cannot be used.
        """
        media = operation.content(status, content_type)
        schema = media.below("schema") if media is not None else None
        if schema is None or schema.value is None:
            return None
        with self._lock:
            key = (schema.document.location, schema.pointer)
            known = self._checks.get(key)
            if known is None:
                known = self._checks[key] = ResponseCheck(schema, self.references)
            return known

    def prepare(self, identity: str) -> None:
        """Read the schemas of all answers of an operation.

        Raises:
            SpecError: one needs what is not there.
        """
        operation = self.operation(identity)
        if operation is None or identity in self._prepared:
            return
        for schema in operation.answer_schemas():
            Bundle(self.references).of(schema)
        self._prepared.add(identity)


def similar_names(word: str, known: Iterable[str]) -> list[str]:
    """Up to five names that look like the word, the nearest first."""
    from difflib import get_close_matches  # noqa: PLC0415  # only for this one message

    by_lower = {name.lower(): name for name in known}
    return [by_lower[match] for match in get_close_matches(word.lower(), by_lower, n=5, cutoff=0.5)]
