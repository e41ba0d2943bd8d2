"""`wait`: what an API calls back with becomes a mission's response (spec/runtime.md 12, spec/language.md 7.9)."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reqon.clock import SYSTEM
from reqon.errors import ConfigurationError
from reqon.events import CheckpointSaved, Event, WebhookCompleted, WebhookReceived, WebhookRegistered
from reqon.running.settings import RunnerSettings
from reqon.running.shared import Shared
from reqon.state.choice import StateStores
from reqon.state.directory import StateDirectory
from reqon.state.records import ExecutionStatus
from reqon.values import decode
from reqon.webhooks.server import WebhookServer
from tests.support.clocks import FakeClock
from tests.support.missions import Bench, Ran, mission
from tests.support.servers import ScriptedServer, reply
from tests.support.webhooks import call, signed

Job = Callable[[dict[str, Any]], Awaitable[None]]


@pytest.fixture
async def server() -> AsyncIterator[WebhookServer]:
    async with WebhookServer(port=0) as running:
        yield running


@pytest.fixture
def waiting(bench: Bench, server: WebhookServer) -> Bench:
    """A bench whose missions can wait, on the machine's own clock."""
    bench.webhooks, bench.clock = server, SYSTEM
    bench.listen = (WebhookRegistered, WebhookReceived, WebhookCompleted, CheckpointSaved)
    return bench


