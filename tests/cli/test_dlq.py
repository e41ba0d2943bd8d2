"""`reqon dlq`: items that were set aside are listed, shown, done again and dropped."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reqon.cli.main import answer
from reqon.values import decode, encode
from tests.support.orders_api import OrdersApi

MISSION = """
mission Look {{
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store towns: {store}
  store lost: {lost}
  action List {{ get "/customers" {{ params: {{ per_page: 5 }} }} }}
  action Fetch {{
    let from = "shop"
    for customer in response.customers where .id != "cust_0005" {{
      get "/customers/{{customer.id}}"
      match response {{ {{ error: _ }} -> {queue}, _ -> continue }}
      store {{ id: customer.id, town: response.address.town, from: from }} -> towns
    }}
  }}
  run List then Fetch
}}
"""
Reqon = Callable[..., tuple[int, str]]


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=5, orders=3) as running:
        yield running


@pytest.fixture
def reqon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Reqon:
    """Run a command line in an empty folder: exit code and what it wrote."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = answer(list(words))
        told = capsys.readouterr()
        return code, told.out + told.err

    return run


def write(api: OrdersApi, *, queue: str = "queue", store: str = 'file("towns")', lost: str = 'file("lost")') -> None:
    Path("look.vague").write_text(MISSION.format(url=api.url, queue=queue, store=store, lost=lost))


def broken(api: OrdersApi, *customers: str) -> None:
    for customer in customers:
        api.fail(503, path=f"/customers/{customer}", times=1)


def listed(reqon: Reqon, *words: str) -> list[Any]:
    code, out = reqon("dlq", "list", "--json", *words)
    assert code == 0, out
    found: list[Any] = decode(out)
    return found


def towns() -> dict[str, Any]:
    found: dict[str, Any] = decode(Path(".vague-data/stores/towns.json").read_bytes())
    return found


def test_what_was_set_aside_is_done_again_one_by_one(api: OrdersApi, reqon: Reqon) -> None:
    write(api)
    broken(api, "cust_0002", "cust_0003")
    assert reqon("look.vague")[0] == 0
    assert set(towns()) == {"cust_0001", "cust_0004"}
    letters = listed(reqon)
    assert [(letter["key"], letter["mission"], letter["attemptCount"]) for letter in letters] == [
        ("cust_0002", "Look", 1), ("cust_0003", "Look", 1),
    ]  # fmt: skip
    assert letters[0]["code"] == 503 and letters[0]["retryable"] is True
    code, out = reqon("dlq", "list")
    assert code == 0 and "cust_0002" in out and "503" in out

    broken(api, "cust_0003")
    before = len(api.requests())
    code, out = reqon("dlq", "retry", "--all", "--path", "look.vague")
    assert code == 1, out
    assert "cust_0002: done" in out and "cust_0003: failed" in out
    assert [r["path"] for r in api.requests()[before:]] == ["/customers/cust_0002", "/customers/cust_0003"]
    assert towns()["cust_0002"]["from"] == "shop" and "cust_0003" not in towns()
    assert [(letter["key"], letter["attemptCount"]) for letter in listed(reqon)] == [("cust_0003", 2)]

    code, out = reqon("dlq", "retry", "cust_0003", "--path", "look.vague", "--json")
    assert (code, decode(out)) == (0, [{"key": "cust_0003", "outcome": "done", "reason": None}])
    assert listed(reqon) == [] and set(towns()) == {f"cust_000{n}" for n in (1, 2, 3, 4)}
    code, out = reqon("status", "Look", "--json")
    assert decode(out)["status"] == "completed" and decode(out)["trigger"] == "manual", "a retry leaves no record"


