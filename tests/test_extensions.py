"""What users' code adds: functions, auth, pagination, steps, plugins, hooks; options of `execute`."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

import reqon
from reqon import (
    CircuitBreakerCallbacks,
    ConfigurationError,
    ExtensionError,
    FunctionTransport,
    RateLimitCallbacks,
    Reqon,
    SemanticError,
    TransportError,
    create_emitter,
    create_structured_logger,
    execute,
    transform,
)
from reqon.lang import nodes
from reqon.observe.outputs import BufferOutput
from reqon.runtime.registries import GLOBAL
from reqon.values import changed
from tests.support.clocks import FakeClock


class Api:
    """Answers requests without a socket: `answers[path]` in order, the last one for ever; else 404."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {"/" + path: list(a) if isinstance(a, list) else [a] for path, a in answers.items()}
        self.seen: list[tuple[str, str, Mapping[str, str]]] = []

    def __call__(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, dict[str, str], bytes]:
        path, _, query = url.removeprefix("http://api.test").partition("?")
        self.seen.append((method, f"{path}?{query}" if query else path, headers))
        script = self.answers.get(path, [(404, {})])
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, Exception):
            raise answer
        status, data = answer
        return status, {"Content-Type": "application/json"}, json.dumps(data).encode()

    @property
    def targets(self) -> list[str]:
        return [target for _, target, _ in self.seen]


def text(steps: str, *, source: str = "auth: none", more: str = "") -> str:
    return f"""
mission M {{
  source Api {{ {source}, base: "http://api.test" }}
  store out: memory("out")
  {more}
  action A {{
    {steps}
  }}
  run A
}}
"""


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {"state_dir": tmp_path / "state", "clock": FakeClock()}


# --- transports ------------------------------------------------------------------------------------------------------


async def test_requests_are_answered_by_a_function(options: Any) -> None:
    api = Api(orders=(200, [{"id": "1"}]))
    result = await execute(text('get "/orders"\nstore response -> out'), http_transport=api, **options)
    assert result.success and result.stores["out"].records() == [{"id": "1"}]
    assert api.seen[0][2]["User-Agent"].startswith("reqon/")

    async def later(*_: object) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, b"[]"

    assert (await execute(text('get "/orders"'), http_transport=FunctionTransport(later), **options)).success
    broken = Api(orders=TransportError("no line", kind="network", sent=False))
    result = await execute(
        text('get "/orders"', source="auth: none, retry: { maxAttempts: 1 }"), http_transport=broken, **options
    )
    assert result.errors[0].type == "network" and "no line" in result.errors[0].message


# --- steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, {"id": 1}, (200, {}), (200, {}, "text"), ("200", {}, b""), (200, None, b"")])
async def test_an_answer_of_the_wrong_form_is_the_functions_fault(given: Any, options: Any) -> None:
    result = await execute(text('get "/x"'), http_transport=lambda *_: given, **options)
    (error,) = result.errors
    assert error.type == "extension" and "http_transport must give status, headers and body" in error.message
    result = await execute(text('get "/x"'), http_transport=lambda *_: given[9], **options)
    assert result.errors[0].type == "extension" and "http_transport failed: " in result.errors[0].message


async def test_a_registered_word_is_a_step(options: Any) -> None:
    """Its handler, plain or async, gets evaluated options and where it stands; what it gives is discarded."""
    app, told = Reqon(), []

    async def notify(step: Any, context: Any) -> str:
        told.append((step.word, dict(step.options), context.action, context.index, context.response))
        context.log("told")
        return "discarded"

    app.register_step_handler("notify", notify)
    app.register_step_handler("mark", lambda step, context: told.append(step.options["at"]))
    steps = """
    let rows = [{ id: "a" }, { id: "b" }]
    for row in rows {
      notify { channel: "ops", id: row.id }
      mark { at: row.id }
      store row -> out
    }
    notify { channel: concat("end ", length(out)) }
    """
    result = await app.execute(text(steps), **options)
    assert result.success and len(result.stores["out"].records()) == 2
    assert told == [
        ("notify", {"channel": "ops", "id": "a"}, "A", 0, None), "a",
        ("notify", {"channel": "ops", "id": "b"}, "A", 1, None), "b",
        ("notify", {"channel": "end 2"}, "A", 0, None),
    ]  # fmt: skip