def on_job(api: ScriptedServer, job: Job, path: str = "/jobs") -> None:
    """`POST /jobs` does this with its body before it answers: whatever it calls is called before the wait begins."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = json.loads(api.seen[-1].body or b"null")
        await job(body)
        writer.write(reply(202, data={"accepted": True}, headers={"Connection": "close"}))
        await writer.drain()
        writer.close()

    api.on(path, script)


def soon_called(api: ScriptedServer, job: Job, path: str = "/jobs") -> list[asyncio.Task[None]]:
    """The same, but only begun before the answer: the wait has begun, or not, when it calls."""
    tasks: list[asyncio.Task[None]] = []

    async def begin(body: dict[str, Any]) -> None:
        async def later() -> None:
            await asyncio.sleep(0.05)
            await job(body)

        tasks.append(asyncio.create_task(later()))

    on_job(api, begin, path)
    return tasks


def registrations(state: Path) -> list[dict[str, Any]]:
    return [decode(path.read_bytes()) for path in sorted((state / "webhooks" / "registrations").glob("*.json"))]


def events(state: Path) -> list[dict[str, Any]]:
    return [decode(path.read_bytes()) for path in sorted((state / "webhooks" / "events").glob("*/*.json"))]


async def until(condition: Callable[[], Any]) -> Any:
    """The first true value of a condition."""
    async with asyncio.timeout(30):
        while not (found := condition()):
            await asyncio.sleep(0.01)
    return found


ASK = 'post "/jobs" { body: { job: 7, callback: response.webhookUrl } }\n'
KEEP = 'store { id: "got", value: response, hook: webhook } -> out'


@pytest.mark.parametrize("early", [True, False])
async def test_a_callback_becomes_the_response(waiting: Bench, api: ScriptedServer, early: bool) -> None:
    async def job(body: dict[str, Any]) -> None:
        answer = await call(body["callback"], {"id": "e1", "job": body["job"]})
        assert (answer.status, answer.json["received"], answer.json["expected"]) == (200, 1, 1)

    (on_job if early else soon_called)(api, job)
    ran = (await waiting.run(mission(f"{ASK} wait {{}}\n {KEEP}"))).ok()
    assert ran.out["got"] == {"id": "got", "value": {"id": "e1", "job": 7}, "hook": {"id": "e1", "job": 7}}
    (registration,) = registrations(waiting.state)
    assert registration["status"] == "complete"
    assert registration["receivedEvents"] == 1
    assert registration["path"].startswith(f"/webhook/{ran.record.execution_id}/")
    assert (events(waiting.state)[0]["body"], events(waiting.state)[0]["method"]) == ({"id": "e1", "job": 7}, "POST")
    assert [type(e) for e in ran.told("webhook.register", "webhook.event", "webhook.complete")] == [
        WebhookRegistered,
        WebhookReceived,
        WebhookCompleted,
    ]


async def test_a_step_that_tells_the_url_runs_before_the_wait_before_it_blocks(
    waiting: Bench, api: ScriptedServer
) -> None:
    tasks = soon_called(api, lambda body: _called(body["callback"], {"ok": True}))
    steps = f'wait {{ path: "/after" }}\n{ASK} {KEEP}\nstore {{ id: "url", p: response.webhookPath }} -> out'
    ran = (await waiting.run(mission(steps))).ok()
    assert ran.out["got"]["value"] == {"ok": True}
    assert ran.out["url"]["p"] == "/after"
    assert len(api.seen) == len(tasks) == 1


async def _called(url: str, data: Any, **more: Any) -> None:
    assert (await call(url, data, **more)).status == 200


async def test_several_events_are_a_list_in_their_order_and_each_is_stored(waiting: Bench, api: ScriptedServer) -> None:
    async def job(body: dict[str, Any]) -> None:
        for number in range(3):
            await _called(body["callback"], {"id": f"e{number}", "n": number})

    soon_called(api, job)
    steps = f"{ASK} wait {{ expectedEvents: 3, storage: {{ target: events, key: .id }} }}\n {KEEP}"
    ran = (await waiting.run(mission(steps, stores='store events: file("events")'))).ok()
    assert [e["n"] for e in ran.out["got"]["value"]] == [0, 1, 2]
    assert list(ran.stores["events"]) == ["e0", "e1", "e2"]
    (ended,) = ran.told("webhook.complete")
    assert (ended.events_received, ended.timed_out, ended.stored_to) == (3, False, "events")  # type: ignore[attr-defined]


async def test_what_is_no_object_is_stored_under_its_event(waiting: Bench, api: ScriptedServer) -> None:
    on_job(
        api, lambda body: _called(body["callback"], body=b"plain words", headers={"Content-Type": "text/plain"}, data=0)
    )
    ran = (await waiting.run(mission(f"{ASK} wait {{ storage: out }}"))).ok()
    ((key, record),) = ran.out.items()
    assert record == {"value": "plain words"}
    (event,) = events(waiting.state)
    assert (key, event["rawBody"]) == (event["id"], "plain words")


@pytest.mark.parametrize("early", [True, False])
async def test_only_events_that_the_filter_and_the_types_want_count(
    waiting: Bench, api: ScriptedServer, early: bool
) -> None:
    """A filter sees the variables of its action; where it cannot be evaluated, the event does not count."""
    seen = []

    async def job(body: dict[str, Any]) -> None:
        for event in (
            {"type": "paid", "n": [1]},
            {"type": "paid", "n": 6},
            {"type": "new", "n": 7},
            {"type": "paid", "n": 7},
        ):
            answer = await call(body["callback"], event)
            seen.append(answer.status)

    tasks: list[asyncio.Task[None]] = []
    if early:
        on_job(api, job)
    else:
        tasks = soon_called(api, job)
    steps = f'let wanted = 7\n{ASK} wait {{ expectedEvents: ["paid", "gone"], eventFilter: .n - wanted == 0 }}\n {KEEP}'
    ran = (await waiting.run(mission(steps))).ok()
    await asyncio.gather(*tasks)
    assert ran.out["got"]["value"] == {"type": "paid", "n": 7}
    assert seen == ([200, 200, 202, 200] if early else [202, 202, 202, 200])


async def test_each_round_of_a_loop_has_an_endpoint_of_its_own(waiting: Bench, api: ScriptedServer) -> None:
    urls: list[str] = []

    async def job(body: dict[str, Any]) -> None:
        urls.append(body["callback"])
        await _called(body["callback"], {"job": body["job"]})

    on_job(api, job)
    body = """
      post "/jobs" { body: { job: n, callback: response.webhookUrl } }
      wait {}
      store { id: toString(n), got: response.job } -> out"""
    ran = (await waiting.run(mission(f"let ns = [1, 2, 3]\nfor n in ns {{ {body} }}"))).ok()
    assert {k: v["got"] for k, v in ran.out.items()} == {"1": 1, "2": 2, "3": 3}
    urls.clear()
    await waiting.run(mission(f"let ns = [1, 2, 3]\nfor n in ns parallel {{ {body} }}"))
    assert len(set(urls)) == 3


async def test_two_waits_under_one_path_share_what_comes(waiting: Bench, api: ScriptedServer) -> None:
    """Events that come at once are given out in order; what the first one's filter refuses is the second one's."""

    async def job(body: dict[str, Any]) -> None:
        for event in ({"for": "second"}, {"for": "first"}):
            await _called(body["callback"], event)

    on_job(api, job)
    steps = f"""{ASK}
      wait {{ path: "/both", eventFilter: .for == "first" }}
      store {{ id: "1", got: response.for }} -> out
      wait {{ path: "/both", eventFilter: .for == "second" }}
      store {{ id: "2", got: response.for }} -> out"""
    ran = (await waiting.run(mission(steps))).ok()
    assert (ran.out["1"]["got"], ran.out["2"]["got"]) == ("first", "second")


async def test_a_delivery_that_comes_again_counts_once_whoever_waits_next(waiting: Bench, api: ScriptedServer) -> None:
    async def job(body: dict[str, Any]) -> None:
        for number, headers in ((1, {"webhook-id": "d1"}), (1, {"webhook-id": "d1"}), (2, {"X-GitHub-Delivery": "d1"})):
            answer = await call(body["callback"], {"n": number}, headers=headers)
            assert answer.status == 200
            assert answer.json.get("duplicate", False) is (number == 1 and "received" not in answer.json)

    on_job(api, job)
    wait = 'wait {{ path: "/x" }}\nstore {{ id: "{0}", n: response.n }} -> out\n'
    steps = ASK + wait.format(1) + wait.format(2)
    ran = (await waiting.run(mission(steps))).ok()
    assert (ran.out["1"]["n"], ran.out["2"]["n"]) == (1, 2)


async def test_a_url_asked_for_by_path_is_that_of_the_wait_to_come(waiting: Bench, api: ScriptedServer) -> None:
    on_job(api, lambda body: _called(body["callback"], {"id": 1}))
    steps = f"""
      let path = concat("/jobs/", "a b")
      post "/jobs" {{ body: {{ callback: webhookUrl(path) }} }}
      wait {{ path: '/jobs/{{"a b"}}' }}
      {KEEP}"""
    ran = (await waiting.run(mission(steps))).ok()
    assert ran.out["got"]["value"] == {"id": 1}
    assert registrations(waiting.state)[0]["path"] == "/jobs/a%20b"


async def test_called_actions_wait_too(waiting: Bench, api: ScriptedServer) -> None:
    on_job(api, lambda body: _called(body["callback"], {"id": 1}))
    called = f"action B {{ {ASK} wait {{}}\n {KEEP} }}"
    ran = (await waiting.run(mission('run B\nstore { id: "own", value: webhook } -> out', actions=called))).ok()
    assert ran.out["got"]["value"] == {"id": 1}
    assert ran.out["own"]["value"] is None


async def test_without_a_server_a_mission_that_waits_does_not_start(bench: Bench) -> None:
    with pytest.raises(ConfigurationError, match="no server receives them") as refused:
        await bench.run(mission("wait {}"))
    assert refused.value.exit_code == 3
    assert refused.value.location == "test.vague:8:1"
    assert not (bench.state / "execution").exists()


# --- timeouts ---------------------------------------------------------------------------------------------------------


async def _run_late(waiting: Bench, steps: str, **more: Any) -> Ran:
    """Run it on a clock whose time passes as soon as somebody sleeps."""
    clock = FakeClock()
    async with WebhookServer(port=0, clock=clock) as server:
        waiting.webhooks, waiting.clock = server, clock
        return await waiting.run(mission(steps, **more))


async def test_too_few_events_in_time_fail_the_mission(waiting: Bench) -> None:
    ran = await _run_late(waiting, 'wait { path: "/never", timeout: 5000, expectedEvents: 2 }')
    assert ran.error.type == "webhook_timeout"
    assert ran.error.message == "waited 5 s at /never for 2 webhook events, none came"
    assert ran.error.location == "test.vague:8:1"
    assert registrations(waiting.state)[0]["status"] == "timeout"
    (ended,) = ran.told("webhook.complete")
    assert ended.timed_out  # type: ignore[attr-defined]


async def test_a_catch_sees_a_timeout(waiting: Bench) -> None:
    steps = "match { true -> wait { timeout: 10 } } catch { { kind: k } -> store { id: k } -> out }"
    assert list((await _run_late(waiting, steps)).ok().out) == ["webhook_timeout"]


@pytest.mark.parametrize(
    "options", ["timeout: 5000, retryOnTimeout: false", "timeout: 0", "timeout: 0, retry: { maxAttempts: 2 }"]
)
async def test_a_mission_may_go_on_without_events(waiting: Bench, options: str) -> None:
    ran = (await _run_late(waiting, f"wait {{ {options} }}\n{KEEP}")).ok()
    assert ran.out["got"] == {"id": "got", "value": None, "hook": None}


async def test_a_look_takes_what_is_there_each_event_once(waiting: Bench, api: ScriptedServer) -> None:
    """`timeout: 0` on a path: what comes between two looks is kept for the next one."""
    sent = iter(range(10))

    async def job(body: dict[str, Any]) -> None:
        for _ in range(body["times"]):
            await _called(body["callback"], {"n": next(sent)})

    on_job(api, job)
    look = 'wait {{ path: "/look", timeout: 0, expectedEvents: 3 }}\nstore {{ id: "{0}", got: response }} -> out\n'
    ask = 'post "/jobs" {{ body: {{ times: {0}, callback: url }} }}\n'
    steps = 'let url = webhookUrl("/look")\n' + "".join(
        part for round_, times in enumerate((0, 2, 3, 0)) for part in (ask.format(times), look.format(round_))
    )
    ran = (await waiting.run(mission(steps))).ok()
    got = [ran.out[str(round_)]["got"] for round_ in range(4)]
    assert [g and [e["n"] for e in g] for g in got] == [None, [0, 1], [2, 3, 4], None]


async def test_a_timeout_may_run_the_whole_action_again(waiting: Bench, api: ScriptedServer) -> None:
    """At most `maxAttempts` runs; path and token are kept, events of earlier runs dropped, variables fresh."""
    calls: list[str] = []

    async def job(body: dict[str, Any]) -> None:
        calls.append(body["callback"])
        await _called(body["callback"], {"n": len(calls)})
        if len(calls) == 3:
            await _called(body["callback"], {"n": 33})

    on_job(api, job)
    options = "timeout: 1000, expectedEvents: 2, retryOnTimeout: { maxAttempts: 3, delay: 250 }, token: required"
    ran = (await _run_late(waiting, f"let x = 1\n{ASK} wait {{ {options} }}\n {KEEP}")).ok()
    assert [e["n"] for e in ran.out["got"]["value"]] == [3, 33]
    assert len(calls) == 3
    assert len(set(calls)) == 1
    (registration,) = registrations(waiting.state)
    assert (registration["attempt"], registration["status"]) == (3, "complete")
    assert waiting.clock.slept.count(0.25) == 2


async def test_the_last_run_of_an_action_fails(waiting: Bench) -> None:
    ran = await _run_late(waiting, "wait { timeout: 1000, retryOnTimeout: { maxAttempts: 2 } }")
    assert ran.error.message.endswith("none came, in each of 2 runs of the action")


# --- stopping and resuming --------------------------------------------------------------------------------------------


async def _stopped_while_waiting(waiting: Bench, text: str, *, when: Callable[[], Any]) -> Ran:
    async with asyncio.TaskGroup() as group:
        run = group.create_task(waiting.run(text))
        await until(when)
        assert waiting.runner is not None
        waiting.runner.stop.request()
    return run.result()


LONG = mission(
    f"let x = 5\n{ASK} wait {{ expectedEvents: 2, timeout: 600000 }}\n"
    "store { id: toString(x), got: response, url: response.webhookId } -> out"
)


async def test_a_stopped_wait_is_saved_at_once_and_goes_on_with_what_came(waiting: Bench, api: ScriptedServer) -> None:
    """L3 for `wait`: told to stop, it is interrupted; a resume counts the stored events and asks nothing again."""
    on_job(api, lambda body: _called(body["callback"], {"n": 1}))
    # The checkpoint before the wait is what makes it safe; it is told when it is on disk.
    heard: list[Any] = []
    waiting.heard = heard
    stopped = await _stopped_while_waiting(
        waiting, LONG, when=lambda: [e for e in heard if e.type == "checkpoint.save" and e.reason == "webhook"]
    )
    assert stopped.record.status is ExecutionStatus.INTERRUPTED
    assert stopped.record.active_step is not None
    assert (stopped.record.active_step.action, stopped.record.active_step.step) == ("A", "wait")
    (registration,) = registrations(waiting.state)
    assert (registration["status"], registration["receivedEvents"]) == ("waiting", 1)

    waiting.heard = None
    async with WebhookServer(port=0) as server:  # another process, another port
        waiting.webhooks = server
        async with asyncio.TaskGroup() as group:
            run = group.create_task(waiting.resume(LONG))
            await until(server.desk.endpoints)
            await _called(server.url + registration["path"], {"n": 2})
        ran = run.result().ok()
    assert [e["n"] for e in ran.out["5"]["got"]] == [1, 2]
    assert ran.out["5"]["url"] == registration["id"]
    assert len(api.seen) == 1


async def test_events_for_a_stopped_execution_are_kept_by_whoever_stays(waiting: Bench, api: ScriptedServer) -> None:
    on_job(api, lambda body: _called(body["callback"], {"n": 1}))
    heard: list[Any] = []
    waiting.heard = heard
    await _stopped_while_waiting(waiting, LONG, when=lambda: [e for e in heard if e.type == "checkpoint.save"])
    assert waiting.webhooks is not None
    (endpoint,) = waiting.webhooks.desk.endpoints()
    assert not endpoint.attached
    await _called(waiting.webhooks.url + endpoint.registration.path, {"n": 2})
    ran = (await waiting.resume(LONG)).ok()
    assert [e["n"] for e in ran.out["5"]["got"]] == [1, 2]
    assert waiting.webhooks.desk.endpoints() == []


async def test_the_time_of_a_wait_goes_on_while_nobody_runs(waiting: Bench, api: ScriptedServer) -> None:
    """A resume has what is left; when that is over, the timeout's rule applies at once. Resuming that failure waits."""
    on_job(api, lambda body: asyncio.sleep(0))
    heard: list[Any] = []
    waiting.heard = heard
    await _stopped_while_waiting(waiting, LONG, when=lambda: [e for e in heard if e.type == "checkpoint.save"])
    waiting.heard = None
    (path,) = (waiting.state / "webhooks" / "registrations").glob("*.json")
    path.write_bytes(path.read_bytes().replace(b'"expiresAt": "20', b'"expiresAt": "19'))
    late = await waiting.resume(LONG)
    assert late.error.type == "webhook_timeout"
    assert len(api.seen) == 1

    async with asyncio.TaskGroup() as group:
        run = group.create_task(waiting.resume(LONG))
        assert waiting.webhooks is not None
        await until(waiting.webhooks.desk.endpoints)
        for number in range(2):
            await _called(waiting.webhooks.url + registrations(waiting.state)[0]["path"], {"n": number})
    assert [e["n"] for e in run.result().ok().out["5"]["got"]] == [0, 1]


