"""What spec/runtime.md 3 says of credentials, where no other test says it already: whole missions, real requests."""

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from reqon import Reqon
from reqon.events import Event
from reqon.runner import RunnerSettings
from tests.support.missions import Bench, Ran, mission
from tests.support.servers import ScriptedServer, Seen, redirect, reply


def secured(steps: str = 'get "/x"', auth: str = "", *, options: str = "") -> str:
    """A mission whose source has this `auth`; without it the credentials that are found decide."""
    written = f"auth: {auth}, " if auth else ""
    return mission(steps, source=options).replace("auth: none, ", written)


async def run(bench: Bench, text: str, record: Any = None, **variables: str) -> Ran:
    bench.environment = variables
    bench.settings = RunnerSettings(auth={"Api": record} if record is not None else None)
    return await bench.run(text)


BASIC = "Basic " + base64.b64encode(b"ann:p:w d").decode()


@pytest.mark.parametrize(
    ("options", "record", "variables", "header", "query"),
    [
        # Options of the source, each by its name.
        ('token: env("T")', None, {"T": "tok-1"}, ("authorization", "Bearer tok-1"), ""),
        ('username: "ann", password: "p:w d"', None, {}, ("authorization", BASIC), ""),
        ('apiKey: "key-1"', None, {}, ("x-api-key", "key-1"), ""),
        ('apiKey: "key-1", apiKeyHeader: "X-K", apiKeyPrefix: "Key"', None, {}, ("x-k", "Key key-1"), ""),
        ('apiKey: "key 1", apiKeyQuery: "sesame"', None, {}, None, "sesame=key%201"),
        # Variables, each by its name.
        ("", None, {"REQON_API_TOKEN": "tok-2"}, ("authorization", "Bearer tok-2"), ""),
        ("", None, {"REQON_API_USERNAME": "ann", "REQON_API_PASSWORD": "p:w d"}, ("authorization", BASIC), ""),
        ("", None, {"REQON_API_API_KEY": "key-2"}, ("x-api-key", "key-2"), ""),
        (
            "", None, {"REQON_API_API_KEY": "key-2", "REQON_API_HEADER_NAME": "X-K", "REQON_API_PREFIX": "Key"},
            ("x-k", "Key key-2"), "",
        ),
        ("", None, {"REQON_API_API_KEY": "k2", "REQON_API_QUERY": "q"}, None, "q=k2"),
        ("", None, {"REQON_API_ACCESS_TOKEN": "tok-3"}, ("authorization", "Bearer tok-3"), ""),
        ("", None, {"REQON_API_TYPE": "api_key", "REQON_API_API_KEY": "k3", "REQON_API_TOKEN": "no"},
         ("x-api-key", "k3"), ""),
        # Records, by each alias; fields of lower places fill the gaps.
        ("", {"type": "api_key", "key": "k4", "header": "X-H"}, {}, ("x-h", "k4"), ""),
        ("", {"type": "api_key", "apiKey": "k4", "headerName": "X-H"}, {}, ("x-h", "k4"), ""),
        ("", {"type": "oauth2", "accessToken": "tok-5"}, {}, ("authorization", "Bearer tok-5"), ""),
        ('token: "inline"', {"type": "bearer", "token": "record"}, {}, ("authorization", "Bearer record"), ""),
        ('token: "inline"', None, {"REQON_API_TOKEN": "variable"}, ("authorization", "Bearer inline"), ""),
        ('apiKey: "inline"', {"type": "api_key", "header": "X-R"}, {}, ("x-r", "inline"), ""),
    ],
)  # fmt: skip
async def test_credentials_are_found_in_their_places_and_sent_as_their_type_says(
    options: str, record: Any, variables: dict[str, str], header: Any, query: str, api: ScriptedServer, bench: Bench
) -> None:
    api.on("*", reply(data={}))
    text = secured(options=f", {options}" if options else "")
    (await run(bench, text, record, **variables)).ok()
    seen = api.seen[0]
    assert seen.target == ("/x?" + query if query else "/x")
    known = {name: value for name, value in seen.headers.items() if name in ("authorization", "x-api-key", "x-k",
                                                                          "x-h", "x-r")}  # fmt: skip
    assert known == ({header[0]: header[1]} if header else {})


