"""What APIs and items say never moves a cursor nor makes a line of its own (spec/reliability.md 6, logs)."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.processes import Ended, reqon
from tests.support.servers import ScriptedServer, reply
from tests.support.terminal import Terminal

# The title of a window, a cleared screen, CSI as one character, a delete, lines of its own in five ways.
NASTY = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\r\nFAKE: a\rFAKE: b\u2028FAKE: c\u2029FAKE: d\x85FAKE: e\0"
SET_ASIDE = 'for i in response.list { get "/failing/{i.n}"\nmatch response { { error: e } -> queue, _ -> continue } }'
STEPS = {
    "Aborted": "abort response.said",
    "Flooded": "abort response.long",
    "Misled": 'get "/x/{response.long}"',
    "Answered": 'get "/failing"',
    "Evaluated": 'abort concat("x", 1 - response.said)',
    "Unmatched": "match response.said { 1 -> continue }",
    "Validated": "validate response { assume .said == 1 }",
    "Queued": SET_ASIDE,
    "Keyed": 'store response.list -> kept { key: .id }\nfor i in response.list { get "/failing/{i.n}" }',
    "Parallel": "for i in response.list parallel { abort i.id }",
}
TEXT = """mission {name} {{
  source Api {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store kept: file("{name}")
  action A {{
    get "/said"
    {steps}
  }}
  run A
}}
"""
LOOKS = """status | status --json | status Aborted | history | history --json | dlq list | dlq list --json
    | dlq show --all | dlq retry --all --path . | dlq retry --all --json --path . | resume . --explain
    | resume . --explain --json | resume . | doctor . | plan . | . --dry-run | cleanup Aborted --all --dry-run"""


@pytest.fixture
async def api() -> AsyncIterator[ScriptedServer]:
    body = {"said": NASTY, "long": "x" * 5_000_000, "list": [{"id": NASTY, "n": 1}]}
    async with ScriptedServer() as server:
        server.on("/said", reply(data=body))
        yield server.on("*", reply(404, data={"error": NASTY, "message": NASTY}))


def harmless(text: str, *, of: object) -> None:
    """Nothing but lines and tabs, and no line that the API made."""
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]", text), (of, text)
    assert not re.search(r"^\s*FAKE", text, re.MULTILINE), (of, text)


async def test_no_command_prints_what_an_api_said_as_it_is(api: ScriptedServer, tmp_path: Path) -> None:
    """N8"""
    for name, steps in STEPS.items():
        (tmp_path / f"{name}.vague").write_text(TEXT.format(name=name, url=api.url, steps=steps))

    async def said(*words: str, **variables: str) -> Ended:
        ended = await asyncio.to_thread(reqon, *words, cwd=tmp_path, variables=variables)
        assert "Traceback" not in ended.text
        harmless(ended.out, of=words)
        harmless(ended.err, of=words)
        assert max(map(len, ended.text.splitlines())) < 30_000, words
        return ended

    for form in ("text", "logfmt", "json"):
        await said(".", "--verbose", REQON_LOG_FORMAT=form, REQON_LOG_LEVEL="DEBUG")
    plain = await said(".")
    assert {name for name in STEPS if f"{name}: failed" in plain.out} == STEPS.keys() - {"Validated", "Queued"}
    assert "\\x1b]0;owned" in plain.err
    for words in LOOKS.split("|"):
        await said(*words.split())
    newest = (await said("history", "Aborted", "--json")).json[0]
    for more in ((), ("--json",)):
        assert "owned" in (await said("logs", newest["executionId"], *more)).out


async def test_no_terminal_is_told_what_an_api_said_as_it_is(api: ScriptedServer, tmp_path: Path) -> None:
    """N8: progress bars, tables and the debugger."""
    (tmp_path / "m.vague").write_text(TEXT.format(name="M", url=api.url, steps=f"{SET_ASIDE}\nabort response.said"))

    async def shown(*words: str, typed: str = "") -> str:
        terminal = await asyncio.to_thread(Terminal, *words, cwd=tmp_path)
        for line in typed.split():
            terminal.type(line)
        return (await asyncio.to_thread(terminal.end))[1]

    for words, typed in (
        (("m.vague",), ""), (("m.vague", "--debug"), "i i i i v c"), (("dlq", "list"), ""),
        (("status", "M"), ""),
    ):  # fmt: skip
        text = await shown(*words, typed=typed)
        assert not re.search("\x1b\\]0;|\x1b\\[2J|[\x07\x9b\u2028\u2029]", text), (words, text)
        assert not re.search(r"^\s*FAKE", text, re.MULTILINE), (words, text)