async def test_what_a_handler_raises_fails_the_step_as_extension(options: Any) -> None:
    app = Reqon()

    def broken(step: Any, context: Any) -> None:
        raise ValueError("mine")

    app.register_step_handler("notify", broken)
    result = await app.execute(text("notify { a: 1 }"), **options)
    error = result.errors[0]
    assert (error.type, error.message, error.location) == (
        "extension", "notify failed: ValueError: mine", "<source>:7:5",
    )  # fmt: skip


async def test_a_word_that_nobody_registered_is_no_step(options: Any) -> None:
    with pytest.raises(reqon.ParseError, match="no step named 'notify'"):
        await execute(text("notify { a: 1 }"), **options)


# --- authentication --------------------------------------------------------------------------------------------------


async def test_a_registered_provider_signs_requests_and_refreshes_after_a_401(options: Any) -> None:
    app = Reqon()

    class Signer:
        def __init__(self, config: Mapping[str, Any]) -> None:
            self.config = config
            self.token = "first-token"

        async def get_token(self) -> str:
            return self.token

        async def refresh_token(self) -> str:
            self.token = f"second-{self.config['realm']}"
            return self.token

    app.register_auth_provider("signed", Signer)
    api = Api(x=[(401, {}), (200, {})])
    auth = {"Api": {"type": "signed", "realm": "shop"}}
    result = await app.execute(text('get "/x"', source="auth: signed"), http_transport=api, auth=auth, **options)
    assert result.success
    assert [h["Authorization"] for _, _, h in api.seen] == ["Bearer first-token", "Bearer second-shop"]


async def test_a_provider_may_give_headers_of_its_own(options: Any) -> None:
    app = Reqon()

    class Headers:
        async def get_token(self) -> str:
            raise AssertionError

        async def get_headers(self) -> dict[str, str]:
            return {"X-Signature": "abcdef-signature"}

    app.register_auth_provider("signed", lambda _: Headers())
    api = Api(x=(200, {}))
    assert (await app.execute(text('get "/x"', source="auth: signed"), http_transport=api, **options)).success
    assert api.seen[0][2]["X-Signature"] == "abcdef-signature" and "Authorization" not in api.seen[0][2]


# --- pagination ------------------------------------------------------------------------------------------------------


class Buckets:
    """Asks for bucket 1, 2, … as long as an answer says that there are more."""

    made: ClassVar[list[Any]] = []

    def __init__(self, about: Mapping[str, Any]) -> None:
        self.made.append(about)
        self.name = about["args"][0]
        self.number = 1
        self.more = True

    def get_initial_params(self) -> dict[str, Any]:
        return {self.name: 1}

    def update_from_response(self, body: Any, headers: Mapping[str, str]) -> None:
        self.more = body["more"]

    def has_more(self) -> bool:
        return self.more

    def get_next_params(self) -> dict[str, Any]:
        self.number += 1
        return {self.name: self.number}

    def extract_items(self, body: Any) -> list[Any]:
        return [{"id": key} for key in body["ids"]]


class Resumable(Buckets):
    def state(self) -> Any:
        return self.number

    def restore(self, value: Any) -> None:
        self.number = value


PAGES = [
    (200, {"ids": ["a", "b"], "more": True}),
    (200, {"ids": ["c"], "more": True}),
    (200, {"ids": ["d"], "more": False}),
]
BUCKETS = text('get "/x" { params: { q: 1 }, paginate: buckets(bucket, 7) }\nstore response -> out')