@pytest.mark.parametrize(
    ("auth", "record", "variables"),
    [
        ("bearer", None, {}),
        ("bearer", {"type": "basic", "username": "a", "password": "b"}, {}),
        ("oauth2", {"type": "oauth2", "clientId": "only"}, {}),
        ("api_key", {"type": "api_key", "key": "k", "header": "A", "query": "b"}, {}),
        ("basic", {"type": "basic", "username": "a:b", "password": "c"}, {}),
        ("bearer", {"type": "bearer", "token": "a\x07b"}, {}),
        ("bearer", None, {"REQON_Api_TOKEN": "t", "REQON_APIX_TOKEN": "t"}),
        ("hmac", {"type": "hmac"}, {}),
    ],
)
async def test_credentials_that_cannot_be_used_are_exit_3_before_the_first_request(
    auth: str, record: Any, variables: dict[str, str], api: ScriptedServer, bench: Bench
) -> None:
    if auth == "hmac":
        text = secured(auth="bearer")
        ran = await run(bench, text, {"type": "hmac", "seed": "x"}, **variables)
    else:
        ran = await run(bench, secured(auth=auth), record, **variables)
    assert ran.error.type == "config" and "Api" in ran.error.message and api.seen == []
    assert ran.outcome.errors[0].exit_code == 3


async def test_names_of_sources_in_records_are_case_sensitive(api: ScriptedServer, bench: Bench) -> None:
    bench.settings = RunnerSettings(auth={"api": {"type": "bearer", "token": "t0ken"}})
    assert (await bench.run(secured(auth="bearer"))).error.type == "config" and api.seen == []


async def test_credentials_go_to_allowed_hosts_only(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data={}))
    for hosts, sent in ((["127.0.0.1"], True), (["elsewhere.example"], False)):
        record = {"type": "bearer", "token": "tok-123", "allowedHosts": hosts}
        ran = await run(bench, secured(auth="bearer"), record)
        assert ran.outcome.success or not sent
        assert ("authorization" in api.seen[-1].headers) is sent if api.seen else not sent


# --- pages and redirects ---------------------------------------------------------------------------------------------


async def test_an_api_key_goes_with_each_page_and_nothing_else_of_ours_does(api: ScriptedServer, bench: Bench) -> None:
    pages = [{"data": [{"id": 1}], "next": "/x?page=2"}, {"data": [{"id": 2}], "next": f"{api.url}/y?page=3"},
             {"data": [{"id": 3}], "next": None}]  # fmt: skip
    api.on("*", *[reply(data=page) for page in pages])
    steps = 'get "/x" { params: { limit: 1 }, paginate: cursor(after, 1, "next") }\nstore response -> out'
    record = {"type": "api_key", "key": "key-9", "query": "sesame"}
    assert list((await run(bench, secured(steps, "api_key"), record)).ok().out) == ["1", "2", "3"]
    assert api.targets == ["/x?limit=1&sesame=key-9", "/x?page=2&sesame=key-9", "/y?page=3&sesame=key-9"]


async def test_a_page_of_another_origin_is_not_asked_for(api: ScriptedServer, bench: Bench) -> None:
    async with ScriptedServer() as other:
        api.on("/x", reply(data={"data": [{"id": 1}], "next": f"{other.url}/x"}))
        api.on("/l", reply(data=[{"id": 1}], headers={"Link": f'<{other.url}/l>; rel="next"'}))
        for steps in (
            'get "/x" { paginate: cursor(after, 1, "next") }',
            'get "/l" { paginate: link() }',
            'get "/l" { paginate: cursor(after, 1, "link.next") }',
        ):
            ran = await run(bench, secured(steps, "bearer"), {"type": "bearer", "token": "tok-123"})
            assert ran.error.type == "pagination" and getattr(ran.outcome.errors[0], "reason", "") == "origin"
        assert other.seen == []


