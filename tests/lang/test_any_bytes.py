"""N5: any bytes at all give findings with a place, in good time; the same promise is fuzzed by `make fuzz`."""

import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reqon.diagnostics import Source
from reqon.lang.loader import load_text
from reqon.runtime.plan import Plan
from tests.lang import grammar
from tests.support import corpus
from tests.support.any_text import load_any

# A tenth of the number; the fuzzer does the rest.
EXAMPLES = 20_000 if os.environ.get("REQON_SLOW") else 400
HOUR = 3600  # for all of them, on a machine that is busy
MANY = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
TEXTS = [path.read_bytes().decode() for path in corpus.missions()]
MEBIBYTE = 1024 * 1024
LARGE = {
    "nested brackets": "let x = " + "[" * 10_000,
    "nested braces": "mission M { action A { " + "for x in y { " * 10_000,
    "nested parentheses and minus signs": "let x = " + "-(" * 10_000,
    "closed nesting": "let x = " + "(" * 150 + "1" + ")" * 150,
    "a number of 400 digits": f"let x = {'9' * 400}\nmission M {{ action A {{ skip }} run A }}",
    "a number of 4,000 digits": f"let x = {'9' * 4000}",
    "a number with a great exponent": "let x = 1e999999999",
    "unclosed everything": "mission M { action A { get \"/x { params: [ ( /* ` '",
    "carriage returns": "mission M {\r\n action A {\r\n skip\r\n }\r\n run A\r\n}\r\n",
    "null characters": 'mission M { \0 action A { let x = "\0" } }',
    "byte order marks": "\ufeff\ufeffmission M { action A { skip } run A }",
    "a mebibyte of one chain": "let x = 1" + " + 1" * (MEBIBYTE // 4 - 10),
    "a mebibyte of words": "a " * (MEBIBYTE // 2),
    "a mebibyte of stars": "/*" + "*" * (MEBIBYTE - 10),
    "a mebibyte of quotes": '"' * MEBIBYTE,
    "a mebibyte of declarations": "let a = 1\n" * (MEBIBYTE // 10),
    "a mebibyte of missing names": "mission M { action A { " + "let b = c + d " * (MEBIBYTE // 15),
    "more than a mebibyte": "x" * (MEBIBYTE + 1),
}


@pytest.mark.timeout(HOUR)
@given(st.binary(max_size=300))
@MANY
def test_any_bytes_are_read_or_refused_with_a_place(data: bytes) -> None:
    load_any(data)


@pytest.mark.timeout(HOUR)
@given(grammar.damaged(TEXTS))
@MANY
def test_a_mission_with_anything_broken_is_read_or_refused_with_a_place(text: str) -> None:
    load_any(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("what", LARGE)
def test_what_is_far_too_much_is_refused_in_good_time(what: str) -> None:
    """The limit is 2 s of an idle core; the bound leaves room for a busy one."""
    began = time.process_time()
    load_any(LARGE[what].encode())
    assert time.process_time() - began < 20


@pytest.mark.parametrize("data", [b"\xff\xfe", b"mission M {\n  \x80", b"\xef\xbb\xbf\xff", "é".encode("latin-1")])
def test_bytes_that_are_no_text_are_refused_at_their_place(data: bytes) -> None:
    assert load_any(data) is None


def _large(steps: str) -> str:
    return (
        f'mission M {{ source D {{ auth: none, base: "http://x" }} action A {{ {steps} }} action B {{ skip }} run A }}'
    )


# As much of one thing as the limit of tokens lets through.
MANY_OF_ONE = {
    "arms": "match response { " + "".join(f"{n} -> skip, " for n in range(30_000)) + "_ -> skip }",
    "arms with objects": "match response { "
    + "".join(f"{{ a{n}: b }} -> skip, " for n in range(15_000))
    + "_ -> skip }",
    "values": "let x = match .a { " + "".join(f"{n} => {n}, " for n in range(40_000)) + "_ => 0 } queue { item: x }",
    "variables": "".join(f"let v{n} = v{n - 1} " if n else "let v0 = 1 " for n in range(40_000)),
    "maps": "map response -> Q { a: .b } " * 15_000,
    "requests": 'get "/x" ' * 60_000,
}


@pytest.mark.parametrize("what", MANY_OF_ONE)
def test_much_of_one_thing_is_loaded_in_good_time(what: str) -> None:
    """N5: the time grows with the text, not with its square. The bounds leave room for a busy machine."""
    began = time.process_time()
    (mission,) = load_text(Source("m.vague", _large(MANY_OF_ONE[what]))).missions
    assert time.process_time() - began < 10
    Plan(mission, environment={}).begin()
    assert time.process_time() - began < 60
