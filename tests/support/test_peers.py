"""A test whose peer is missing skips, and fails where nothing may be missing."""

import pytest

from tests.support import peers


@pytest.fixture(autouse=True)
def nothing_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(peers.SERVERS, "postgresql", ("127.0.0.1", 1))


@pytest.mark.parametrize("name", ["promtool", "postgresql"])
def test_a_missing_peer_skips_with_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQON_TEST_REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match=f"^needs {name}: .+$"):
        peers.needs(name)


@pytest.mark.parametrize("required", ["all", "strace,promtool,postgresql"])
@pytest.mark.parametrize("name", ["promtool", "postgresql"])
def test_a_required_peer_that_is_missing_fails(name: str, required: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQON_TEST_REQUIRE", required)
    with pytest.raises(pytest.fail.Exception, match=f"^needs {name}: .+$"):
        peers.needs(name)


def test_what_cannot_be_had_everywhere_is_never_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQON_TEST_REQUIRE", "all")
    with pytest.raises(pytest.skip.Exception):
        peers.needs("systemd-analyze")