# --- OAuth 2 ---------------------------------------------------------------------------------------------------------


class Authority:
    """A token endpoint that gives numbered tokens, and an API that takes the newest."""

    def __init__(self, api: ScriptedServer, *, refresh: bool = True, expires_in: Any = 3600) -> None:
        self.forms: list[dict[str, str]] = []
        self.given = 0
        self.refresh, self.expires_in = refresh, expires_in
        api.on("/token", self.token).on("/x", self.answer)

    def token(self, seen: Seen) -> bytes:
        self.forms.append(dict(parse_qsl(seen.body.decode())))
        self.given += 1
        body = {"access_token": f"access-{self.given}", "expires_in": self.expires_in}
        return reply(data=body | ({"refresh_token": f"refresh-{self.given}"} if self.refresh else {}))

    def answer(self, seen: Seen) -> bytes:
        good = seen.headers.get("authorization") == f"Bearer access-{self.given}"
        return reply(data={"id": 1}) if good else reply(401, data={})


async def test_all_of_oauth_may_stand_in_variables(api: ScriptedServer, bench: Bench) -> None:
    authority = Authority(api, refresh=False)
    variables = {
        "CLIENT_ID": "us", "CLIENT_SECRET": "hush-hush", "TOKEN_ENDPOINT": f"{api.url}/token", "SCOPES": "read write",
        "EXPIRES_AT": "2026-03-01T08:15:01Z", "ACCESS_TOKEN": "almost-over",
    }  # fmt: skip
    (await run(bench, secured(), **{f"REQON_API_{k}": v for k, v in variables.items()})).ok()
    assert authority.forms == [{"grant_type": "client_credentials", "scope": "read write", "client_id": "us",
                                "client_secret": "hush-hush"}]  # fmt: skip


@pytest.mark.parametrize(
    ("record", "form"),
    [
        ({"refreshToken": "r-0", "clientId": "us", "clientSecret": "hush-hush"},
         {"grant_type": "refresh_token", "refresh_token": "r-0", "client_id": "us", "client_secret": "hush-hush"}),
        ({"refreshToken": "r-0", "clientId": "us", "clientSecret": "hush-hush", "grantType": "client_credentials",
          "scopes": "a b"},
         {"grant_type": "client_credentials", "scope": "a b", "client_id": "us", "client_secret": "hush-hush"}),
        ({"clientId": "us", "clientSecret": "hush-hush", "tokenParams": {"audience": "aud"}, "scopes": []},
         {"grant_type": "client_credentials", "client_id": "us", "client_secret": "hush-hush", "audience": "aud"}),
    ],
)  # fmt: skip
async def test_how_a_token_is_obtained(
    record: dict[str, Any], form: dict[str, str], api: ScriptedServer, bench: Bench
) -> None:
    authority = Authority(api)
    (await run(bench, secured(), {"type": "oauth2", "tokenUrl": f"{api.url}/token", **record})).ok()
    assert authority.forms == [form]


@pytest.mark.parametrize(("buffer", "left", "asks"), [(None, 299, 1), (None, 301, 0), (10, 11, 0), (10, 9, 1)])
async def test_a_configured_token_is_renewed_when_its_buffer_begins(
    buffer: int | None, left: int, asks: int, api: ScriptedServer, bench: Bench
) -> None:
    authority = Authority(api)
    authority.given = 0 if asks else 7
    record = {"type": "oauth2", "tokenUrl": f"{api.url}/token", "refreshToken": "r-0", "accessToken": "access-7",
              "expiresAt": bench.clock.now().timestamp() + left}  # fmt: skip
    if buffer is not None:
        record["refreshBuffer"] = buffer
    (await run(bench, secured(), record)).ok()
    assert len(authority.forms) == asks