async def test_a_resume_opens_nothing_that_is_passed(waiting: Bench, api: ScriptedServer) -> None:
    on_job(api, lambda body: _called(body["callback"], {"n": 1}))
    text = mission(
        f"""{ASK}
        wait {{ path: "/a" }}
        store {{ id: "a", n: response.n }} -> out
        wait {{ path: "/b", timeout: 600000 }}
        store {{ id: "b", n: response.n, webhook: webhook.n }} -> out"""
    )
    heard: list[Any] = []
    waiting.heard = heard
    await _stopped_while_waiting(waiting, text, when=partial(_saved, heard))
    waiting.heard = None
    async with asyncio.TaskGroup() as group:
        run = group.create_task(waiting.resume(text))
        assert waiting.webhooks is not None
        await until(lambda: [e for e in waiting.webhooks.desk.endpoints() if e.attached])  # type: ignore[union-attr]
        assert (await call(f"{waiting.webhooks.url}/a", {"n": 3})).status == 404
        await _called(f"{waiting.webhooks.url}/b", {"n": 2})
    assert {key: record["n"] for key, record in run.result().ok().out.items()} == {"a": 1, "b": 2}
    assert sorted(r["path"] for r in registrations(waiting.state)) == ["/a", "/b"]


async def test_what_belongs_to_an_execution_goes_with_it(waiting: Bench, api: ScriptedServer) -> None:
    on_job(api, lambda body: _called(body["callback"], {"n": 1}))
    ran = (await waiting.run(mission(f"{ASK} wait {{}}"))).ok()
    stores = StateStores(StateDirectory(waiting.state))
    size = stores.stored_bytes(ran.record)
    assert stores.delete(ran.record) == size > 500
    assert not [p for p in (waiting.state / "webhooks").rglob("*") if p.is_file()]
    assert not list((waiting.state / "webhooks" / "events").iterdir())


