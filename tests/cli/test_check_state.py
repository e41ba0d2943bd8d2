"""`reqon check --state`: what the state directory says of missions (spec/runtime.md 8)."""

import json
from pathlib import Path

from tests.support.processes import reqon

MISSION = """mission Orders {
  source Shop { auth: none, base: "http://127.0.0.1:1" }
  store orders: file("orders")
  action Load {
    get "/customers"
    for c in response {
      get "/customers/{c.id}/orders" { since: lastSync }
      store response -> orders { key: .id }
      get "/customers/{c.id}" { since: lastSync, syncKey: "customers" }
    }
  }
  run Load
}
"""


def test_a_request_with_ten_thousand_checkpoints_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "m.vague").write_text(MISSION)
    assert reqon("check", "--state", "m.vague", cwd=tmp_path).err == "", "no state directory is no finding"
    state = tmp_path / ".vague-data"
    state.mkdir(mode=0o700)
    entry = {"lastSync": "2026-03-01T08:15:00.000Z", "itemsSynced": 1, "mission": "Orders"}
    entries = {f"Shop-/customers/{n}/orders": entry for n in range(10_000)}
    entries |= {f"Shop-/else/{n}": entry for n in range(10)}
    entries |= {f"Other-/customers/{n}/orders": entry for n in range(10)}
    entries |= {f"Shop-/customers/x{n}/orders": {**entry, "mission": "Others"} for n in range(10)}
    file = state / "sync-checkpoints.json"
    file.write_text(json.dumps(entries))
    assert reqon("check", "--state", "m.vague", cwd=tmp_path).err == ""
    file.write_text(json.dumps(entries | {"Shop-/customers/more/orders": entry}))
    assert reqon("check", "m.vague", cwd=tmp_path).err == "", "only when it is asked for"
    ended = reqon("check", "--state", "m.vague", cwd=tmp_path)
    assert ended.code == 0 and "m.vague:7:7: warning: this request has 10001 sync checkpoints" in ended.err
    assert "[many-sync-keys]" in ended.err and ended.err.count("warning") == 1
    (found,) = json.loads(reqon("check", "--state", "--json", "m.vague", cwd=tmp_path).out)
    assert found["code"] == "many-sync-keys"
    assert sorted(p.name for p in state.iterdir()) == ["sync-checkpoints.json"], "nothing is made"
    file.write_text("{")
    ended = reqon("check", "--state", "m.vague", cwd=tmp_path)
    assert ended.code == 3 and "sync-checkpoints.json" in ended.err
