"""Random syntax trees of every kind, as the parser makes them: what is printed of one must parse back to it."""

import re
from typing import Any

from hypothesis import strategies as st

from reqon.diagnostics import Source, Span
from reqon.lang import nodes
from reqon.lang.lexer import RESERVED
from reqon.lang.steps import StepParser

SPAN = Span(Source("made", ""), 0, 0)
_WORDS = ("a", "b", "item", "each", "error", "from", "page", "lastSync", "any", "of", "days", "contains", "get", "Row")

_OPERATORS = "or and == != < <= > >= contains startsWith endsWith in ?? + - * / %"
_MARKS = "{ } ( ) [ ] , : . ... .. = => -> == != < <= > >= + - * / % ! ? ?? | ~ @ ` ' \" /* */ // # _ \\"

identifiers = st.sampled_from(_WORDS) | st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)
names = (
    identifiers | st.text(st.characters(exclude_characters="`\n\r", exclude_categories=["Cs"]), min_size=1)
).filter(lambda text: text != "_")
plain_names = identifiers.filter(lambda text: text not in RESERVED and text != "_")
texts = st.sampled_from(["", "x", "it's", 'say "x"', "a\nb", "\\", "{x}", "'\""]) | st.text(max_size=6)
keys = identifiers | st.sampled_from(["if", "where", "b-c", "", "é", "200"]) | texts
numbers = st.integers(0, 10**20) | st.floats(0, 1e300, allow_nan=False).filter(lambda x: not x.is_integer())


def make(kind: Any, /, **fields: Any) -> st.SearchStrategy[Any]:
    """Nodes of a kind; its fields are strategies."""
    return st.builds(kind, span=st.just(SPAN), **fields)


