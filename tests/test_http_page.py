"""docs/http.md: its missions run against an API, its credentials are found, its tables name what there is."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import reqon
from reqon.http.auth import discovered, load_auth_file
from reqon.lang.options import SOURCE
from tests.support.servers import ScriptedServer, Seen, reply
from tests.test_docs import BLOCK, ROOT, text_of

PAGE = text_of(ROOT / "docs" / "http.md")
SNIPPETS = [match[3] for match in BLOCK.finditer(PAGE) if match[1] == "reqon"]
VARIABLES = {"BRANCH": "north", "DEPOT_TOKEN": "old-token-1", "DEPOT_USER": "me", "DEPOT_PASSWORD": "pass-word-1"}


def depot(seen: Seen) -> bytes:
    """Answers what the page's requests ask for."""
    if seen.path.endswith("/login"):
        assert json.loads(seen.body) == {"user": "me", "password": "pass-word-1"}
        return reply(data={"access_token": "new-token-1"})
    if seen.headers.get("authorization", "Bearer new-token-1") != "Bearer new-token-1":
        return reply(401, data={})
    if seen.path.endswith("/parcels"):
        rows = [{"id": "p1"}]
        return reply(data={"data": rows, "paging": {"next": None}} if "limit" in seen.query else rows)
    if seen.path.endswith("/scan"):
        return reply(data={"id": "a/b", "fullName": "octo/reqon"})
    return reply(404, data={}) if seen.path.endswith("p2") else reply(data={"id": seen.path[-2:]})


@pytest.fixture
async def api() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server.on("*", depot)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
async def test_each_snippet_runs(number: int, api: ScriptedServer, tmp_path: Path) -> None:
    text = re.sub(r'"https://depot\.example\.com(/v3)?"', f'"{api.url}"', SNIPPETS[number])
    if not text.startswith("mission"):
        (first, *_) = re.findall(r"^action (\w+)", text, re.MULTILINE)
        text = f"mission Page {{\n{text}\nrun {first}\n}}"
    token = {} if "LogIn" in text else {"REQON_DEPOT_TOKEN": "new-token-1"}
    result = await reqon.execute(text, state_dir=tmp_path, environment={**VARIABLES, **token})
    assert result.success, result.errors
    assert api.seen
    if "LogIn" in text:
        assert [seen.path for seen in api.seen] == ["/parcels", "/login", "/parcels"]
        assert api.seen[-1].headers["authorization"] == "Bearer new-token-1"
    if "fullName" in text:
        assert [seen.target for seen in api.seen] == ["/parcels/a%2Fb/scan", "/repos/octo/reqon", "/parcels"]


def test_its_credentials_are_found(tmp_path: Path) -> None:
    (example,) = [match[3] for match in BLOCK.finditer(PAGE) if match[1] == "json"]
    path = tmp_path / "auth.json"
    path.write_text(example)
    path.chmod(0o600)
    records = load_auth_file(path, {"DEPOT_TOKEN": "t-123456", "LEDGER_ID": "us", "LEDGER_SECRET": "s-123456"})
    assert records["Depot"]["token"] == "t-123456" and records["Ledger"]["clientSecret"] == "s-123456"
    lines = [line.split("#")[0].split()[1:] for line in PAGE.splitlines() if line.startswith("export REQON_")]
    for words, kind in zip(lines, ("bearer", "basic", "api_key", "oauth2"), strict=True):
        variables = {name: value for name, _, value in (word.partition("=") for word in words)}
        record = discovered("Depot", variables)
        assert record and len(record) >= len(variables), kind


def test_its_tables_name_each_option_and_kind() -> None:
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    named = {word for row in rows for word in re.findall(r"`(\w+)`", row)}
    credentials = {"token", "username", "password", "apiKey", "apiKeyHeader", "apiKeyQuery", "apiKeyPrefix", "oauth"}
    of_documents = {"validateResponses", "validationMode", "specAuth", "from"}
    assert set(SOURCE.keys) - credentials - of_documents - named == set()
    kinds = """http network timeout rate_limit circuit_open parse unsupported_content too_large redirect bad_path
        bad_header origin_blocked pagination validation_failed"""
    assert set(kinds.split()) - named == set()
