"""Schemas and transforms (spec/language.md 2.5, 2.6)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reqon.lang import nodes
from reqon.lang.checks.cycles import cycles
from reqon.lang.checks.expressions import TYPE_WORDS, Expressions
from reqon.lang.checks.findings import Findings, guess
from reqon.lang.checks.scope import Scope


@dataclass(slots=True)
class Schemas:
    """Checks schemas and transforms."""

    expressions: Expressions
    findings: Findings

    def schema(self, node: nodes.SchemaDef) -> None:
        """Check one schema: names of types, conditions, keys."""
        if node.base is not None:
            self._base(node.base)
        scope = Scope("action", current=True, fields=True)
        if node.type is not None:
            self.type(node.type, scope)
        self._fields(node.fields, scope)
        for refinement in node.refinements:
            self.expressions.check(refinement.condition, scope)
            self._fields(refinement.fields, scope)

    def recursion(self) -> None:
        """Report schemas that consist of themselves; to mention itself in a field is fine."""
        schemas = self.expressions.names.schemas
        for way in cycles({name: list(_included(schema)) for name, schema in schemas.items()}):
            message = f"schema '{way[0]}' includes itself ({' -> '.join(way)})"
            span = schemas[way[0]].name.span
            self.findings.error("recursive-schema", message, span, "remove one of the inclusions")

    def _fields(self, parts: Sequence[nodes.SchemaPart], scope: Scope) -> None:
        seen: set[str] = set()
        for part in parts:
            if isinstance(part, nodes.SchemaField):
                if part.key in seen:
                    self.expressions.duplicate_key(part.key, part.key_span, "this schema")
                seen.add(part.key)
                self.type(part.type, scope)
                self.expressions.check_all((part.when, part.where), scope)
            elif isinstance(part, nodes.SchemaSpread):
                self._base(part.base)
            else:
                self.expressions.check_all((part.condition, *part.constraints, part.message), scope)

    def _base(self, base: nodes.Qualified) -> None:
        """A schema whose fields are taken over."""
        self.expressions.schema(base)
        known = self.expressions.names.schemas.get(base.text)
        if known is not None and known.type is not None:
            message = f"'{base.text}' is no object, so it has no fields to take over"
            self.findings.error("undefined-schema", message, base.span, "name it as the type of a field instead")

    def type(self, node: nodes.Type, scope: Scope) -> None:
        """Check a type."""
        match node:
            case nodes.NamedType():
                self._named(node)
            case nodes.OptionalType(inner=inner):
                self.type(inner, scope)
            case nodes.UnionType(alternatives=alternatives):
                for alternative in alternatives:
                    self.type(alternative, scope)
            case nodes.CountedType(element=element):
                self.type(element, scope)
            case nodes.ObjectType(fields=fields):
                self._fields(fields, Scope("action", current=True, fields=True))
            case _:
                pass

    def _named(self, node: nodes.NamedType) -> None:
        if node.name.text not in TYPE_WORDS:
            schemas = self.expressions.names.schemas
            known = (*TYPE_WORDS, *schemas)
            if node.name.text in schemas or self.findings.many:
                self.expressions.schema(node.name)
            else:
                words = f"type words: {', '.join(sorted(TYPE_WORDS))}"
                self.expressions.schema(node.name, guess(node.name.text, known, words))
        if node.element is not None:
            self.type(node.element, Scope("action", current=True, fields=True))
        bounds = Scope("start")
        self.expressions.check_all((node.low, node.high), bounds)

    def transform(self, node: nodes.TransformDef) -> None:
        """Check one transform: schemas, guards, mappings, one target."""
        scope = Scope("action", current=True)
        targets: dict[str, None] = {}
        for variant in node.variants:
            if variant.schema is not None:
                self.expressions.schema(variant.schema)
            if variant.guard is not None:
                self.expressions.check(variant.guard, scope)
            self.expressions.object(variant.mapping, scope)
            self._target(variant)
            targets[variant.target.text] = None
            if len(targets) == 2 and variant.target.text != node.variants[0].target.text:
                message = f"variants of '{node.name.text}' have different targets: {', '.join(targets)}"
                hint = "give each target a transform of its own"
                self.findings.error("mixed-targets", message, variant.target.span, hint)

    def _target(self, variant: nodes.Variant) -> None:
        schemas = self.expressions.names.schemas
        if variant.target.text in schemas:
            self.findings.use("schema", variant.target.text)
            missing_fields(variant.target, variant.mapping, schemas, self.findings)


def missing_fields(
    target: nodes.Qualified,
    mapping: nodes.ObjectLiteral,
    schemas: Mapping[str, nodes.SchemaDef],
    findings: Findings,
) -> None:
    """Warn when a mapping leaves out a field that its target schema requires."""
    if any(isinstance(entry, nodes.Spread) for entry in mapping.entries):
        return
    mapped = {entry.key for entry in mapping.entries if isinstance(entry, nodes.Entry)}
    missing = [name for name in _required(target.text, schemas) if name not in mapped]
    if missing:
        listed = "', '".join(missing)
        fields, are = ("field", "is") if len(missing) == 1 else ("fields", "are")
        message = f"'{target.text}' requires {fields} '{listed}', which {are} not mapped"
        findings.warn("map-target-fields", message, target.span, "map it, or mark it optional in the schema with '?'")


def _required(name: str, schemas: Mapping[str, nodes.SchemaDef]) -> Iterator[str]:
    """The fields that every value of a schema has, with those it includes; its own come before what they replace."""
    waiting, seen, known = [name], {name}, set[str]()
    while waiting:
        schema = schemas.get(waiting.pop(0))
        if schema is None:
            continue
        for part in schema.fields:
            if isinstance(part, nodes.SchemaField) and part.key not in known:
                known.add(part.key)
                if part.when is None and not _is_optional(part.type):
                    yield part.key
        for base in _included(schema):
            if base not in seen:
                seen.add(base)
                waiting.append(base)


def _is_optional(node: nodes.Type) -> bool:
    if isinstance(node, nodes.UnionType):
        return any(_is_optional(alternative) for alternative in node.alternatives)
    if isinstance(node, nodes.NamedType):
        return node.name.text == "null"
    return isinstance(node, nodes.OptionalType) or (isinstance(node, nodes.LiteralType) and node.value is None)


def _included(schema: nodes.SchemaDef) -> Iterator[str]:
    if schema.base is not None:
        yield schema.base.text
    for part in schema.fields:
        if isinstance(part, nodes.SchemaSpread):
            yield part.base.text