def several(item: st.SearchStrategy[Any], least: int = 0, most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(item, min_size=least, max_size=most).map(tuple)


def maybe(item: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | item


words = make(nodes.Word, text=names)
qualifieds = make(nodes.Qualified, text=st.lists(plain_names, min_size=1, max_size=2).map(".".join))

# --- expressions and patterns ----------------------------------------------------------------------------------------

constants = st.none() | st.booleans() | numbers | texts
literals = make(nodes.Literal_, value=constants)
durations = make(nodes.DurationLiteral, amount=numbers, unit=st.sampled_from(sorted(nodes.UNIT_MILLISECONDS)))
current = make(nodes.Member, target=make(nodes.Current), key=keys)
leaves = st.one_of(literals, durations, current, make(nodes.Name, name=names))


def _compound(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    spread = make(nodes.Spread, value=inner)
    lambdas = make(nodes.Lambda, parameters=several(words, 1, 2), body=inner)
    arguments = several(st.one_of(inner, spread, lambdas), 0, 2)
    entries = several(entry_of(inner) | spread)
    ranges = make(nodes.Range, low=inner, high=inner)
    arms = several(make(nodes.MatchExpressionArm, pattern=pattern_of(inner), guard=maybe(inner), value=inner))
    bare = several(make(nodes.MatchExpressionArm, pattern=inner, guard=maybe(inner), value=inner))
    operators = st.sampled_from(_OPERATORS.split())
    return st.one_of(
        make(nodes.Member, target=inner, key=keys),
        make(nodes.Index, target=inner, index=inner),
        make(nodes.Call, name=words, arguments=arguments, form=st.just("plain")),
        st.builds(
            lambda name, first, rest, form: nodes.Call(name, (first, *rest), form, span=SPAN),
            words,
            inner,
            arguments,
            st.sampled_from(["method", "pipe"]),
        ),
        make(nodes.Unary, operator=st.sampled_from(["-", "+", "!", "not"]), operand=inner),
        make(nodes.Binary, operator=operators, left=inner, right=inner, operator_span=st.just(SPAN)),
        make(nodes.Binary, operator=st.just("in"), left=inner, right=ranges, operator_span=st.just(SPAN)),
        make(nodes.Is, value=inner, type_name=qualifieds | make(nodes.Qualified, text=st.just("null"))),
        make(nodes.Conditional, condition=inner, then=inner, otherwise=inner, form=st.sampled_from(["if", "?"])),
        make(nodes.Where, collection=inner, condition=inner),
        make(nodes.AnyOf, collection=inner, condition=maybe(inner)),
        make(nodes.ArrayLiteral, elements=several(inner | spread)),
        make(nodes.ObjectLiteral, entries=entries),
        make(nodes.MatchExpression, subject=inner, arms=arms),
        make(nodes.MatchExpression, subject=st.none(), arms=bare),
    )


def entry_of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return make(nodes.Entry, key=keys, value=inner, key_span=st.just(SPAN))


def pattern_of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    method = st.builds(lambda w, a: nodes.Call(w, (a,), "method", span=SPAN), words, make(nodes.Name, name=names))
    leaf = st.one_of(
        make(nodes.Wildcard),
        make(nodes.LiteralPattern, value=constants | st.integers(-9, -1)),
        make(nodes.NamePattern, name=qualifieds),
        make(nodes.ValuePattern, value=current),
        make(nodes.ValuePattern, value=make(nodes.Call, name=words, arguments=several(inner, 0, 1))),
        make(nodes.ValuePattern, value=method),
    )
    return st.recursive(
        leaf,
        lambda part: st.one_of(
            make(nodes.ArrayPattern, elements=several(part)),
            make(nodes.ObjectPattern, entries=several(make(nodes.PatternEntry, key=keys, pattern=part))),
        ),
        max_leaves=3,
    )


expressions = st.recursive(leaves, _compound, max_leaves=7)
simple = st.recursive(leaves, _compound, max_leaves=2)
patterns = pattern_of(leaves)
objects = make(nodes.ObjectLiteral, entries=several(entry_of(simple)))

# --- options and steps -----------------------------------------------------------------------------------------------


def option_of(key: st.SearchStrategy[str], value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return make(nodes.Option, key=key, value=value, key_span=st.just(SPAN))


plain_options = option_of(keys.filter(lambda key: key not in ("since", "paginate", "schedule")), simple)
sinces = make(nodes.Since, key=maybe(simple), options=several(plain_options, 0, 1))
paginates = make(nodes.Paginate, strategy=words, arguments=several(simple, 0, 2))
options = several(
    st.one_of(
        plain_options,
        option_of(st.just("since"), simple | sinces | st.just(nodes.Name("lastSync", span=SPAN))),
        option_of(st.just("paginate"), simple | paginates),
    ),
    0,
    2,
)
stages = st.one_of(
    make(nodes.Stage, actions=several(qualifieds, 1, 1), parallel=st.just(value=False), condition=maybe(simple)),
    make(nodes.Stage, actions=several(qualifieds, 1, 2), parallel=st.just(value=True), condition=maybe(simple)),
)
runs = make(nodes.Run, stages=several(stages, 1, 2))
lets = make(nodes.Let, name=words, value=simple)
assumes = st.one_of(
    make(
        nodes.Assume,
        condition=simple,
        constraints=several(simple, 0, 2),
        severity=st.sampled_from([None, "warning", "error"]),
        message=maybe(simple),
    )
)
_requests = make(
    nodes.Fetch,
    method=st.sampled_from(["get", "post", "put", "patch", "delete"]),
    path=simple,
    source=maybe(words),
    options=options,
)
_leaf_steps = st.one_of(
    _requests,
    make(nodes.CallStep, source=words, operation=make(nodes.Word, text=keys), options=options),
    make(nodes.Delete, store=words, key=simple),
    make(nodes.Clear, store=words),
    make(nodes.Map, value=simple, target=qualifieds, mapping=maybe(objects)),
    make(nodes.Apply, transform=qualifieds, value=simple, name=maybe(words)),
    make(nodes.StoreStep, value=simple, each=st.booleans(), store=words, options=options),
    lets,
    make(nodes.Wait, options=options),
    make(nodes.Continue),
    make(nodes.Skip),
    make(nodes.Abort, message=maybe(simple)),
    make(nodes.Retry, options=options),
    make(nodes.Queue, store=maybe(words), options=options),
    make(nodes.Jump, action=qualifieds, then=st.none() | st.just("continue"), options=st.just(())),
    make(nodes.Jump, action=qualifieds, then=st.just("retry"), options=options),
    runs,
    make(nodes.Extension, word=words, options=options),
)


def _steps(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    body = inner | make(nodes.Block, steps=several(inner))
    arms = several(make(nodes.Arm, pattern=patterns, guard=maybe(simple), body=body))
    bare = several(make(nodes.Arm, pattern=simple | make(nodes.Wildcard), guard=maybe(simple), body=body))
    return st.one_of(
        make(
            nodes.For,
            variable=words,
            collection=simple,
            conditions=several(simple, 0, 2),
            checkpoint=maybe(simple),
            parallel=st.booleans(),
            body=several(inner),
        ),
        make(nodes.Validate, target=maybe(simple), constraints=several(assumes, 0, 2), otherwise=maybe(body)),
        make(nodes.MatchStep, subject=simple, arms=arms, catch=arms),
        make(nodes.MatchStep, subject=st.none(), arms=bare, catch=arms),
    )


steps = st.recursive(_leaf_steps, _steps, max_leaves=4)

# --- declarations ----------------------------------------------------------------------------------------------------


def _types(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    atoms = inner.filter(lambda kind: not isinstance(kind, nodes.UnionType))
    return st.one_of(
        _named(element=maybe(inner)),
        make(nodes.ObjectType, fields=several(field_of(inner), 0, 2)),
        make(nodes.CountedType, least=st.integers(0, 9), most=st.integers(0, 9), element=atoms),
        make(
            nodes.OptionalType,
            inner=atoms.filter(lambda kind: not isinstance(kind, nodes.CountedType | nodes.OptionalType)),
        ),
        make(nodes.UnionType, alternatives=several(atoms, 2, 3)),
    )


def _named(element: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    bounds = st.tuples(st.none(), st.none()) | st.tuples(simple, simple)
    return st.builds(
        lambda name, element, precision, ends: nodes.NamedType(name, element, precision, *ends, span=SPAN),
        qualifieds.filter(lambda name: name.text not in ("unique", "private")),
        element,
        maybe(st.integers(0, 9)),
        bounds,
    )


def field_of(kind: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return make(nodes.SchemaField, key=keys, type=kind, when=maybe(simple), where=maybe(simple), key_span=st.just(SPAN))


types = st.recursive(
    _named(st.none()) | make(nodes.LiteralType, value=constants | st.integers(-9, -1)), _types, max_leaves=3
)
fields = several(st.one_of(field_of(types), make(nodes.SchemaSpread, base=qualifieds), assumes))
variants = make(nodes.Variant, schema=maybe(qualifieds), guard=maybe(simple), target=qualifieds, mapping=objects)
declarations = st.one_of(
    make(nodes.SourceDef, name=words, spec=maybe(simple), options=options),
    make(nodes.StoreDef, name=words, adapter=simple),
    make(
        nodes.SchemaDef,
        name=words,
        base=maybe(qualifieds),
        fields=fields,
        refinements=several(make(nodes.Refinement, condition=simple, fields=fields), 0, 2),
    ),
    make(nodes.TransformDef, name=words, variants=several(variants)),
    make(nodes.ActionDef, name=words, options=several(plain_options, 0, 1), steps=several(steps)),
    lets,
)
schedules = st.one_of(
    make(
        nodes.Schedule,
        kind=st.just("every"),
        amount=numbers,
        unit=st.sampled_from(["seconds", "minutes", "hours", "days", "weeks"]),
        text=st.none(),
        options=options,
        when_span=st.just(SPAN),
    ),
    make(
        nodes.Schedule,
        kind=st.sampled_from(["cron", "at"]),
        amount=st.none(),
        unit=st.none(),
        text=texts,
        options=options,
        when_span=st.just(SPAN),
    ),
)
missions = make(
    nodes.MissionDef, name=words, clauses=several(st.one_of(schedules, plain_options, declarations, runs), 0, 4)
)
files = make(
    nodes.SourceFile,
    items=several(
        st.one_of(
            missions,
            declarations,
            make(nodes.ImportDef, name=maybe(words), path=texts, path_span=st.just(SPAN)),
        ),
        0,
        2,
    ),
)

# --- text that is nearly right ---------------------------------------------------------------------------------------

_WORDS_OF_LISTS = {"mission", "action", "schema", "transform", "source", "dataset", "when", "every"}
_ODD = {"0", "1_", "1e9", "5 days", "x", ".x", "\n", "\ufeff", "\0", "\r\n", "é"}
SCRAPS = sorted({*RESERVED, *StepParser.step_words(), *_WORDS_OF_LISTS, *_MARKS.split(), *_ODD})


@st.composite
def damaged(draw: st.DrawFn, corpus: list[str]) -> str:
    """A text of the corpus with some of its tokens dropped, doubled, swapped or replaced."""
    parts = re.findall(r"\s+|\w+|[^\w\s]", draw(st.sampled_from(corpus)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(parts) - 1))
        what = draw(st.sampled_from(["drop", "double", "cut", "scrap"]))
        if what == "drop":
            parts[at : at + draw(st.integers(1, 5))] = [" "]
        elif what == "double":
            parts.insert(at, parts[at])
        elif what == "cut":
            parts = parts[: at + 1]
        else:
            parts.insert(at, draw(st.sampled_from(SCRAPS)))
    return "".join(parts)
