import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reqon.errors import ConfigurationError
from reqon.http.auth import Credentials, credentials_for, discovered, interpolate, load_auth_file
from reqon.http.messages import SourceSettings
from reqon.secrets import SECRETS


def found(
    record: dict[str, Any] | None = None,
    *,
    auth: str | None = None,
    environment: dict[str, str] | None = None,
    warnings: list[str] | None = None,
    **settings: Any,
) -> Credentials | None:
    source = SourceSettings(name="Depot", base="https://x", auth=auth, **settings)
    file = {"Depot": record} if record is not None else None
    heard: list[str] = [] if warnings is None else warnings
    return credentials_for(source, file, environment or {}, warn=heard.append)


def headers(credentials: Credentials | None) -> dict[str, str]:
    assert credentials is not None
    return dict(credentials.headers)


def test_each_type_sends_what_it_should() -> None:
    assert headers(found({"type": "bearer", "token": "t0ken-1"})) == {"Authorization": "Bearer t0ken-1"}
    basic = base64.b64encode("ann:pä:ss".encode()).decode()
    assert headers(found({"type": "basic", "username": "ann", "password": "pä:ss"})) == {
        "Authorization": f"Basic {basic}"
    }
    assert headers(found({"type": "api_key", "key": "k-1"})) == {"X-API-Key": "k-1"}
    key = found(
        {"type": "api_key", "apiKey": "k-1", "headerName": "X-K", "prefix": "Key ", "additionalHeaders": {"X-B": "2"}}
    )
    assert headers(key) == {"X-K": "Key k-1", "X-B": "2"}
    query = found({"type": "api_key", "key": "k-1", "query": "sesame"})
    assert query is not None and query.parameter == ("sesame", "k-1") and query.headers == ()


@pytest.mark.parametrize(
    ("record", "auth", "says"),
    [
        ({"type": "api_key", "key": "k", "header": "A", "query": "b"}, None, "not both"),
        ({"type": "basic", "username": "a:b", "password": "x"}, None, "colon"),
        ({"type": "bearer", "token": "a\nb"}, None, "control character"),
        ({"type": "bearer"}, None, "need 'token'"),
        ({"type": "basic", "username": "ann", "password": "x"}, "bearer", "type basic"),
        ({"type": "api_key", "key": "k", "header": "a b"}, None, "header name"),
        (None, "bearer", "no credentials were found"),
    ],
)
def test_unusable_credentials_stop_the_mission_before_its_first_request(
    record: dict[str, Any] | None, auth: str | None, says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        found(record, auth=auth)
    assert caught.value.exit_code == 3 and "Depot" in caught.value.message


def test_missing_credentials_name_the_variable_to_set() -> None:
    with pytest.raises(ConfigurationError) as caught:
        found(auth="basic")
    assert "REQON_DEPOT_USERNAME and REQON_DEPOT_PASSWORD" in (caught.value.hint or "")
    slip = {"depot": {"username": "ann", "password": "x"}}
    with pytest.raises(ConfigurationError) as caught:
        credentials_for(SourceSettings(name="Depot", base="https://x", auth="basic"), slip, {})
    assert (caught.value.hint or "").endswith('add "Depot" to the file given with --auth, which has "depot"')


def test_records_merge_field_by_field_the_file_first() -> None:
    environment = {"REQON_DEPOT_USERNAME": "from-env", "REQON_DEPOT_PASSWORD": "pw-env"}
    merged = found(
        {"type": "basic", "username": "from-file"}, inline={"username": "from-mission", "password": "pw-mission"},
        environment=environment,
    )  # fmt: skip
    assert merged is not None and merged.fields == {"username": "from-file", "password": "pw-mission"}
    assert found(environment=environment).fields["username"] == "from-env"  # type: ignore[union-attr]


def test_a_lower_record_of_another_type_is_ignored_with_a_warning() -> None:
    warnings: list[str] = []
    record = {"type": "basic", "username": "ann", "password": "x"}
    found(record, environment={"REQON_DEPOT_TOKEN": "tok-1"}, warnings=warnings)
    assert warnings == ["source 'Depot': bearer credentials of the environment are ignored, the auth file has basic"]


def test_auth_none_ignores_all_and_a_key_may_stand_in_the_headers() -> None:
    assert found({"type": "bearer", "token": "t"}, auth="none") is None
    assert found(auth="api_key", headers=(("X-Key", "1"),)) is None
    assert found() is None


def test_white_space_around_a_credential_is_cut_and_said() -> None:
    warnings: list[str] = []
    assert headers(found({"type": "bearer", "token": " tok-9\n"}, warnings=warnings)) == {
        "Authorization": "Bearer tok-9"
    }
    assert warnings == ["source 'Depot': white space around 'token' is cut"]


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["ACCESS_TOKEN"], "oauth2"), (["REFRESH_TOKEN", "TOKEN_URL"], "oauth2"), (["CLIENT_ID", "TOKEN"], "oauth2"),
        (["API_KEY"], "api_key"), (["USERNAME", "PASSWORD"], "basic"), (["TOKEN"], "bearer"),
    ],
)  # fmt: skip
def test_variables_of_the_environment_make_a_record(names: list[str], kind: str) -> None:
    made = found(environment={f"REQON_DEPOT_{n}": "value-1" for n in names})
    assert made is not None and made.type == kind