async def test_what_a_refresh_does_not_give_is_kept(api: ScriptedServer, bench: Bench) -> None:
    """A new refresh token replaces the old one; none keeps it."""
    authority = Authority(api, refresh=False)
    record = {"type": "oauth2", "tokenUrl": f"{api.url}/token", "refreshToken": "r-0"}
    (await run(bench, secured(), record)).ok()
    (entry,) = json.loads((bench.state / "tokens.json").read_text())["tokens"].values()
    assert (entry["accessToken"], entry["refreshToken"], entry["source"]) == ("access-1", "r-0", "Api")
    authority.refresh = True
    bench.clock.advance(3600)
    (await run(bench, secured(), record)).ok()
    (entry,) = json.loads((bench.state / "tokens.json").read_text())["tokens"].values()
    assert (entry["accessToken"], entry["refreshToken"]) == ("access-2", "refresh-2")
    bench.clock.advance(3600)
    (await run(bench, secured(), record)).ok()
    assert [form["refresh_token"] for form in authority.forms] == ["r-0", "r-0", "refresh-2"]


async def test_token_requests_take_no_permits(api: ScriptedServer, bench: Bench) -> None:
    Authority(api, expires_in=1)
    record = {"type": "oauth2", "tokenUrl": f"{api.url}/token", "refreshToken": "r-0"}
    limit = ", rateLimit: { requestsPerMinute: 2, maxWait: 1000 }"
    (await run(bench, secured('get "/x"\nget "/x"', options=limit), record)).ok()
    assert bench.clock.slept == []


async def test_an_endpoint_that_redirects_or_answers_too_much_gives_no_token(api: ScriptedServer, bench: Bench) -> None:
    record = {"type": "oauth2", "tokenUrl": f"{api.url}/token", "refreshToken": "r-0"}
    api.on("/elsewhere", reply(data={"access_token": "stolen"}))
    for answer in (redirect("/elsewhere", 307), reply(data={"access_token": "a", "more": "x" * (1 << 20)})):
        api.on("/token", answer)
        ran = await run(bench, secured(), record)
        assert ran.error.type == "auth" and set(api.targets) == {"/token"}