def test_a_letter_is_shown_and_dropped(api: OrdersApi, reqon: Reqon) -> None:
    write(api)
    broken(api, "cust_0001", "cust_0004")
    reqon("look.vague")
    code, out = reqon("dlq", "show", "cust_0004")
    (shown,) = decode(out)
    assert code == 0 and shown["item"]["id"] == "cust_0004" and shown["action"] == "Fetch"
    code, out = reqon("dlq", "drop", "cust_0001", "--json")
    assert (code, decode(out)) == (0, {"dropped": ["cust_0001"]})
    assert [letter["key"] for letter in listed(reqon)] == ["cust_0004"]
    code, out = reqon("dlq", "show", "cust_0009")
    assert code == 3 and "no item 'cust_0009' is set aside" in out
    code, out = reqon("dlq", "drop", "--all", "--mission", "Other")
    assert (code, out) == (0, "0 items dropped\n") and len(listed(reqon)) == 1


@pytest.mark.parametrize("lost", ['file("lost")', 'sql("lost")'])
def test_letters_in_a_declared_store_are_found_by_the_missions_path(lost: str, api: OrdersApi, reqon: Reqon) -> None:
    write(api, queue="queue lost", store='file("towns")', lost=lost)
    broken(api, "cust_0002")
    reqon("look.vague")
    assert listed(reqon) == []
    (letter,) = listed(reqon, "--path", "look.vague")
    assert (letter["key"], letter["store"]) == ("cust_0002", "lost")
    code, out = reqon("dlq", "retry", "cust_0002", "--path", "look.vague")
    assert code == 0, out
    assert listed(reqon, "--path", "look.vague") == [] and "cust_0002" in towns()


def test_what_the_mission_wrote_itself_is_refused_and_stays(api: OrdersApi, reqon: Reqon) -> None:
    write(api, queue="queue lost { item: { id: customer.id, note: 1 } }")
    broken(api, "cust_0002")
    reqon("look.vague")
    code, out = reqon("dlq", "retry", "--all", "--path", "look.vague")
    assert code == 1 and "cust_0002: refused: it was written by" in out
    assert len(listed(reqon, "--path", "look.vague")) == 1


def test_an_item_whose_retry_raises_stays_with_its_count(api: OrdersApi, reqon: Reqon) -> None:
    write(api)
    broken(api, "cust_0002")
    reqon("look.vague")
    write(api, queue='abort "no more"')
    broken(api, "cust_0002")
    code, out = reqon("dlq", "retry", "--all", "--path", "look.vague")
    assert code == 1 and "cust_0002: failed: no more" in out
    (letter,) = listed(reqon)
    assert (letter["attemptCount"], letter["error"]) == (2, "no more")


def test_without_the_mission_a_retry_says_what_is_missing(api: OrdersApi, reqon: Reqon) -> None:
    write(api)
    broken(api, "cust_0002")
    reqon("look.vague")
    code, out = reqon("dlq", "retry", "--all")
    assert code == 1 and "the mission 'Look' was not given: add --path" in out
    for words in (("dlq",), ("dlq", "lsit"), ("dlq", "drop")):
        assert reqon(*words)[0] == 3
    assert listed(reqon, "--retryable", "--store", "dead-letter")[0]["key"] == "cust_0002"


def test_an_item_without_an_id_keeps_its_key(api: OrdersApi, reqon: Reqon) -> None:
    write(api)
    text = Path("look.vague").read_text().replace("for customer in response.customers", "for number in [1, 2]")
    text = text.replace('where .id != "cust_0005"', "").replace("{customer.id}", "cust_000{number}")
    Path("look.vague").write_text(text.replace("customer.id", "number"))
    broken(api, "cust_0002")
    code, out = reqon("look.vague")
    assert code == 0, out
    (letter,) = listed(reqon)
    assert letter["key"].startswith("dlq_")
    broken(api, "cust_0002")
    assert reqon("dlq", "retry", "--all", "--path", "look.vague")[0] == 1
    (again,) = listed(reqon)
    assert (again["key"], again["attemptCount"]) == (letter["key"], 2)
    assert reqon("dlq", "retry", letter["key"], "--path", "look.vague")[0] == 0
    assert listed(reqon) == [] and encode(towns()["2"]["town"])
