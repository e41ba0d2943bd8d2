"""An API that fails: a failed run with a named error, its record kept, nothing of it stored, exit 1."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from reqon.values import decode
from tests.support.orders_api import OrdersApi
from tests.support.processes import reqon

LOAD = """mission Load {{
  source Shop {{ auth: none, base: "{url}", timeout: 400 ms, retry: {{ maxAttempts: 1 }} }}
  store orders: file("orders")
  action Fetch {{
    get "/orders" {{ params: {{ limit: 50 }} }}
    store response.orders -> orders {{ key: .id }}
  }}
  run Fetch
}}
"""


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=5, orders=20) as running:
        yield running


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("500", "http", "500"),
        ("404", "http", "404"),
        ("401", "http", "401"),
        ("garbage", "parse", "JSON"),
        ("silence", "timeout", "0.4 s"),
        ("reset", "network", "connection"),
        ("cut", "network", "cut off"),
    ],
)
def test_a_failing_api_is_a_failed_run(fault: str, kind: str, said: str, api: OrdersApi, tmp_path: Path) -> None:
    """R8 in part."""
    (tmp_path / "load.vague").write_text(LOAD.format(url=api.url))
    api.fail(fault, "/orders", times=1)
    ended = reqon("load.vague", cwd=tmp_path, seconds=10)
    assert ended.code == 1, ended.text
    assert ended.err.startswith("load.vague:5:5: error: GET ")
    assert said in ended.err
    assert "Traceback" not in ended.text
    assert "Load: failed" in ended.out
    (record,) = reqon("history", "--json", cwd=tmp_path).json
    assert record["status"] == "failed"
    (error,) = record["errors"]
    assert error["type"] == kind
    assert error["location"] == "load.vague:5:5"
    assert error["action"] == "Fetch"
    assert said in error["message"]
    assert f"--resume --execution {record['executionId']}" in ended.out
    assert "reqon load.vague --resume" in ended.out
    orders = tmp_path / ".vague-data" / "stores" / "orders.json"
    assert not orders.exists() or decode(orders.read_bytes()) == {}
    # It is mended by itself, and by `--resume`.
    assert reqon("load.vague", "--resume", cwd=tmp_path).code == 0
    assert len(decode(orders.read_bytes())) == 20


def test_a_page_for_people_instead_of_data_is_named(api: OrdersApi, tmp_path: Path) -> None:
    (tmp_path / "load.vague").write_text(LOAD.format(url=api.url))
    api.fail("html", "/orders")
    ended = reqon("load.vague", cwd=tmp_path)
    assert ended.code == 1, ended.text
    assert ended.err.startswith("load.vague:6:5: error: store needs ")
    assert "not JSON" in ended.err
    (record,) = reqon("history", "--json", cwd=tmp_path).json
    assert record["status"] == "failed"
    assert record["stores"]["orders"]["count"] == 0


def test_where_nobody_listens_it_is_said_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    (tmp_path / "load.vague").write_text(LOAD.format(url=url))
    ended = reqon("load.vague", cwd=tmp_path, seconds=10)
    assert ended.code == 1
    assert "connection refused" in ended.err
    assert "Connect call" not in ended.err
    assert "hint: " in ended.err
    assert reqon("status", "Load", "--json", cwd=tmp_path).json["errors"][0]["type"] == "network"


def test_one_failed_mission_does_not_keep_the_others_from_running(api: OrdersApi, tmp_path: Path) -> None:
    broken = LOAD.replace("Load", "Broken").replace("orders:", "other:").replace("-> orders", "-> other")
    (tmp_path / "a.vague").write_text(broken.replace('"/orders"', '"/nowhere"').format(url=api.url))
    (tmp_path / "b.vague").write_text(LOAD.format(url=api.url))
    ended = reqon(".", cwd=tmp_path)
    assert ended.code == 1, ended.text
    assert "Broken: failed" in ended.out
    assert "Load: completed" in ended.out


def test_a_store_that_cannot_be_read_is_configuration(api: OrdersApi, tmp_path: Path) -> None:
    (tmp_path / "load.vague").write_text(LOAD.format(url=api.url))
    assert reqon("load.vague", cwd=tmp_path).code == 0
    orders = tmp_path / ".vague-data" / "stores" / "orders.json"
    orders.write_text("{ not json")
    ended = reqon("load.vague", cwd=tmp_path)
    assert ended.code == 3, ended.text
    assert "orders.json" in ended.err
    assert "Traceback" not in ended.err
    assert orders.read_text() == "{ not json"
    assert len(api.requests("/orders")) == 1
