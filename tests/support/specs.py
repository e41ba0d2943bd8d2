"""Small OpenAPI documents, and what tests ask of them."""

import json
from pathlib import Path
from typing import Any

from reqon.http.openapi.loading import Specifications, forget
from reqon.http.openapi.spec import Spec

Record = dict[str, Any]


def document(
    paths: Record | None = None, *, version: str = "3.0.3", schemas: Record | None = None, **more: Any
) -> Record:
    """A document with these paths and component schemas."""
    out: Record = {"openapi": version, "info": {"title": "Depot", "version": "1"}, "paths": paths or {}, **more}
    if schemas is not None:
        out.setdefault("components", {})["schemas"] = schemas
    return out


def answering(schema: Any, *, identity: str = "get", path: str = "/thing", **more: Any) -> Record:
    """Paths of one operation whose answer 200 has this schema."""
    response = {"description": "ok", "content": {"application/json": {"schema": schema}}}
    return {path: {"get": {"operationId": identity, "responses": {"200": response}, **more}}}


def written(folder: Path, content: Any, name: str = "api.json") -> Path:
    """The document as a file; a text as it is, anything else as JSON."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def loaded(folder: Path, content: Any, name: str = "api.json") -> Spec:
    """The specification of such a file, read anew."""
    forget()
    return Specifications(environment={}).load(str(written(folder, content, name)), folder=folder)


def problems(
    folder: Path, schema: Any, value: Any, *, version: str = "3.0.3", schemas: Record | None = None
) -> list[str]:
    """What does not fit when an answer with this schema has this value."""
    spec = loaded(folder, document(answering(schema), version=version, schemas=schemas))
    operation = spec.operation("get")
    assert operation is not None
    check = spec.check(operation, 200, "application/json")
    assert check is not None
    return check.problems(value)


def made_up(folder: Path, schema: Any, *, version: str = "3.0.3", schemas: Record | None = None) -> Any:
    """The made-up answer for a schema."""
    spec = loaded(folder, document(answering(schema), version=version, schemas=schemas))
    operation = spec.operation("get")
    assert operation is not None
    found = spec.mock(operation)
    assert found is not None
    return found[1]
