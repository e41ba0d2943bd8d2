"""Swagger 2.0 as OpenAPI 3.0 (spec/runtime.md 10.1). `$ref`s stay as they are: `document` knows the old places."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from reqon.values import Record, Value

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch")
# Where the parts of a 2.0 document lie after conversion.
MOVED: Final = {"definitions": "schemas", "parameters": "parameters", "responses": "responses"}

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
_SCHEMA_KEYS = (
    "type", "format", "items", "enum", "default", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum",
    "maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "multipleOf",
)  # fmt: skip
# collectionFormat -> (style, explode) in a query
_STYLES = {
    "csv": ("form", False),
    "ssv": ("spaceDelimited", False),
    "tsv": ("tabDelimited", False),
    "pipes": ("pipeDelimited", False),
    "multi": ("form", True),
}

Look = Callable[[str], Value]


def converted(document: Record, look: Look) -> Record:
    """The document as 3.0 has it. `look` answers a `$ref` within this document; None where there is nothing.

    What is no object where one belongs stays as it is: the checks of 3.0 say so.
    """
    conversion = _Conversion(document, look)
    components: Record = {"schemas": document.get("definitions") or {}}
    responses = _entries(document.get("responses"))
    components["responses"] = {name: conversion.response(value, None) for name, value in responses}
    kept = ((name, conversion.parameter(value)) for name, value in _entries(document.get("parameters")))
    components["parameters"] = {name: value for name, value in kept if value is not None}
    rest = {k: v for k, v in document.items() if k not in (*MOVED, "swagger", *_SERVER_KEYS, "consumes", "produces")}
    paths = document.get("paths")
    if isinstance(paths, dict):
        rest["paths"] = {path: conversion.path_item(item) for path, item in paths.items()}
    return {"openapi": "3.0.3", **rest, "servers": _servers(document), "components": components}


_SERVER_KEYS = ("host", "basePath", "schemes")


def _servers(document: Record) -> list[Record]:
    base = document.get("basePath")
    path = base if isinstance(base, str) else ""
    host = document.get("host")
    if not isinstance(host, str) or not host:
        return [{"url": path or "/"}]
    schemes = [s for s in document.get("schemes") or () if s in ("http", "https")]
    if not schemes:
        return [{"url": f"//{host}{path}"}]  # the scheme by which the document was had
    return [{"url": f"{scheme}://{host}{path}"} for scheme in sorted(schemes, reverse=True)]  # https first


def _entries(value: Value) -> Iterable[tuple[str, Value]]:
    return value.items() if isinstance(value, dict) else ()


class _Conversion:
    def __init__(self, document: Record, look: Look) -> None:
        self._look = look
        self._consumes = _types(document.get("consumes"))
        self._produces = _types(document.get("produces"))

    def path_item(self, item: Value) -> Value:
        if not isinstance(item, dict):
            return item
        shared = item.get("parameters")
        common = shared if isinstance(shared, list) else []
        out: Record = {k: v for k, v in item.items() if k != "parameters" and k not in METHODS}
        for method in METHODS:
            if isinstance(item.get(method), dict):
                out[method] = self._operation(item[method], common)
        return out

    def _operation(self, operation: Record, common: list[Value]) -> Record:
        own = operation.get("parameters")
        parameters: list[Record] = []
        fields: list[Record] = []
        body: Record | None = None
        for written in _effective(common, own if isinstance(own, list) else [], self._resolved):
            known = self._resolved(written)
            place = known.get("in")
            if place == "body":
                body = known
            elif place == "formData":
                fields.append(known)
            else:
                made = self.parameter(written)
                if made is not None:
                    parameters.append(made)
        out = {k: v for k, v in operation.items() if k not in ("parameters", "consumes", "produces", "responses")}
        out["parameters"] = parameters
        consumes = _types(operation.get("consumes")) or self._consumes
        if body is not None:
            content = {name: {"schema": body.get("schema") or {}} for name in consumes or (_JSON,)}
            out["requestBody"] = {"required": body.get("required") is True, "content": content}
        elif fields:
            out["requestBody"] = _form(fields, consumes)
        produces = _types(operation.get("produces")) or self._produces
        responses = operation.get("responses")
        out["responses"] = {status: self.response(value, produces) for status, value in _entries(responses)}
        return out

    def _resolved(self, written: Value) -> Record:
        if isinstance(written, dict) and isinstance(ref := written.get("$ref"), str):
            written = self._look(ref)
        return written if isinstance(written, dict) else {}

    def parameter(self, written: Value) -> Record | None:
        """A parameter that is sent beside the body; None for a body's own."""
        if not isinstance(written, dict):
            return None
        if "$ref" in written:
            return written
        if written.get("in") in ("body", "formData"):
            return None
        out = {k: v for k, v in written.items() if k not in (*_SCHEMA_KEYS, "collectionFormat")}
        out["schema"] = _schema(written)
        if written.get("type") == "array":
            style, explode = _STYLES.get(str(written.get("collectionFormat") or "csv"), ("form", False))
            if written.get("in") == "query":
                out |= {"style": style, "explode": explode}
        return out

    def response(self, written: Value, produces: tuple[str, ...] | None) -> Value:
        if not isinstance(written, dict) or "$ref" in written:
            return written
        out = {k: v for k, v in written.items() if k not in ("schema", "examples", "headers")}
        examples = written.get("examples")
        shown: Mapping[str, Value] = examples if isinstance(examples, dict) else {}
        schema = written.get("schema")
        if schema is not None or shown:
            content: dict[str, Record] = {}
            for name in dict.fromkeys((*(produces or self._produces or (_JSON,)), *shown)):
                content[name] = {} if schema is None else {"schema": schema}
                if name in shown:
                    content[name]["example"] = shown[name]
            out["content"] = content
        return out


def _effective(common: list[Value], own: list[Value], look: Callable[[Value], Record]) -> list[Value]:
    """The path's parameters with those of the operation, which replace equal ones."""
    found: dict[Any, Value] = {}
    for index, written in enumerate((*common, *own)):
        known = look(written)
        found[(known.get("in"), known.get("name")) if known else index] = written
    return list(found.values())


def _types(value: Value) -> tuple[str, ...]:
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()


def _schema(written: Record) -> Record:
    schema = {k: written[k] for k in _SCHEMA_KEYS if k in written}
    if schema.get("type") == "file":
        return {"type": "string", "format": "binary"}
    return schema


def _form(fields: list[Record], consumes: Iterable[str]) -> Record:
    has_file = any(field.get("type") == "file" for field in fields)
    offered = [name for name in consumes if name in (_FORM, _MULTIPART)]
    schema = {
        "type": "object",
        "properties": {str(field.get("name")): _schema(field) for field in fields},
        "required": [str(field.get("name")) for field in fields if field.get("required") is True],
    }
    names = offered or [_MULTIPART if has_file else _FORM]
    return {"required": bool(schema["required"]), "content": {name: {"schema": schema} for name in names}}
