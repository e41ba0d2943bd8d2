"""Makes the state that a release leaves behind, for the tests of all later ones (D10): run it once for each release.

    unshare --uts sh -c 'hostname depot && python -m tests.releases.make'

One folder per state store, named after the release: the missions, the state directory as `state`, and for PostgreSQL
the database as `database.sql`. In each a mission is half done: its resume is the proof.
"""

import shutil
import sys
from pathlib import Path

import psycopg
from psycopg import sql

from reqon.__about__ import __version__
from reqon.state.postgres import _STEPS
from tests.support import postgres
from tests.support.orders_api import OrdersApi
from tests.support.processes import reqon

HERE = Path(__file__).parent
STORES = ("file", "sqlite", "postgres")
TABLES = ("layout", "records", "journal", "sync", "leases")
HALF_DONE = """mission Customers {
  stateStore: STORE
  source Shop { auth: none, base: env("SHOP_URL"), retry: { maxAttempts: 1 } }
  store customers: file("customers")
  store seen: memory("seen")
  action List {
    get "/customers" { params: { per_page: 10 }, paginate: page(page, 10), until: response.page >= response.pages }
  }
  action Visit {
    for customer in response.customers checkpoint every 1 {
      get "/customers/{customer.id}"
      store response -> customers { key: .id }
      store response -> seen { key: .id }
    }
  }
  run List then Visit
}
"""
DONE = """mission Recent {
  stateStore: STORE
  schedule: every 1 hour
  source Shop { auth: none, base: env("SHOP_URL") }
  store orders: file("orders")
  action Fetch {
    get "/orders" { params: { limit: 5 }, since: lastSync }
    store response.orders -> orders { key: .id }
  }
  run Fetch
}
"""


def make(store: str, place: Path) -> None:
    """The state of one run that completed on its schedule, and of one that failed at its 31st item."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name, text in (("customers.vague", HALF_DONE), ("recent.vague", DONE)):
        (place / name).write_text(text.replace("STORE", store))
    with OrdersApi(customers=40, orders=20) as api, postgres.database() as url:
        variables = {"SHOP_URL": api.url, "REQON_STATE_URL": url, "REQON_STATE_DIR": "state"}
        once = reqon("recent.vague", "--once", "--alert-on-failure", cwd=place, variables=variables)
        assert once.code == 0, once.text
        api.fail(500, "/customers/cust_0031")
        assert reqon("customers.vague", cwd=place, variables=variables).code == 1
        if store == "postgres":
            (place / "database.sql").write_text(dumped(url))
    for path in [*(place / "state").rglob("*.lock"), place / "state" / ".gitignore"]:
        path.unlink()


def dumped(url: str) -> str:
    """The statements that make the database again."""
    parts = [
        "CREATE SCHEMA reqon;\nSET search_path TO reqon;\nCREATE TABLE layout (number integer PRIMARY KEY);",
        *_STEPS,
    ]
    with psycopg.connect(url) as connection:
        for table in TABLES:
            for row in connection.execute(f"SELECT * FROM reqon.{table}".encode()):
                values = sql.SQL(", ").join(map(sql.Literal, row))
                insert = sql.SQL("INSERT INTO {} VALUES ({});").format(sql.Identifier(table), values)
                parts.append(insert.as_string(connection))
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    for one in STORES:
        make(one, HERE / f"{__version__}-{one}")
        sys.stdout.write(f"{__version__}-{one}\n")