async def test_a_registered_strategy_pages_and_finds_items(options: Any) -> None:
    app = Reqon()
    app.register_pagination_strategy("buckets", Buckets)
    Buckets.made.clear()
    api = Api(x=list(PAGES))
    result = await app.execute(BUCKETS, http_transport=api, **options)
    assert api.targets == ["/x?q=1&bucket=1", "/x?q=1&bucket=2", "/x?q=1&bucket=3"]
    assert [r["id"] for r in result.stores["out"].records()] == ["a", "b", "c", "d"]
    assert Buckets.made == [{"args": ["bucket", 7], "fetch": {"params": {"q": 1}}}]


@pytest.mark.parametrize(
    ("strategy", "asked"), [(Resumable, ["/x?q=1&bucket=3"]), (Buckets, [f"/x?q=1&bucket={n}" for n in (1, 2, 3)])]
)
async def test_a_resume_goes_on_at_the_page_if_the_strategy_can(
    options: Any, strategy: type[Buckets], asked: list[str]
) -> None:
    app = Reqon()
    app.register_pagination_strategy("buckets", strategy)
    failing = Api(x=[*PAGES[:2], (400, {})])
    first = await app.execute(BUCKETS, http_transport=failing, **options)
    assert not first.success
    api = Api(x=PAGES[3 - len(asked) :])
    second = await app.execute(BUCKETS, http_transport=api, resume=True, **options)
    assert api.targets == asked and second.execution_id == first.execution_id
    assert [r["id"] for r in second.stores["out"].records()] == ["a", "b", "c", "d"]


async def test_a_strategy_s_fault_is_a_pagination_error(options: Any) -> None:
    app = Reqon()

    class Broken(Buckets):
        def has_more(self) -> bool:
            raise KeyError("more")

    app.register_pagination_strategy("buckets", Broken)
    result = await app.execute(BUCKETS, http_transport=Api(x=PAGES[0]), **options)
    assert result.errors[0].type == "pagination"
    assert "the pagination strategy 'buckets' failed: KeyError: 'more'" in result.errors[0].message


async def test_a_strategy_may_name_the_next_url_but_not_another_origin(options: Any) -> None:
    app = Reqon()

    class Urls(Buckets):
        target = "/y?page=2"

        def get_next_params(self) -> dict[str, Any]:
            return {"url": self.target}

    app.register_pagination_strategy("buckets", Urls)
    api = Api(x=PAGES[0], y=PAGES[2])
    assert (await app.execute(BUCKETS, http_transport=api, **options)).success
    assert api.targets == ["/x?q=1&bucket=1", "/y?page=2"]
    Urls.target = "http://elsewhere.test/y"
    result = await app.execute(BUCKETS, http_transport=Api(x=PAGES[0]), **options)
    assert "another origin" in result.errors[0].message


# --- instances, plugins, hooks ---------------------------------------------------------------------------------------


async def test_instances_know_nothing_of_each_other(options: Any) -> None:
    one, two = Reqon(), Reqon()
    one.register_function("shout", str.upper)
    two.register_function("shout", lambda value: value + "!")
    mission = text('store { id: shout("a") } -> out')
    for app, expected in ((one, "A"), (two, "a!")):
        assert (await app.execute(mission, **options)).stores["out"].records() == [{"id": expected}]
    with pytest.raises(reqon.ParseError, match="unknown function 'shout'"):
        await execute(mission, **options)
    assert "shout" not in GLOBAL.functions


