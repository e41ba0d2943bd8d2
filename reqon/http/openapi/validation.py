"""An answer against its schema: what does not fit, in words (spec/runtime.md 10.4)."""

from itertools import islice
from typing import Final

from reqon.errors import SpecError
from reqon.http.openapi.explaining import SECONDS, Explanation, Finding, Path
from reqon.http.openapi.patterns import options_of
from reqon.http.openapi.references import Found, References
from reqon.http.openapi.schemas import Bundle
from reqon.values import Value

MAX_ERRORS: Final = 100

_WORDS = {
    "minimum": "minimum",
    "maximum": "maximum",
    "exclusiveMinimum": "exclusiveMinimum",
    "exclusiveMaximum": "exclusiveMaximum",
    "minItems": "minItems",
    "maxItems": "maxItems",
    "minLength": "minLength",
    "maxLength": "maxLength",
    "minProperties": "minProperties",
    "maxProperties": "maxProperties",
}
_SHOWN_OPTIONS = 10
_SHOWN_CHARACTERS = 200


class ResponseCheck:
    """One schema, compiled. Safe to keep and to share."""

    def __init__(self, found: Found, references: References) -> None:
        """Compile the schema that stands there.

        Raises:
            SpecError: it cannot be used.
        """
        from jsonschema_rs import Draft202012Validator, ReferencingError, ValidationError  # noqa: PLC0415

        self._found, self._references = found, references
        self._explanation: Explanation | None = None
        bundle = Bundle(references)
        schema = bundle.of(found)
        try:
            self._validator = Draft202012Validator(
                schema, validate_formats=True, pattern_options=options_of(bundle.engine), offline=True
            )
        except (ValidationError, ReferencingError, ValueError) as error:
            raise SpecError(f"{found.place}: this schema cannot be used: {str(error).splitlines()[0]}") from error

    def problems(self, value: Value) -> list[str]:
        """What does not fit, at most a hundred texts; nothing when all does."""
        if self._validator.is_valid(value):
            return []
        if self._explanation is None:
            # Made for the first answer that does not fit, of a bundle made anew: most schemas never need one.
            bundle = Bundle(self._references)
            schema = bundle.of(self._found)
            self._explanation = Explanation(schema, bundle.engine)
        return [_text(finding) for finding in islice(self._explanation.findings(value), MAX_ERRORS)]


def _text(finding: Finding) -> str:
    return f"{_place(finding.path)}: {_problem(finding)}"


def _place(path: Path) -> str:
    out = ""
    for token in path:
        if isinstance(token, int):
            out += f"[{token}]"
        else:
            out += f".{token}" if token.isidentifier() else f'["{token}"]'
    return out or "response"


def _problem(finding: Finding) -> str:
    details = finding.details
    match finding.kind:
        case "required":
            return f"missing required field '{details['property']}'"
        case "type":
            expected = " or ".join(sorted(details["types"], key=lambda word: (word == "null", word)))
            return f"type mismatch: expected {expected}, got {_type_of(finding.value)}"
        case "enum":
            return f"value not in enum: {_options(details['options'])}"
        case "const":
            return f"value not in enum: {_options([details['expected_value']])}"
        case "oneOf" | "anyOf":
            return f"no matching schema ({finding.kind})"
        case "oneOfMultipleValid":
            return "constraint failed: oneOf, more than one schema matches"
        case "pattern":
            if "pattern" not in details:  # the engine's limit: neither a match nor none
                return "constraint failed: pattern, which takes too many steps for this text"
            return f"constraint failed: pattern {_shortened(str(details['pattern']))}"
        case "format":
            return f"constraint failed: format {details['format']}"
        case "multipleOf":
            return f"constraint failed: multipleOf {details['multiple_of']}"
        case "additionalProperties":
            names = ", ".join(f"'{name}'" for name in details["unexpected"][:_SHOWN_OPTIONS])
            return f"constraint failed: additionalProperties, unexpected {names}"
        case "tookTooLong":
            return f"does not fit; what is wrong inside, and what else, could not be said within {SECONDS:g} s"
        case name if name in _WORDS:
            return f"constraint failed: {_WORDS[name]} {details['limit']}"
        case name:
            return f"constraint failed: {name}"


def _type_of(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict) else "array"


def _options(options: list[Value]) -> str:
    shown = ", ".join(_shortened(_written(option)) for option in options[:_SHOWN_OPTIONS])
    more = len(options) - _SHOWN_OPTIONS
    return f"{shown} and {more} more" if more > 0 else shown


def _written(option: Value) -> str:
    from reqon.values import encode  # noqa: PLC0415

    return encode(option).decode()


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