async def test_without_state_nothing_is_left(waiting: Bench, api: ScriptedServer) -> None:
    seen: list[Path] = []

    async def job(body: dict[str, Any]) -> None:
        seen.extend((waiting.state / "webhooks").rglob("*"))  # as a kill would leave it
        await _called(body["callback"], {"n": 1})
        assert (await call(body["callback"], {"n": 2})).status in (404, 410)

    on_job(api, job)
    ran = await waiting.run(mission(f"{ASK} wait {{}}\n{KEEP}", options="enableState: false"))
    assert ran.ok().out["got"]["value"] == {"n": 1}
    assert seen == [] and not (waiting.state / "webhooks").exists()


def _saved(heard: list[Any]) -> bool:
    return any(event.type == "checkpoint.save" for event in heard)


async def test_waiting_in_peace_is_no_poison(waiting: Bench, api: ScriptedServer) -> None:
    """Three resumes without progress end a run that brings its process down, not one that only waits."""
    on_job(api, lambda body: asyncio.sleep(0))
    for attempt in range(1, 6):
        heard: list[Any] = []
        waiting.heard = heard
        async with asyncio.TaskGroup() as group:
            run = group.create_task(waiting.run(LONG, resume=attempt > 1))
            await until(partial(_saved, heard))
            assert waiting.runner is not None
            waiting.runner.stop.request()
        found = run.result().record
        assert (found.attempt, found.resumes_without_progress) == (attempt, 0)


