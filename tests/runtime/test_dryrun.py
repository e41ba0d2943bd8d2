"""A dry run shows every kind of step, sends nothing, and writes nothing."""

from pathlib import Path
from typing import get_args

import pytest

from reqon.diagnostics import Source
from reqon.errors import ConfigurationError, SpecError
from reqon.lang import nodes
from reqon.lang.check import Registered
from reqon.lang.loader import load_text
from reqon.lang.program import MissionProgram
from reqon.lang.walk import walk
from reqon.runtime.dryrun import DryRun
from reqon.runtime.plan import Plan
from reqon.stores.registry import open_store
from reqon.values import encode
from tests.support.clocks import FakeClock
from tests.support.orders_api import OrdersApi
from tests.support.processes import ROOT, reqon
from tests.support.specs import document, written

EVERYTHING = """
schema Order { id: string, total: number }
schema Slim { id: string }

transform Slimmer: Order -> Slim { id: .id }

mission Everything {
  source Shop { auth: bearer, base: env("SHOP_URL") }
  source Depot from env("DEPOT") { auth: none, base: "https://depot.example.org/v3/" }
  store orders: file("orders")
  store seen: memory("seen")
  let limit = 40 + 10
  let region = env("REGION")

  action List {
    get "/orders" {
      params: { limit: limit, region: region, after: response.last },
      paginate: cursor(after, 50, "next"), until: length(response.orders) == 0, since: lastSync
    }
  }
  action Work {
    for order in response.orders where .total > 0 {
      get "/orders/{order.id}" { source: Depot }
      match response {
        { code: 404 } -> skip,
        { error: e } where e != "" -> abort concat("cannot go on: ", e),
        { busy: true } -> retry { maxAttempts: 3 },
        { expired: true } -> jump Login then retry,
        [Order] -> continue,
        _ -> queue seen { item: order }
      }
      validate order { assume .total >= 0 } or { skip }
      map order -> Order { id: .id, total: .total }
      store order -> orders { key: .id, upsert: true }
      store order -> seen { key: .id }
    }
    apply Slimmer to response as slim
    delete orders["o-1"]
    clear seen
    post "/orders/done" { body: { done: true } }
    wait { timeout: 60000 }
    notify { channel: "ops" }
    let done = true
    call Depot.listParcels
    run Sweep
  }
  action Sweep {
    delete "/orders/old"
  }
  action Login {
    post "/login"
  }
  action Other {
    get "/other/{limit}"
  }
  run List then [Work, Other] if length(orders) < 100
}
"""


def parse(text: str) -> MissionProgram:
    program = load_text(Source("test.vague", text), known=Registered(steps=frozenset({"notify"})))
    assert not program.has_errors, program.all_diagnostics
    return program.missions[0]


def lines(text: str, **variables: str) -> list[str]:
    plan = Plan(parse(text), clock=FakeClock(), environment=variables)
    dry = DryRun(plan)
    dry.settings()
    return list(dry.lines())


SHOWN = """\
mission Everything (test.vague)
  store orders: file("orders")
  store seen: memory("seen")
  stage 1: List
    would GET https://shop.example.org/orders?limit=50&region=north%20%26%20south&after={response.last}, \
along the cursor, only what changed since the last sync
  stage 2: Work, Other together, if length(orders) < 100
    Work
      for each order in response.orders where .total > 0:
        would GET https://depot.example.org/v3/orders/{order.id}
        match response:
          { code: 404 } ->
            would skip the rest
          { error: e } where e != "" ->
            would abort the mission: concat("cannot go on: ", e)
          { busy: true } ->
            would repeat the request
          { expired: true } ->
            would run Login, then repeat the request
              would POST https://shop.example.org/login
          [Order] -> continue
          _ ->
            would queue the item in seen
        would check order against 1 constraint
          if it fails:
            would skip the rest
        would map order to Order (2 fields)
        would store order in orders by .id (merging into what is there)
        would store order in seen by .id (replacing what is there)
      would apply Slimmer to response
      would delete orders["o-1"]
      would clear seen
      would POST https://shop.example.org/orders/done, with a body
      would wait for a webhook
      would do notify
      would GET https://depot.example.org/v3/parcels
      would run Sweep
        would DELETE https://shop.example.org/orders/old
    Other
      would GET https://shop.example.org/other/50
"""