async def test_a_store_adapter_of_an_instance_is_its_own(options: Any) -> None:
    class Shelf:
        def __init__(self) -> None:
            self.records: dict[str, Any] = {}

        async def get(self, key: str) -> Any:
            return self.records.get(key)

        async def set(self, key: str, value: Any) -> None:
            self.records[key] = value

        async def update(self, key: str, partial: Any) -> None:
            self.records[key] = {**self.records.get(key, {}), **partial}

        async def delete(self, key: str) -> None:
            self.records.pop(key, None)

        async def list(self, filter: Any = None) -> Any:  # noqa: A002  # the protocol's
            return list(self.records.values())

        async def clear(self) -> None:
            self.records.clear()

    one, two = Reqon(), Reqon()
    shelves = {id(app): Shelf() for app in (one, two)}
    mission = text("store [{ id: 1 }] -> kept", more='store kept: shelf("a")')
    for app in (one, two):
        shelf = shelves[id(app)]
        app.register_store_adapter("shelf", _always(shelf))
        assert (await app.execute(mission, **options)).success
        assert list(shelves[id(app)].records) == ["1"]
    with pytest.raises(reqon.ParseError, match="shelf"):
        await execute(mission, **options)


def _always(adapter: object) -> Callable[..., object]:
    return lambda _identifier, _config: adapter


def test_names_are_identifiers_built_ins_stay_and_a_second_time_replaces(caplog: pytest.LogCaptureFixture) -> None:
    app = Reqon()
    number: Any = 3
    for register, ours in (
        (app.register_function, "length"),
        (app.register_auth_provider, "bearer"),
        (app.register_pagination_strategy, "cursor"),
        (app.register_step_handler, "store"),
    ):
        thing: Any = print
        with pytest.raises(SemanticError, match="built-in"):
            register(ours, thing)
        with pytest.raises(SemanticError, match="no identifier"):
            register("not an id", thing)
        register("mine", thing)
        with caplog.at_level(logging.DEBUG, "reqon"):
            register("mine", thing)
        with pytest.raises(TypeError, match="'three' needs a function or a class, not int"):
            register("three", number)
        assert "mine is registered again" in caplog.text
        caplog.clear()
    with pytest.raises(ConfigurationError, match="built in"):
        app.register_store_adapter("file", print)
    for add in (app.register_store_adapter, app.hooks.on_error.tap):
        with pytest.raises(TypeError, match="'three' needs a function or a class, not int"):
            add("three", number)


async def test_a_plugin_is_installed_once(options: Any) -> None:
    class Shouting:
        name = "shouting"
        version = "1"
        installed = 0

        def install(self, app: Reqon) -> None:
            self.installed += 1
            app.register_function("shout", str.upper)
            app.hooks.before_action.tap(self.name, lambda action: None)

    plugin, app = Shouting(), Reqon()
    assert app.use(plugin).use(plugin) is app
    assert plugin.installed == 1 and app.plugins == {"shouting": "1"}
    assert (await app.execute(text('store { id: shout("x") } -> out'), **options)).success
    plugin.version = "2"
    with pytest.raises(ConfigurationError, match="version 1 is installed"):
        app.use(plugin)
    function: Any = print
    with pytest.raises(TypeError, match="a plugin has name, version and install"):
        app.use(function)


async def test_hooks_are_called_in_order_around_everything(options: Any) -> None:
    app = Reqon()
    calls: list[Any] = []
    hooks = app.hooks

    def before_parse(source: str) -> str:
        calls.append("before_parse")
        return source.replace("ONE", "1")

    async def before_execute(mission: Any) -> None:
        calls.append(("before_execute", mission.name))

    hooks.before_parse.tap("t", before_parse)
    hooks.after_parse.tap("t", lambda program: calls.append("after_parse"))
    hooks.before_execute.tap("t", before_execute)
    hooks.before_action.tap("t", lambda action: calls.append(("before_action", action)))
    hooks.before_step.tap("t", lambda step: calls.append(("before_step", step.type, step.location)))
    hooks.before_step.tap("second", lambda step: calls.append("second"))
    hooks.after_step.tap("t", lambda step, result: calls.append(("after_step", step.type, result.success, result.flow)))
    hooks.after_action.tap("t", lambda action, result: calls.append(("after_action", action, result.success)))
    hooks.on_error.tap("t", lambda error, where: calls.append(("on_error", error.kind, where["action"])))
    hooks.after_execute.tap("t", lambda result: calls.append(("after_execute", result.success)))
    await app.execute(text("let x = ONE\nabort x"), **options)
    assert calls == [
        "before_parse", "after_parse", ("before_execute", "M"), ("before_action", "A"),
        ("before_step", "let", "<source>:7:5"), "second", ("after_step", "let", True, None),
        ("before_step", "custom", "<source>:8:1"), "second", ("after_step", "custom", False, None),
        ("after_action", "A", False), ("on_error", "abort", "A"), ("after_execute", False),
    ]  # fmt: skip


