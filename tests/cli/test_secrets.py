"""No secret in what a run prints, logs or keeps, whatever happens to it (spec/runtime.md 3.7)."""

import base64
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.orders_api import OrdersApi
from tests.support.processes import Ended, reqon

SECRET = 'p!ain/s3cret "mark+ed"'
PLACES = {
    "bearer variable": ("auth: bearer", {"REQON_SHOP_TOKEN": SECRET}, None),
    "bearer inline": ('auth: bearer, token: env("SHOP_TOKEN")', {"SHOP_TOKEN": SECRET}, None),
    "basic password": ("auth: basic", {"REQON_SHOP_USERNAME": "u", "REQON_SHOP_PASSWORD": SECRET}, None),
    "api key": ("auth: api_key", {"REQON_SHOP_API_KEY": SECRET}, None),
    "api key in the query": ("auth: api_key", {"REQON_SHOP_API_KEY": SECRET, "REQON_SHOP_QUERY": "k"}, None),
    "auth file": ("auth: bearer", {"S": SECRET}, '{"Shop": {"type": "bearer", "token": "${S}"}}'),
    "header": ('auth: none, headers: { "X-Any": env("ANY_PASSWORD") }', {"ANY_PASSWORD": SECRET}, None),
}
FAULTS = ("none", "500", "garbage", "reset")

# The secret is in reach of messages too: an abort and a path that show it.
MISSION = """mission Guarded {{
  source Shop {{ {auth}, base: "{url}", timeout: 400 ms, retry: {{ maxAttempts: 1 }} }}
  store orders: file("orders")
  action Load {{
    get "/orders" {{ params: {{ limit: 5 }} }}
    store response.orders -> orders {{ key: .id }}
    abort concat("ended with ", {shown})
  }}
  run Load
}}
"""
FORMS = {
    SECRET,
    quote(SECRET, safe=""),
    SECRET.replace('"', '\\"'),
    base64.b64encode(SECRET.encode()).decode(),
    base64.b64encode(f"u:{SECRET}".encode()).decode(),
}


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=5, orders=20) as running:
        yield running


def leaks(ended: Ended, state: Path) -> list[str]:
    """Where the secret turned up, in whatever form."""
    found = [f"output: {form}" for form in FORMS if form in ended.text]
    for path in state.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found += [f"{path.name}: {form}" for form in FORMS if form.encode() in content]
    return found


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_is_never_shown(place: str, api: OrdersApi, tmp_path: Path) -> None:
    """K1 in part: seven places, four ends, quiet and verbose; output and state directory."""
    auth, variables, file = PLACES[place]
    arguments = []
    if file is not None:
        (tmp_path / "auth.json").write_text(file)
        (tmp_path / "auth.json").chmod(0o600)
        arguments = ["--auth", "auth.json"]
    name = next(iter(variables)) if "SHOP_TOKEN" in variables or "ANY_PASSWORD" in variables else ""
    shown = f'env("{name}")' if name else '"nothing"'
    (tmp_path / "guarded.vague").write_text(MISSION.format(auth=auth, url=api.url, shown=shown))
    for fault in FAULTS:
        api.reset()
        if fault != "none":
            api.fail(fault, "/orders", times=2)
        loud = ["--verbose"] if fault in ("none", "500") else []
        more = {"REQON_LOG_LEVEL": "debug"} if loud else {}
        ended = reqon("guarded.vague", *arguments, *loud, cwd=tmp_path, variables=variables | more)
        assert ended.code == 1, ended.text
        assert "Traceback" not in ended.text
        assert api.requests("/orders")
        assert leaks(ended, tmp_path / ".vague-data") == []
        if name and fault == "none":
            assert "ended with ***" in ended.err
    for command in (["status", "Guarded"], ["history"], ["history", "--json"]):
        assert leaks(reqon(*command, cwd=tmp_path), tmp_path / ".vague-data") == []
    shown_plan = reqon("guarded.vague", *arguments, "--dry-run", cwd=tmp_path, variables=variables)
    assert leaks(shown_plan, tmp_path / ".vague-data") == []
    check = reqon("check", "guarded.vague", *arguments, "--json", cwd=tmp_path, variables=variables)
    assert leaks(check, tmp_path / ".vague-data") == []


def test_a_secret_that_is_written_in_a_mission_is_not_shown_with_its_line(api: OrdersApi, tmp_path: Path) -> None:
    """Findings and failures print the line they mean; the secret that stands on it is masked, its caret stays right."""
    text = MISSION.format(auth="auth: bearer, token: 'pineapple-juice'", url=api.url, shown='"nothing"')
    text = text.replace('get "/orders"', 'get concat("/none/", "pineapple-juice")')
    (tmp_path / "guarded.vague").write_text(text)
    shown = "    source Shop { auth: bearer, token: '***', base: \"" + api.url + '"'
    check = reqon("check", "guarded.vague", cwd=tmp_path)
    assert check.err.splitlines()[1].startswith("  " + shown)
    assert check.err.splitlines()[2] == " " * (2 + shown.index("'")) + "^" * len("'***'")
    failed = reqon("guarded.vague", cwd=tmp_path)
    (tmp_path / "guarded.vague").write_text(text.replace("base:", "bose: 1, base:"))
    broken = reqon("check", "guarded.vague", cwd=tmp_path)
    assert (failed.code, broken.code) == (1, 2), failed.err
    assert "concat(" in failed.err and "bose" in broken.err
    for ended in (check, failed, broken, reqon("status", "Guarded", "--json", cwd=tmp_path)):
        assert "pineapple" not in ended.text
    assert "pineapple" not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))