def test_every_kind_of_step_is_shown_with_what_is_known_of_it(tmp_path: Path) -> None:
    paths = {"/parcels": {"get": {"operationId": "listParcels", "responses": {}}}}
    depot = str(written(tmp_path, document(paths), "depot.json"))
    shown = lines(EVERYTHING, SHOP_URL="https://shop.example.org", REGION="north & south", DEPOT=depot)
    assert "\n".join(shown) + "\n" == SHOWN
    program = parse(EVERYTHING)
    used = {type(node) for action in program.actions.values() for node in walk(action)}
    assert set(get_args(nodes.Step)) <= used


def test_secrets_are_masked_wherever_they_stand() -> None:
    text = """
    mission M {
      source Api { auth: none, base: "https://api.example.org" }
      store out: file(concat("of-", env("API_TOKEN")))
      action A {
        get "/a" { params: { x: env("API_TOKEN"), api_key: "abc123", y: 1 } }
        get '/{env("API_TOKEN")}/b'
        store response -> out { key: .id }
      }
      run A
    }
    """
    shown = "\n".join(lines(text, API_TOKEN="pineapple juice"))
    assert "would GET https://api.example.org/a?x=***&api_key=***&y=1" in shown
    assert "would GET https://api.example.org/***/b" in shown
    assert 'store out: file("of-***")' in shown
    assert "pineapple" not in shown


def test_what_would_not_start_says_so(tmp_path: Path) -> None:
    depot = str(written(tmp_path, document(), "depot.json"))
    with pytest.raises(ConfigurationError, match="the base of source 'Shop' is empty"):
        lines(EVERYTHING, DEPOT=depot)
    with pytest.raises(SpecError, match="the document of source 'Depot' has no address"):
        lines(EVERYTHING, SHOP_URL="https://shop.example.org")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "m.vague").write_text(
        'mission M { source Shop { auth: bearer, base: env("SHOP_URL") } store out: file("out") '
        'action A { get "/secure/customers" store response.customers -> out { key: .id } } run A }'
    )
    return tmp_path


@pytest.mark.parametrize("flags", [["--dry-run"], []])
def test_nothing_is_sent_and_nothing_is_written(files: Path, flags: list[str]) -> None:
    with OrdersApi() as api:
        ended = reqon("m.vague", *flags, cwd=files, SHOP_URL=api.url, REQON_DRY_RUN="" if flags else "yes")
        assert ended.code == 0
        assert f"would GET {api.url}/secure/customers" in ended.out
        assert "warning" in ended.err
        assert "SHOP_TOKEN" in ended.err
        assert api.requests() == []
    assert [path.name for path in files.iterdir()] == ["m.vague"]


# All that could reach for the network or a database: tokens, stores, limits, webhooks, traces, alerts, heartbeats.
FAR = """
mission Far {
  source Depot {
    auth: oauth2, base: "https://depot.example.org", retry: { maxAttempts: 5 }, circuitBreaker: true,
    rateLimit: { requestsPerMinute: 1 }, propagateTrace: true,
    oauth: { tokenUrl: "https://id.example.org/token", clientId: "c", clientSecret: env("DEPOT_SECRET") }
  }
  store rows: sql("rows")
  store lines: sql("lines")
  store parts: postgrest("parts")
  action A {
    for n in [1, 2, 3] { get "/rows/{n}" { since: lastSync, paginate: page(page, 2), until: response.done } }
    store response -> rows { key: .id }
    store response -> lines
    for part in parts { post "/parts/{part.id}" { retry: { maxAttempts: 3 } } }
    wait { path: "/hook", timeout: 1 hour }
    match response { { error: _ } -> queue, _ -> clear rows }
  }
  run A
}
"""
WATCHED = """
import sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "sqlite3.connect"):
        print("opened:", event, arguments[1:], file=sys.stderr)

sys.addaudithook(watch)
"""
DAEMON = ["--daemon", "--metrics-port", "0", "--alert-on-failure", "--alert-url", "https://hooks.example.org"]