async def test_a_hook_before_something_fails_the_run_and_one_after_it_is_logged(
    options: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no")

    app = Reqon()
    app.hooks.before_action.tap("guard", broken)
    result = await app.execute(text("let x = 1"), **options)
    assert (result.success, result.errors[0].type) == (False, "extension")
    assert result.errors[0].message == "hook before_action of guard failed: ValueError: no"
    other = Reqon()
    for hook in (other.hooks.after_action, other.hooks.after_step, other.hooks.after_execute, other.hooks.after_parse):
        hook.tap("late", broken)
    assert (await other.execute(text("let x = 1"), **options)).success
    assert [r.getMessage().split()[1] for r in caplog.records if "of late" in r.getMessage()] == [
        "after_parse", "after_step", "after_action", "after_execute",
    ]  # fmt: skip
    for name in ("before_parse", "before_execute"):
        third = Reqon()
        getattr(third.hooks, name).tap("guard", broken)
        with pytest.raises(ExtensionError, match=f"{name} of guard"):
            await third.execute(text("let x = 1"), **options)
    fourth = Reqon()
    fourth.hooks.before_step.tap("guard", broken)
    fourth.hooks.on_error.tap("late", broken)
    result = await fourth.execute(text("let x = 1"), **options)
    assert [error.message for error in result.errors] == ["hook before_step of guard failed: ValueError: no"]
    assert "hook on_error of late failed" in caplog.text


# --- transform -------------------------------------------------------------------------------------------------------


async def test_a_visitor_changes_a_copy_of_a_program(options: Any) -> None:
    program = reqon.parse(text('for i in [1, 2] { store { id: i } -> out }\nget "/never"'))

    class Visitor:
        def visit_fetch_step(self, node: nodes.Fetch) -> list[nodes.Node]:
            return []

        def visit_store_step(self, node: nodes.StoreStep) -> nodes.Node:
            same = nodes.Literal_(value="same", span=node.span)
            record = nodes.ObjectLiteral(
                entries=(nodes.Entry(key="id", key_span=node.span, value=same, span=node.span),),
                span=node.span,
            )
            return changed(node, value=record)

    other = transform(program, Visitor())
    result = await execute(other, **options)
    assert result.success and result.stores["out"].records() == [{"id": "same"}]
    assert other.missions[0].definition_hash != program.missions[0].definition_hash
    assert transform(program, object()).missions == program.missions
    slip: Any = type("Slip", (), {"visit_stores_step": print})()
    with pytest.raises(AttributeError, match=r"visit_stores_step visits nothing; did you mean 'visit_store_step'"):
        transform(program, slip)
    assert len(program.missions[0].actions["A"].steps) == 2


# --- listening -------------------------------------------------------------------------------------------------------


async def test_an_emitter_and_a_logger_hear_of_a_run(options: Any) -> None:
    emitter, logger, buffer = create_emitter(), create_structured_logger(silent=True), BufferOutput()
    logger.add_output(buffer)
    heard: list[Any] = []

    async def stored(event: Any) -> None:
        heard.append((event.store, event.count, event.added))

    emitter.on("data.store", stored)
    emitter.on("mission.complete", lambda event: heard.append(event.success))
    result = await execute(text("store [{ id: 1 }, { id: 2 }] -> out"), event_emitter=emitter, logger=logger, **options)
    assert ("out", 2, 2) in heard and True in heard
    assert [e.message for e in buffer.entries] == [
        "mission.start", "stage.start", "data.store", "stage.complete", "mission.complete",
    ]  # fmt: skip
    assert emitter.execution_id == result.execution_id and emitter.mission == "M"


async def test_callbacks_hear_of_limits_and_breakers(options: Any) -> None:
    calls: list[Any] = []
    limits = RateLimitCallbacks(
        on_rate_limited=lambda e: calls.append(("limited", e.source, e.strategy)),
        on_waiting=lambda e: calls.append(("waiting", e.elapsed_seconds)),
        on_resumed=lambda e: calls.append(("resumed", e.waited_seconds)),
    )
    source = "auth: none, rateLimit: { requestsPerMinute: 1, notifyAt: 20000 }"
    steps = 'get "/x"\nget "/x"'
    await execute(text(steps, source=source), http_transport=Api(x=(200, {})), rate_limit_callbacks=limits, **options)
    assert calls == [
        ("limited", "Api", "pause"), ("waiting", 20.0), ("waiting", 30.0), ("waiting", 40.0), ("waiting", 50.0),
        ("resumed", 60.0),
    ]  # fmt: skip
    calls.clear()
    breakers = CircuitBreakerCallbacks(
        on_open=lambda e: calls.append(("open", breakers.status("Api"))),
        on_rejected=lambda e: calls.append(("rejected", e.kind)),
        on_half_open=lambda e: calls.append("half open"),
        on_close=lambda e: calls.append("closed"),
    )
    source = "auth: none, retry: { maxAttempts: 1 }, circuitBreaker: { failureThreshold: 1, resetTimeout: 30000 }"
    steps = """
    get "/x"
    match response { _ -> continue, { error: _ } -> skip }
    """
    failing = """
    for i in [1, 2] { get "/down"
      match response { { error: e } -> store { id: i, e: e } -> out, _ -> continue } }
    """
    await execute(
        text(failing, source=source), http_transport=Api(down=(500, {})), circuit_breaker_callbacks=breakers, **options
    )
    (opened, status), rejected = calls
    assert opened == "open" and status["state"] == "open" and status["failures"] == 1
    assert rejected == ("rejected", "circuit_open") and breakers.status("Api") is None


async def test_verbose_writes_lines_to_stderr(options: Any, capsys: pytest.CaptureFixture[str]) -> None:
    await execute(text("let x = 1"), verbose=True, **options)
    lines = capsys.readouterr().err.splitlines()
    assert any("[Reqon]" in line and "mission.complete" in line for line in lines)


async def test_new_tokens_are_told_before_they_are_used(options: Any) -> None:
    told: list[Any] = []

    async def refreshed(source: str, tokens: Mapping[str, Any]) -> None:
        told.append((source, tokens["accessToken"], len(api.targets)))

    api = Api(token=(200, {"access_token": "fresh-token-1"}), x=(200, {}))
    auth = {
        "Api": {"type": "oauth2", "tokenUrl": "http://api.test/token", "clientId": "c", "clientSecret": "s3cret-client"}
    }
    with pytest.raises(ConfigurationError, match="https"):
        await execute(
            text('get "/x"', source="auth: oauth2"),
            http_transport=api, auth=auth, on_token_refresh=refreshed, **options,
        )  # fmt: skip
    auth["Api"]["tokenUrl"] = "https://api.test/token"
    api.answers["https://api.test/token"] = [(200, {"access_token": "fresh-token-1"})]
    result = await execute(
        text('get "/x"', source="auth: oauth2"), http_transport=api, auth=auth, on_token_refresh=refreshed, **options
    )
    assert result.success and told == [("Api", "fresh-token-1", 1)]
