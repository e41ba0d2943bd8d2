"""Which OpenAPI document a source of a mission has: where it lies, and with which credentials it is had."""

from collections.abc import Callable, Mapping
from pathlib import Path

from reqon.errors import ReqonError, SemanticError, SpecError
from reqon.http.openapi.loading import Specifications
from reqon.http.openapi.operation import Operation
from reqon.http.openapi.remote import NO_AUTH, SpecAuth
from reqon.http.openapi.spec import Spec
from reqon.lang import nodes
from reqon.lang.options import SOURCE
from reqon.runtime.settings import CREDENTIAL_OPTIONS, option_words
from reqon.values import Value

Evaluate = Callable[[nodes.Expression], Value]


def written_spec(source: nodes.SourceDef, specifications: Specifications, folder: Path) -> Spec | None:
    """The document of a source whose text says where it lies, and that needs no credentials; else None.

    Raises:
        SpecError: it cannot be used.
    """
    if not isinstance(source.spec, nodes.Literal_) or any(o.key == "specAuth" for o in source.options):
        return None
    return _load(source, source.spec.value, specifications, folder, NO_AUTH)


def spec_of(source: nodes.SourceDef, evaluate: Evaluate, specifications: Specifications, folder: Path) -> Spec | None:
    """The document of a source, None if it has none.

    Raises:
        SpecError: it cannot be used; with its place in the mission.
    """
    if source.spec is None:
        return None
    location = evaluate(source.spec)
    option = next((o for o in source.options if o.key == "specAuth"), None)
    auth = NO_AUTH if option is None else _auth(source.name.text, option_words(option, evaluate, SOURCE))
    try:
        return _load(source, location, specifications, folder, auth)
    except ReqonError as error:
        raise error.locate(source.spec.span) from error


def operation_of(step: nodes.CallStep, specs: Mapping[str, Spec]) -> tuple[Spec, Operation]:
    """The operation that a step calls, all of it that a request needs looked at.

    Raises:
        SemanticError: the document has no such operation.
        SpecError: a part of it leads nowhere.
    """
    name, wanted = step.source.text, step.operation
    document = specs.get(name)
    if document is None:
        hint = f'give it a document: source {name} from "openapi.yaml"'
        message = f"source '{name}' has no OpenAPI document"
        raise SemanticError(message, code="undefined-operation", span=wanted.span, hint=hint)
    try:
        operation = document.operation(wanted.text)
        if operation is not None:
            _ = operation.by_name, operation.body_type
    except ReqonError as error:
        raise error.locate(wanted.span) from error
    if operation is None:
        message = f"source '{name}' has no operation '{wanted.text}'"
        similar = document.unknown(wanted.text)
        raise SemanticError(message, code="undefined-operation", span=wanted.span, hint=similar)
    return document, operation


def _load(
    source: nodes.SourceDef, location: Value, specifications: Specifications, folder: Path, auth: SpecAuth
) -> Spec:
    if not isinstance(location, str) or not location.strip():
        name = source.name.text
        raise SpecError(f"the document of source '{name}' has no address", hint="'from' takes a path or a URL")
    assert source.spec is not None
    # Relative to the file that declares the source; a text that is no file has no folder of its own.
    beside = Path(source.spec.span.source.name).parent
    return specifications.load(location.strip(), folder=folder if beside == Path() else beside, auth=auth)


def _auth(source: str, written: Value) -> SpecAuth:
    fields = dict(written) if isinstance(written, dict) else {}
    headers = fields.pop("headers", None)
    oauth = fields.pop("oauth", None)
    named = {CREDENTIAL_OPTIONS.get(key, key): value for key, value in fields.items() if value is not None}
    if isinstance(oauth, dict):
        named |= oauth
    return SpecAuth(source, named, headers if isinstance(headers, dict) else {})