# --- who may call -----------------------------------------------------------------------------------------------------

GITHUB = 'signature: { secret: env("HOOK"), header: "X-Hub-Signature-256", prefix: "sha256=" }'


@pytest.fixture
async def public(waiting: Bench) -> AsyncIterator[WebhookServer]:
    """A server that others reach by a name of its own."""
    async with WebhookServer(port=0, url="https://hooks.example.com/reqon/") as running:
        waiting.webhooks = running
        waiting.environment = {"HOOK": "a secret of the sender's"}
        yield running


async def test_a_public_url_holds_a_token_that_nothing_shows(
    waiting: Bench, public: WebhookServer, api: ScriptedServer
) -> None:
    tokens: list[str] = []

    async def job(body: dict[str, Any]) -> None:
        prefix, _, rest = body["callback"].partition("https://hooks.example.com/reqon/")
        path, _, token = rest.partition("?token=")
        tokens.append(token)
        assert (prefix, len(token)) == ("", 32)
        assert (await call(f"{public.address}/{path}", {"n": 1})).status == 404
        await _called(f"{public.address}/{path}?token={token}", {"n": 1})

    on_job(api, job)
    waiting.listen = (Event,)
    text = mission(
        f"""{ASK} wait {{ path: "/cb" }}
        post "/jobs" {{ body: {{ callback: response.webhookUrl }} }}
        let asked = request
        wait {{ path: "/cb" }}
        store {{ id: "asked", url: asked.body.callback }} -> out"""
    )
    ran = (await waiting.run(text)).ok()
    assert tokens[0] == tokens[1]  # whoever has the URL of a path may go on using it
    assert ran.out["asked"]["url"].endswith("?token=***")
    assert not [e for e in ran.events if tokens[0] in repr(e.to_dict())]
    written = b"".join(p.read_bytes() for p in (waiting.state / "execution").iterdir())
    assert tokens[0].encode() not in written