def test_a_sources_name_becomes_a_variable_prefix() -> None:
    assert discovered("my-API 2", {"REQON_MY_API_2_TOKEN": "t", "REQON_MY_API_2_TYPE": "bearer"}) == {
        "token": "t", "type": "bearer",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A", "1"), ("${A}", "1"), ("x$A-y", "x1-y"), ("${B:-d}", "d"), ("${E:-d}", "d"), ("${A:-d}", "1"),
        ("$$A", "$A"), ("$", "$"), ("a$ b", "a$ b"),
        ("$1", "$1"), ("${}", "${}"), ("${D}", "$A"), ("${B:-}", ""), ("$$$A", "$1"),
    ],
)  # fmt: skip
def test_variables_are_filled_in_once_from_left_to_right(text: str, value: str) -> None:
    environment = {"A": "1", "D": "$A", "E": ""}
    assert interpolate({"x": [text]}, environment, "f") == {"x": [value]}


def test_an_unset_variable_names_file_place_and_variable() -> None:
    with pytest.raises(ConfigurationError, match=r"auth\.json, \$\.Depot\.scopes\[1\]: .* NOPE is not set"):
        interpolate({"Depot": {"scopes": ["a", "$NOPE"]}}, {}, "auth.json")


@given(st.text(alphabet="${}:-AB_ x", max_size=30))
def test_any_text_is_filled_in_or_names_what_is_missing(text: str) -> None:
    try:
        assert isinstance(interpolate(text, {"A": "1"}, "f"), str)
    except ConfigurationError as error:
        assert "is not set" in error.message  # noqa: PT017  # one of the two


def test_the_file_is_read_and_its_secrets_are_known_at_once(tmp_path: Path) -> None:
    """K1"""
    path = tmp_path / "auth.json"
    path.write_text('{"Depot": {"type": "oauth2", "clientSecret": "${CS}", "tokenParams": {"password": "hunter-22"}}}')
    path.chmod(0o644)
    warnings: list[str] = []
    records = load_auth_file(path, {"CS": "client-secret-77"}, warn=warnings.append)
    assert records["Depot"]["clientSecret"] == "client-secret-77"
    assert SECRETS.redact("a client-secret-77 b hunter-22") == "a *** b ***"
    assert len(warnings) == 1 and "chmod 600" in warnings[0]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"Depot": 1}', '{"Depot": {"token": "$NOPE"}}', "\ud800"])
def test_a_bad_auth_file_is_a_configuration_error_that_names_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "auth.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigurationError, match=r"auth\.json"):
        load_auth_file(path, {})
    with pytest.raises(ConfigurationError, match=r"gone\.json"):
        load_auth_file(tmp_path / "gone.json", {})
    (tmp_path / "dir.json").mkdir()
    with pytest.raises(ConfigurationError, match=r"dir\.json"):
        load_auth_file(tmp_path / "dir.json", {})


def test_a_credential_shows_nothing_of_itself() -> None:
    """K1"""
    made = found({"type": "bearer", "token": "very-secret-1", "allowedHosts": ["X.example"]})
    assert made is not None and "very-secret-1" not in repr(made) + made.fingerprint
    assert made.may_go_to("x.example") and not made.may_go_to("y.example")
    same = found({"type": "bearer", "token": "very-secret-1"})
    assert same is not None and same.fingerprint == made.fingerprint