@pytest.mark.parametrize("flags", [[], [*DAEMON, "--heartbeat-url", "https://beat.example.org"]])
def test_no_socket_and_no_database_is_opened(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "far.vague").write_text(FAR)
    stores = {"sql": {"url": "postgresql://u:p@db.example.org/x"}, "lines": {"type": "sqlite"}}
    stores["postgrest"] = {"url": "https://rest.example.org"}
    (tmp_path / "stores.json").write_bytes(encode(stores))
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(WATCHED)
    before = sorted(tmp_path.rglob("*"))
    variables = {
        "PYTHONPATH": f"{tmp_path / 'hook'}:{ROOT}:{ROOT / 'daemon'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "DEPOT_SECRET": "s3cret-of-depot",
        "REQON_OTEL_ENDPOINT": "http://127.0.0.1:4318/v1/traces",
    }
    arguments = ["far.vague", "--dry-run", "--webhook", "--store-config", "stores.json", *flags]
    ended = reqon(*arguments, cwd=tmp_path, variables=variables)
    assert ended.code == 0 and "would wait for a webhook at /hook" in ended.out, ended.text
    assert "opened:" not in ended.err
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "near.vague").write_text(
        'mission N { source S { auth: none, base: "http://127.0.0.1:9", retry: { maxAttempts: 1 } } '
        'action A { get "/x" } run A }'
    )
    seen = reqon("near.vague", cwd=tmp_path, variables=variables)
    assert "opened:" in seen.err, "what a run opens is seen"


def test_a_dry_run_leaves_what_is_there_untouched(files: Path) -> None:
    with OrdersApi() as api:
        assert reqon("m.vague", cwd=files, SHOP_URL=api.url, REQON_SHOP_TOKEN=api.token).code == 0
        before = {path: path.stat().st_mtime_ns for path in files.rglob("*")}
        assert reqon("m.vague", "--dry-run", cwd=files, SHOP_URL=api.url, REQON_SHOP_TOKEN=api.token).code == 0
        assert {path: path.stat().st_mtime_ns for path in files.rglob("*")} == before
        assert len(api.requests()) == 1


def test_a_dry_run_needs_no_directory_that_can_be_written(files: Path) -> None:
    ended = reqon("m.vague", "--dry-run", "--state-dir", "/proc/nowhere", cwd=files, SHOP_URL="http://127.0.0.1:1")
    assert ended.code == 0


@pytest.mark.parametrize("word", ["1", "true", "TRUE", "yes", "0", "false", "no", ""])
def test_the_variable_takes_the_words_of_yes_and_no(word: str, tmp_path: Path) -> None:
    (tmp_path / "m.vague").write_text('mission M { store s: file("s") action A { store { id: 1 } -> s } run A }')
    ended = reqon("m.vague", cwd=tmp_path, REQON_DRY_RUN=word)
    assert ended.code == 0
    assert (tmp_path / ".vague-data").exists() is (word in ("0", "false", "no", ""))


def test_wrong_text_and_configuration_are_wrong_in_a_dry_run_too(files: Path) -> None:
    assert reqon("m.vague", "--dry-run", cwd=files).code == 3
    (files / "m.vague").write_text("mission M { run Nothing }")
    assert reqon("m.vague", "--dry-run", cwd=files).code == 2


# --- made-up answers -------------------------------------------------------------------------------------------------

PARCEL = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "weight": {"type": "integer", "maximum": 30},
        "status": {"enum": ["new", "sent"]},
    },
}
DEPOT = {
    "/parcels": {
        "get": {
            "operationId": "listParcels",
            "parameters": [
                {"name": "status", "in": "query", "explode": False, "schema": {}},
                {"name": "X-Branch", "in": "header", "schema": {}},
            ],
            "responses": {
                "200": {
                    "content": {
                        "application/json": {
                            "schema": {"type": "object", "properties": {"data": {"type": "array", "items": PARCEL}}}
                        }
                    }
                }
            },
        }
    },
    "/parcels/{id}/scans": {"post": {"operationId": "scan", "responses": {"204": {"description": "none"}}}},
}


def supposed(folder: Path, steps: str) -> list[str]:
    """The lines of an action of these steps, without their heads."""
    depot = written(folder, document(DEPOT), "depot.json")
    text = f"""
    mission M {{
      source Depot from "{depot}" {{ auth: none, base: "https://depot.example.org/v3" }}
      source Shop {{ auth: none, base: "https://shop.example.org" }}
      store out: memory("out")
      schema Sent {{ status: "sent" }}
      schema New {{ status: "new", weight: number }}
      transform Shaped {{ (Sent) -> T {{ code: 1 }} (New) where .weight > 1 -> T {{ code: .weight * 2 }} }}
      action A {{
        {steps}
      }}
      run A
    }}
    """
    return [line.removeprefix("    ") for line in lines(text)[3:]]