# --- adopted tokens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", ["bearer", "oauth2"])
@pytest.mark.parametrize("field", ["access_token", "accessToken", "token"])
async def test_a_token_that_a_jump_brings_is_adopted(auth: str, field: str, api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", lambda s: reply(data={}) if s.headers["authorization"] == "Bearer new-one" else reply(401, data={}))
    api.on("/login", reply(data={"other": "", field: "new-one", "expires_in": 60, "refreshToken": "ref-1"}))
    steps = """for i in [1, 2] { get "/x"
        match response { { code: 401 } -> jump Login then retry, _ -> continue } }"""
    source = 'source Login { auth: none, base: env("API") }'
    text = mission(steps, declarations=source, actions='action Login { post Login "/login" }')
    text = text.replace("source Api { auth: none", f"source Api {{ auth: {auth}")
    record = {"type": auth, "token" if auth == "bearer" else "accessToken": "old-one"}
    (await run(bench, text, record)).ok()
    assert api.targets == ["/x", "/login", "/x", "/x"]
    kept = bench.state / "tokens.json"
    if auth == "oauth2":
        (entry,) = json.loads(kept.read_text())["tokens"].values()
        assert (entry["accessToken"], entry["refreshToken"]) == ("new-one", "ref-1")
        assert entry["expiresAt"].startswith("2026-03-01T08:16:00")
    else:
        assert not kept.exists()


@pytest.mark.parametrize("status", [403, 401])
async def test_only_a_401_of_such_a_source_adopts(status: int, api: ScriptedServer, bench: Bench) -> None:
    """Another status, and basic credentials, stay as they are."""
    api.on("/x", reply(status, data={}), reply(data={}))
    api.on("/login", reply(data={"token": "new-one"}))
    steps = 'get "/x"\nmatch response { { error: _ } -> jump Login then retry, _ -> continue }'
    auth = "bearer" if status == 403 else "basic"
    text = mission(steps, actions='action Login { post "/login" }')
    text = text.replace("source Api { auth: none", f"source Api {{ auth: {auth}")
    record = {"type": auth, "token": "old-one"} if status == 403 else {"type": auth, "username": "a", "password": "bcd"}
    (await run(bench, text, record)).ok()
    assert "new-one" not in api.seen[-1].headers["authorization"]


# --- redaction -------------------------------------------------------------------------------------------------------

PARAMETERS = ("key", "api_key", "apikey", "token", "access_token", "auth", "password", "secret", "sig", "signature",
              "code", "KEY", "Access_Token")  # fmt: skip
HEADERS = ("Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "X-Api-Key", "X-My-Token", "Client-Secret",
           "X-Password", "X-Signature", "apikey")  # fmt: skip


async def shown(bench: Bench, api: ScriptedServer, text: str) -> str:
    """Everything that a run shows, but for its stores."""
    bench.listen = (Event,)
    ran = await bench.run(text)
    told = [f"{e!r} {e.to_dict()}" for e in ran.events]
    told += [f"{e} {e!r} {e.format()} {e.to_dict()}" for e in ran.outcome.errors]
    files = [p.read_bytes().decode(errors="replace") for p in bench.state.rglob("*")
             if p.is_file() and "stores" not in p.parts and p.name != "tokens.json"]  # fmt: skip
    return "\n".join([*told, repr(ran.record), *files])


@pytest.mark.parametrize("name", PARAMETERS)
async def test_parameters_are_hidden_by_their_names(name: str, api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(400, data={}))
    bench.environment = {"V": "V4lue"}
    steps = f'let v = env("V")\nget "/x?{name}={{v}}" {{ params: {{ "{name}2": "Shown" }} }}'
    text = await shown(bench, api, mission(steps))
    assert api.targets[0].startswith(f"/x?{name}=V4lue") and "V4lue" not in text and "Shown" in text


@pytest.mark.parametrize("name", HEADERS)
async def test_headers_are_hidden_by_their_names(name: str, api: ScriptedServer, bench: Bench) -> None:
    answered = {name: "V4lue"} if name not in ("Authorization", "Proxy-Authorization") else {}
    api.on("*", reply(400, data={}, headers={**answered, "X-Plain": "Shown"}))
    bench.environment = {"V": "V4lue"}
    steps = f'get "/x" {{ headers: {{ "{name}": env("V") }} }}'
    if name == "Set-Cookie":
        steps = 'get "/x"'
    text = await shown(bench, api, mission(steps))
    assert "V4lue" not in text


def echo(seen: Seen) -> bytes:
    """An answer that tells what it was sent."""
    sent = [value for name, value in seen.headers.items() if name in ("authorization", "x-signed")]
    return reply(400, data={"error": f"sent <{sent[0]}>"})


async def test_a_token_that_a_jump_brought_is_not_shown(api: ScriptedServer, bench: Bench) -> None:
    api.on("/login", reply(data={"token": "adopted-one"})).on(
        "/x", lambda seen: echo(seen) if "adopted" in seen.headers["authorization"] else reply(401, data={})
    )
    steps = """get "/x"
      match response { { code: 401 } -> jump Login then retry, { error: e } -> abort e, _ -> continue }"""
    for auth, field in (("bearer", "token"), ("oauth2", "accessToken")):
        bench.settings = RunnerSettings(auth={"Api": {"type": auth, field: f"old-one-{auth}"}})
        bench.state = bench.state / auth
        text = await shown(bench, api, secured(steps, auth).replace("run A", 'action Login { post "/login" } run A'))
        assert "<Bearer ***>" in text and "old-one" not in text
        assert "adopted-one" not in text


@pytest.mark.parametrize("headers", [None, {"X-Signed": "signed-by-vault"}])
async def test_what_a_provider_gives_is_not_shown(headers: Any, api: ScriptedServer, tmp_path: Path) -> None:
    class Vault:
        def __init__(self, config: Any) -> None:
            assert config["seed"] == "seed-of-vault"

        async def get_token(self) -> str:
            return "token-of-vault"

    class Signing(Vault):
        async def get_headers(self) -> Any:
            return headers

    app = Reqon()
    app.register_auth_provider("vault", Signing if headers else Vault)
    api.on("*", echo)
    text = f'mission M {{ source Api {{ auth: vault, base: "{api.url}" }} action A {{ get "/x" }} run A }}'
    auth = {"Api": {"type": "vault", "seed": "seed-of-vault"}}
    result = await app.execute(text, state_dir=tmp_path, auth=auth)
    files = [p.read_bytes().decode(errors="replace") for p in tmp_path.rglob("*") if p.is_file()]
    said = "".join([repr(result.errors), *files])
    assert "***>" in said
    assert not any(secret in said for secret in ("token-of-vault", "signed-by-vault", "seed-of-vault"))


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("SHOP_TOKEN", True), ("token", True), ("MY_PASS", True), ("PASSWD_FILE", True), ("PWD", True),
        ("DB_KEY_2", True), ("APIKEY", True), ("AWS_CREDENTIAL", True), ("CREDENTIALS", True), ("Auth_Header", True),
        ("MONKEY", False), ("AUTHOR", False), ("KEYBOARD", False), ("TOKENS", False), ("REGION", False),
    ],
)  # fmt: skip
async def test_variables_are_secret_by_their_names(name: str, hidden: bool, api: ScriptedServer, bench: Bench) -> None:
    value = f"v4lue-of-{name.lower()}"
    bench.environment = {name: value, "SHORT_TOKEN": "abcde"}
    text = await shown(bench, api, mission(f'abort concat("at ", env("{name}"), " ", env("SHORT_TOKEN"))'))
    assert (value not in text) is hidden
    assert "abcde" in text, "what is shorter than 6 characters is no secret"