@pytest.mark.parametrize("url", ["response.webhookUrl", 'webhookUrl("/cb")'])
async def test_a_signed_endpoint_is_checked_from_its_first_call_on(
    waiting: Bench, public: WebhookServer, api: ScriptedServer, url: str
) -> None:
    async def job(body: dict[str, Any]) -> None:
        assert body["callback"] == "https://hooks.example.com/reqon/cb"  # signed, so no token
        raw = b'{"n":1}'
        statuses = []
        for value in ("", f"sha256={signed('another', raw)}", f"sha256={signed(waiting.environment['HOOK'], raw)}"):
            headers = {"X-Hub-Signature-256": value, "Content-Type": "application/json"}
            statuses.append((await call(f"{public.address}/cb", body=raw, headers=headers)).status)
        assert statuses == [401, 401, 200]

    on_job(api, job)
    steps = f'post "/jobs" {{ body: {{ callback: {url} }} }}\nwait {{ path: "/cb", {GITHUB} }}\n{KEEP}'
    ran = (await waiting.run(mission(steps))).ok()
    assert ran.out["got"]["value"] == {"n": 1}


@pytest.mark.parametrize("secret", ["right", "wrong", None])
async def test_a_signed_endpoint_takes_calls_between_a_restart_and_its_resume(
    secret: str | None, waiting: Bench, api: ScriptedServer
) -> None:
    """The secret is never on disk, only the name of the variable that holds it."""
    waiting.environment = {"HOOK": "a-hooks-secret"}
    text = mission(
        f"{ASK} wait {{ expectedEvents: 2, timeout: 600000, {GITHUB} }}\nstore {{ id: 1, got: response }} -> out"
    )
    raw = b'{"n":1}'
    headers = {"X-Hub-Signature-256": f"sha256={signed(waiting.environment['HOOK'], raw)}"}
    headers["Content-Type"] = "application/json"
    on_job(api, lambda body: asyncio.sleep(0))
    heard: list[Any] = []
    waiting.heard = heard
    await _stopped_while_waiting(waiting, text, when=lambda: [e for e in heard if e.type == "checkpoint.save"])
    for file in waiting.state.rglob("*"):
        assert not file.is_file() or waiting.environment["HOOK"].encode() not in file.read_bytes(), file
    (registration,) = registrations(waiting.state)
    waiting.heard = None
    async with WebhookServer(port=0) as server:  # the next process
        waiting.webhooks = server
        other = {"right": waiting.environment, "wrong": {"HOOK": "another-secret"}, None: {}}[secret]
        shared = Shared(
            RunnerSettings(state_directory=waiting.state, webhooks=server), clock=waiting.clock, environment=other
        )
        await shared.adopt_webhooks()
        unsigned = await call(server.url + registration["path"], body=raw)
        taken = await call(server.url + registration["path"], body=raw, headers=headers)
        expected = {"right": (401, 200), "wrong": (401, 401), None: (503, 503)}[secret]
        assert (unsigned.status, taken.status) == expected
        await shared.close()
        async with asyncio.TaskGroup() as group:
            run = group.create_task(waiting.resume(text))
            await until(lambda: [e for e in server.desk.endpoints() if e.attached])
            for n in range(1 if secret == "right" else 0, 2):
                more = f'{{"n":{n + 1}}}'.encode()
                again = {**headers, "X-Hub-Signature-256": f"sha256={signed(waiting.environment['HOOK'], more)}"}
                assert (await call(server.url + registration["path"], body=more, headers=again)).status == 200
        assert run.result().ok().out["1"]["got"] == [{"n": 1}, {"n": 2}]