def test_calls_are_answered_with_made_up_data_and_what_follows_is_walked_as_it_would_go(tmp_path: Path) -> None:
    steps = """
    let wanted = ["new", "late"]
    call Depot.listParcels {
      params: { status: wanted, "X-Branch": "north", after: response.last }, paginate: page(p, 9)
    }
    for parcel in response where .weight > 10 {
      match parcel { Sent -> abort "no", New where .weight == 15 -> store parcel -> out { key: .id }, _ -> skip }
      validate parcel { assume .weight < 20, assume .status == "new" } or { abort "heavy" }
      validate parcel { assume .weight < 10, assume .weight > 90, assume if .status == "sent" { .id == null } } or {
        skip
      }
      store parcel -> out { key: .id }
    }
    for parcel in response.data where .weight > 30 { store parcel -> out { key: .id } }
    """
    one = [
        "  match parcel: New where .weight == 15 ->",
        "    would store parcel in out by .id (replacing what is there)",
        "  would check parcel against 2 constraints: all hold",
        "  would check parcel against 3 constraints: 2 fail",
        "    would skip the rest",
    ]
    url = "https://depot.example.org/v3/parcels?status=new,late&after={response.last}"
    assert supposed(tmp_path, steps) == [
        f"would GET {url}, page after page, answered with made-up data",
        "for each parcel in response where .weight > 10, 2 made up:",
        *one,
        *one,
        "for each parcel in response.data where .weight > 30: none",
    ]


def test_what_follows_from_made_up_data_is_known_in_requests(tmp_path: Path) -> None:
    steps = """
    call Depot.listParcels
    for parcel in response.data where .id == "00000000-0000-4000-8000-000000000001" {
      let id = parcel.id
      call Depot.scan { body: {} }
      map parcel -> row { code: .weight * 2 }
      get Shop "/rows/{row.code}"
      match response { { code: 404 } -> skip, _ -> continue }
      get Shop "/rows/{response.id}/{parcel.code}"
    }
    """
    assert supposed(tmp_path, steps)[1:] == [
        'for each parcel in response.data where .id == "00000000-0000-4000-8000-000000000001", 1 made up:',
        "  would POST https://depot.example.org/v3/parcels/00000000-0000-4000-8000-000000000001/scans, with a body",
        "  would map parcel to row (1 fields)",
        "  would GET https://shop.example.org/rows/30",
        "  match response:",
        "    { code: 404 } ->",
        "      would skip the rest",
        "    _ -> continue",
        "  would GET https://shop.example.org/rows/{response.id}/30",
    ]


def test_apply_is_followed_like_map(tmp_path: Path) -> None:
    steps = """
    call Depot.listParcels
    for parcel in response.data where .id == "00000000-0000-4000-8000-000000000001" {
      apply Shaped to parcel as row
      get Shop "/rows/{row.code}"
      apply Shaped to { status: "lost" } as none
      get Shop "/rows/{none.code}"
      apply Shaped to parcel
      get Shop "/rows/{response.code}"
    }
    """
    found = [line.strip() for line in supposed(tmp_path, steps)]
    assert [line for line in found if "GET" in line][1:] == [
        "would GET https://shop.example.org/rows/30",
        "would GET https://shop.example.org/rows/{none.code}",
        "would GET https://shop.example.org/rows/30",
    ]


def test_answers_without_a_schema_stay_unknown(tmp_path: Path) -> None:
    steps = """
    call Depot.scan { params: { id: env("ID") ?? "x" } }
    match response { { ok: true } -> continue, _ -> skip }
    for row in response.rows { call Depot.scan { params: { id: row.id } } }
    """
    assert supposed(tmp_path, steps) == [
        "would POST https://depot.example.org/v3/parcels/x/scans",
        "match response:",
        "  { ok: true } -> continue",
        "  _ ->",
        "    would skip the rest",
        "for each row in response.rows:",
        "  would POST https://depot.example.org/v3/parcels/{id}/scans",
    ]


def test_the_status_of_a_made_up_answer_is_that_of_its_success(tmp_path: Path) -> None:
    steps = """
    call Depot.listParcels
    match response { { code: 200 } -> store { a: 1 } -> out { key: "k" }, _ -> abort "no" }
    """
    assert supposed(tmp_path, steps)[1:] == [
        "match response: { code: 200 } ->",
        '  would store { a: 1 } in out by "k" (replacing what is there)',
    ]