async def test_what_a_mission_stores_is_its_own(api: ScriptedServer, bench: Bench) -> None:
    bench.environment = {"MY_TOKEN": "t0p-s3cret-8"}
    steps = 'store { id: 1, t: env("MY_TOKEN") } -> kept\nget "/x"'
    text = mission(steps, stores='store kept: file("kept")')
    api.on("/x", reply(data={}))
    (await bench.run(text)).ok()
    assert bench.file_store("kept")["1"]["t"] == "t0p-s3cret-8"


async def test_an_error_keeps_two_kibibytes_of_a_body_and_no_request_body(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(400, data={"error": "e" * 5000, "tail": "at-the-end"}))
    bench.environment = {"CARD": "4111-1111"}
    text = await shown(bench, api, mission('post "/x" { body: { card: env("CARD") } }'))
    assert "at-the-end" not in text and "4111-1111" not in text and "e" * 2049 not in text


# --- one refresh for all ---------------------------------------------------------------------------------------------


async def test_parallel_actions_and_sources_of_one_credential_share_one_refresh(
    api: ScriptedServer, bench: Bench
) -> None:
    authority = Authority(api)
    record = {"type": "oauth2", "tokenUrl": f"{api.url}/token", "refreshToken": "r-0", "accessToken": "stale-one"}
    bench.settings = RunnerSettings(auth={"Api": record, "Two": record})
    body = 'for i in [1, 2, 3, 4, 5] parallel { get SRC "/x" }'
    actions = "".join(f"action {n} {{ {body.replace('SRC', s)} }}\n" for n, s in (("P", "Api"), ("Q", "Two")))
    two = 'source Two { auth: oauth2, base: env("API") }'
    text = mission("", actions=actions, run="[P, Q]", declarations=two).replace("auth: none", "auth: oauth2", 1)
    (await bench.run(text)).ok()
    assert len(authority.forms) == 1