async def test_without_its_secret_a_signed_endpoint_does_not_open(waiting: Bench, public: WebhookServer) -> None:
    waiting.environment = {}
    ran = await waiting.run(mission(f"wait {{ {GITHUB} }}"))
    assert ran.error.message == "signature.secret must be a text, not null"
    assert public.desk.endpoints() == []


async def test_an_open_public_endpoint_is_warned_of(
    waiting: Bench, public: WebhookServer, api: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    on_job(api, lambda body: _called(body["callback"].replace(public.url, public.address), {"n": 1}))
    (await waiting.run(mission(f"{ASK} wait {{ token: none }}"))).ok()
    assert "test.vague:9:2: anybody who knows https://hooks.example.com/reqon can call here" in caplog.text


async def test_another_process_that_runs_the_execution_gets_its_calls(
    waiting: Bench, api: ScriptedServer, tmp_path: Path
) -> None:
    """What was adopted by one who stays is left to whoever resumes it elsewhere, and forgotten when that is over."""
    on_job(api, lambda body: asyncio.sleep(0))
    heard: list[Any] = []
    waiting.heard = heard
    stopped = await _stopped_while_waiting(
        waiting, LONG, when=lambda: [e for e in heard if e.type == "checkpoint.save"]
    )
    stays = waiting.webhooks
    assert stays is not None
    (path,) = {e.registration.path for e in stays.desk.endpoints()}
    lock = StateDirectory(waiting.state).execution_lock(stopped.record.execution_id)
    assert lock.take()
    refused = await call(stays.url + path, {"n": 1})
    assert (refused.status, refused.headers["retry-after"]) == (503, "30")
    lock.release()
    await _called(stays.url + path, {"n": 1})
    waiting.heard = None
    async with WebhookServer(port=0) as server:
        waiting.webhooks = server
        async with asyncio.TaskGroup() as group:
            run = group.create_task(waiting.resume(LONG))
            await until(server.desk.endpoints)
            await _called(server.url + path, {"n": 2})
        assert [e["n"] for e in run.result().ok().out["5"]["got"]] == [1, 2]
    stays.desk.sweep()
    assert stays.desk.endpoints() == []


# --- where waits may stand --------------------------------------------------------------------------------------------


async def test_actions_of_a_group_wait_side_by_side(waiting: Bench, api: ScriptedServer) -> None:
    async def job(body: dict[str, Any]) -> None:
        await _called(body["callback"], {"job": body["job"]})

    tasks = soon_called(api, job)
    actions = "\n".join(
        f"""action {name} {{
          post "/jobs" {{ body: {{ job: "{name}", callback: response.webhookUrl }} }}
          wait {{}}
          store {{ id: "{name}", got: response.job }} -> out
        }}"""
        for name in "BCD"
    )
    ran = (await waiting.run(mission(actions=actions, run="[B, C, D]"))).ok()
    assert {key: record["got"] for key, record in ran.out.items()} == {"B": "B", "C": "C", "D": "D"}
    assert len(tasks) == 3


async def test_a_wait_in_an_arm_sees_the_answer_and_its_endpoint(waiting: Bench, api: ScriptedServer) -> None:
    on_job(api, lambda body: _called(body["callback"], {"n": 1}))
    steps = f"""{ASK}
      match response {{
        {{ code: 202, webhookUrl: u }} -> {{
          store {{ id: "url", same: u == response.webhookUrl, code: response.code }} -> out
          wait {{}}
          {KEEP}
        }},
        _ -> abort "not accepted"
      }}"""
    ran = (await waiting.run(mission(steps))).ok()
    assert (ran.out["got"]["value"], ran.out["url"]["same"], ran.out["url"]["code"]) == ({"n": 1}, True, 202)


@pytest.mark.parametrize("parallel", ["", "parallel"])
async def test_a_timeout_in_a_loop_runs_the_action_again(waiting: Bench, api: ScriptedServer, parallel: str) -> None:
    asked: list[Any] = []

    async def job(body: dict[str, Any]) -> None:
        asked.append(body["job"])
        if body["job"] == 1 or asked.count(2) == 2:
            # A call for the first run may come so late that it counts for the second; then that needs no other.
            assert (await call(body["callback"], {"job": body["job"]})).status in (200, 410)

    on_job(api, job)
    steps = f"""
      let ns = [1, 2]
      for n in ns {parallel} {{
        post "/jobs" {{ body: {{ job: n, callback: response.webhookUrl }} }}
        wait {{ timeout: 60000, retryOnTimeout: {{ maxAttempts: 2, delay: 5 }} }}
        store {{ id: toString(n), got: response.job }} -> out
      }}"""
    ran = (await _run_late(waiting, steps)).ok()
    assert {key: record["got"] for key, record in ran.out.items()} == {"1": 1, "2": 2}
    assert sorted(asked) == [1, 1, 2, 2]


async def test_a_retry_asks_for_another_call(waiting: Bench, api: ScriptedServer) -> None:
    """Each time the request is repeated, the wait behind it is another one."""
    urls: list[str] = []

    async def job(body: dict[str, Any]) -> None:
        urls.append(body["callback"])
        await _called(body["callback"], {"n": len(urls)})

    on_job(api, job)
    steps = f"""{ASK}
      wait {{}}
      let n = response.n
      match n {{ 3 -> store {{ id: "got", n: n }} -> out, _ -> retry {{ maxAttempts: 5, delay: 0 }} }}"""
    ran = (await waiting.run(mission(steps))).ok()
    assert ran.out["got"]["n"] == 3
    assert len(set(urls)) == 3