def test_a_document_from_a_url_comes_from_the_cache_only(tmp_path: Path) -> None:
    with OrdersApi() as api:
        (tmp_path / "m.vague").write_text(
            f'mission M {{ source S from "{api.url}/openapi.json" {{ auth: none }} action A {{ call S.x }} run A }}'
        )
        ended = reqon("m.vague", "--dry-run", cwd=tmp_path)
        assert ended.code == 3
        assert "was not downloaded yet" in ended.err
        assert api.requests() == []
    assert [path.name for path in tmp_path.iterdir()] == ["m.vague"]


# --- local stores ----------------------------------------------------------------------------------------------------

JOBS = """
mission Jobs {
  source Depot { auth: none, base: "https://depot.example.org" }
  store jobs: file("jobs")
  store done: memory("done")
  action WorkOff {
    STEPS
  }
  run WorkOff
}
"""


def with_jobs(folder: Path, steps: str, *, state: str = ".vague-data", number: int = 3) -> list[str]:
    """The lines of a dry run of these steps; `jobs` holds so many, the last ones in its log only."""
    store = open_store("file", "jobs", {}, directory=folder / state / "stores", mission_directory=folder)
    for n in range(number):
        store.put(f"j{n}", {"id": f"j{n}", "attempts": n})
        if n == number - 2:
            store.fold()
    store.flush()  # and left open, as a run beside it has it
    (folder / "m.vague").write_text(JOBS.replace("STEPS", steps))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    ended = reqon("m.vague", "--dry-run", cwd=folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    store.close()
    assert ended.code == 0, ended.text
    return [line.strip() for line in ended.out.splitlines()[4:]]


def test_records_of_local_stores_are_walked_without_touching_them(tmp_path: Path) -> None:
    steps = """
    for job in jobs where .attempts < 2 { post "/rescan/{job.id}" }
    for n in [1, 2] { post "/n/{n}" }
    post "/count" { params: { n: length(jobs), last: jobs["j2"].attempts } }
    """
    assert with_jobs(tmp_path, steps) == [
        "for each job in jobs where .attempts < 2, 2:",
        "would POST https://depot.example.org/rescan/j0",
        "would POST https://depot.example.org/rescan/j1",
        "for each n in [1, 2], 2:",
        "would POST https://depot.example.org/n/1",
        "would POST https://depot.example.org/n/2",
        "would POST https://depot.example.org/count?n=3&last=2",
    ]


def test_what_the_walk_certainly_writes_is_known_behind_it(tmp_path: Path) -> None:
    steps = """
    for job in jobs { store { ...job, again: true } -> done { key: .id } }
    store { id: "j9" } -> jobs
    delete jobs["j0"]
    store { attempts: 7 } -> jobs { key: "j1", upsert: true }
    get "/a" { params: { done: length(done), jobs: length(jobs), id: jobs["j1"].id, now: jobs["j1"].attempts } }
    clear done
    get "/b" { params: { done: length(done) } }
    match response { { error: _ } -> store { id: "x" } -> done, _ -> continue }
    get "/c" { params: { done: length(done) } }
    match response { { error: _ } -> skip, _ -> continue }
    delete jobs["j1"]
    get "/d" { params: { jobs: length(jobs) } }
    """
    url = "would GET https://depot.example.org"
    assert [line for line in with_jobs(tmp_path, steps) if "GET" in line] == [
        f"{url}/a?done=3&jobs=3&id=j1&now=7",
        f"{url}/b?done=0",
        f"{url}/c?done={{length(done)}}",
        f"{url}/d?jobs={{length(jobs)}}",
    ]


def test_long_stores_are_shown_by_their_first_records(tmp_path: Path) -> None:
    lines = with_jobs(tmp_path, 'for job in jobs { post "/rescan/{job.id}" }', number=25)
    assert lines[0] == "for each job in jobs, 25:" and lines[-2:] == [
        "would POST https://depot.example.org/rescan/j9", "… and so on for 15 more",
    ]  # fmt: skip


def test_a_store_that_a_run_could_not_open_ends_a_dry_run_too(tmp_path: Path) -> None:
    (tmp_path / "m.vague").write_text(JOBS.replace("STEPS", "clear jobs"))
    (tmp_path / ".vague-data" / "stores").mkdir(parents=True)
    (tmp_path / ".vague-data" / "stores" / "jobs.json").write_text("{ no JSON")
    for flags in (["--dry-run"], []):
        ended = reqon("m.vague", *flags, cwd=tmp_path)
        assert ended.code == 3 and "m.vague:4:15: error: " in ended.err, ended.text
