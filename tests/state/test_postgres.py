"""PostgreSQL: the contract, leases, fencing, connections that break, layouts. Against a real server."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reqon.errors import ConfigurationError, StateError
from reqon.secrets import SECRETS
from reqon.state.backend import SyncCheckpoint
from reqon.state.directory import LeaseLostError, StateDirectory
from reqon.state.postgres import VARIABLE, Database, PostgresBackend
from reqon.state.records import ExecutionRecord, ExecutionStatus, Owner
from reqon.state.recovery import recover, resumed
from tests.support import postgres
from tests.support.state_contract import T0, StateContract, a_full_record, a_record, running, there


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    """The database, with nothing of ours in it."""
    postgres.ask(server, "DROP SCHEMA IF EXISTS reqon CASCADE")
    return server


class TestPostgresBackend(StateContract):
    @pytest.fixture
    def backend(self, directory: StateDirectory, url: str) -> Iterator[PostgresBackend]:
        backend = PostgresBackend(directory, {VARIABLE: url})
        yield backend
        backend.close()

    def test_looking_makes_nothing(self, backend: PostgresBackend, url: str) -> None:
        assert backend.list() == []
        assert backend.load("exec_abc123") is None
        assert backend.sync_checkpoints("A") == {}
        assert backend.clear_sync(None) == 0
        assert list(backend.latest()) == list(backend.orphans()) == []
        assert not backend.journal(a_record()).exists
        assert postgres.ask(url, "SELECT 1 FROM pg_namespace WHERE nspname = 'reqon'") == []

    def test_a_full_journal_takes_what_ends_actions_only(self, directory: StateDirectory, url: str) -> None:
        backend = PostgresBackend(directory, {VARIABLE: url}, journal_max=500)
        journal = backend.journal(record := backend.create(a_record()))
        taken = 0
        while journal.append("page", {"n": taken}, body=b"[1, 2, 3]"):
            taken += 1
        journal.append("action", {"a": "0/Load"})
        journal.close()
        assert [e.kind for e in backend.journal(record).entries()] == ["page"] * taken + ["full", "action"]
        backend.close()

    def test_a_connection_that_breaks_is_made_again(self, backend: PostgresBackend, url: str) -> None:
        record = backend.create(a_record(status=ExecutionStatus.COMPLETED))
        journal = backend.journal(record)
        for n in range(3):
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'reqon'"
            assert postgres.ask(url, ended)
            journal.append("page", {"n": n}, body=b"[%d]" % n)
            journal.write()
            assert backend.load(record.execution_id) == record
        assert [e.fields["n"] for e in backend.journal(record).entries()] == [0, 1, 2]
        backend.put_sync("A", {"k": SyncCheckpoint(T0, 5, None)})
        postgres.ask(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'reqon'")
        backend.put_sync("A", {"k": SyncCheckpoint(T0, 5, None)})
        assert backend.sync_checkpoints("A")["k"].items_synced == 10

    def test_a_newer_layout_is_refused_and_left_as_it_is(
        self, backend: PostgresBackend, directory: StateDirectory, url: str
    ) -> None:
        """D10."""
        record = backend.create(a_record(status=ExecutionStatus.COMPLETED))
        postgres.ask(url, "INSERT INTO reqon.layout VALUES (99)")
        later = PostgresBackend(directory, {VARIABLE: url})
        for use in (later.list, later.list, lambda: later.save(record), lambda: later.create(a_record())):
            with pytest.raises(StateError, match="newer Reqon"):
                use()
        later.close()

    def test_an_older_layout_is_brought_forward_once(
        self, backend: PostgresBackend, directory: StateDirectory, url: str
    ) -> None:
        """D10."""
        record = backend.create(a_record(status=ExecutionStatus.COMPLETED))
        steps = ("never taken", "ALTER TABLE records ADD COLUMN added integer DEFAULT 7; SELECT 1")
        for _ in range(2):
            database = Database(directory, url, steps=steps)
            assert database.exists
            assert database.rows("SELECT added FROM records") == [(7,)]
            database.close()
        assert postgres.ask(url, "SELECT number FROM reqon.layout ORDER BY 1") == [(1,), (2,)]
        assert record.execution_id


@pytest.fixture
def machines(tmp_path: Path, url: str) -> Iterator[list[PostgresBackend]]:
    """Two machines that share the database: a state directory each."""
    made = [PostgresBackend(StateDirectory(tmp_path / name).open(), {VARIABLE: url}) for name in ("one", "two")]
    assert made[0].directory.named() != made[1].directory.named()
    yield made
    for backend in made:
        backend.close()


def owned(backend: PostgresBackend) -> ExecutionRecord:
    return a_record(owner=Owner(host="depot", pid=1, instance=backend.directory.instance))


def run_out(url: str) -> None:
    """Let the time of all leases pass."""
    postgres.ask(url, "UPDATE reqon.leases SET until = clock_timestamp() - interval '1 ms'")


def test_a_lease_is_one_machines_until_it_runs_out_or_is_given_back(machines: list[PostgresBackend], url: str) -> None:
    """R2."""
    one, two = machines
    assert one.lease("DepotSync", "one", 60)
    assert one.lease("DepotSync", "one", 60), "renewed"
    assert not two.lease("DepotSync", "two", 60)
    assert two.lease("Other", "two", 60)
    assert not two.lease("DepotSync", "two", 0)
    assert one.lease("DepotSync", "one", 0)
    assert two.lease("DepotSync", "nobody", 0), "the question alone takes nothing"
    assert two.lease("DepotSync", "two", 60)
    run_out(url)
    assert one.lease("DepotSync", "one", 60)
    assert not two.lease("DepotSync", "two", 60), "it went while its owner slept"


def test_a_live_owner_on_another_machine_is_left_alone_and_a_dead_one_is_found(
    machines: list[PostgresBackend], url: str
) -> None:
    """R2."""
    one, two = machines
    record = one.create(owned(one))
    assert one.lease(record.mission, one.directory.instance, 60)
    with running(one.directory, record):
        assert there(two.load(record.execution_id)).status is ExecutionStatus.RUNNING
        assert list(two.orphans()) == []
        assert recover(two, two.directory) == []
        with pytest.raises(StateError, match="running elsewhere"):
            two.delete(record)
    # Killed. On its own machine the lock says so at once, elsewhere the lease does when it has run out.
    assert there(one.load(record.execution_id)).status is ExecutionStatus.INTERRUPTED
    assert there(two.load(record.execution_id)).status is ExecutionStatus.RUNNING
    run_out(url)
    assert there(two.load(record.execution_id)).status is ExecutionStatus.INTERRUPTED
    (found,) = recover(two, two.directory)
    assert found.status is ExecutionStatus.INTERRUPTED


def test_a_lease_that_another_machine_took_speaks_for_that_machine_alone(
    machines: list[PostgresBackend], url: str
) -> None:
    """R2: the record of a machine that lost its lease is nobody's, though somebody holds the lease now."""
    one, two = machines
    record = one.create(owned(one))
    assert two.lease(record.mission, two.directory.instance, 60)
    assert [r.execution_id for r in two.orphans()] == [record.execution_id]


def test_nothing_is_written_for_an_owner_whose_execution_was_resumed_elsewhere(
    machines: list[PostgresBackend], url: str
) -> None:
    one, two = machines
    record = one.create(owned(one))
    journal = one.journal(record)
    journal.append("progress", {"i": 1})
    journal.write()
    (lost,) = recover(two, two.directory)
    taken = resumed(lost, owner=Owner(host="depot", pid=2, instance=two.directory.instance))
    two.save(taken)
    journal.append("progress", {"i": 2})
    with pytest.raises(LeaseLostError):
        journal.write()
    for durable in (True, False):
        with pytest.raises(LeaseLostError):
            one.save(replace(record, items_processed=99), durable=durable)
    assert [e.fields["i"] for e in two.journal(taken).entries()] == [1]
    again = two.journal(taken)
    again.append("progress", {"i": 3})
    again.write()
    assert [e.fields["i"] for e in two.journal(taken).entries()] == [1, 3]
    assert there(two.load(record.execution_id)).items_processed == 0


def test_two_processes_that_begin_at_once_make_the_tables_once(tmp_path: Path, url: str) -> None:
    script = (
        "import sys\n"
        "from reqon.state.directory import StateDirectory\n"
        "from reqon.state.postgres import PostgresBackend\n"
        "from tests.support.state_contract import a_record\n"
        "backend = PostgresBackend(StateDirectory(sys.argv[1]).open(), {'REQON_STATE_URL': sys.argv[2]})\n"
        "sys.stdin.readline()\n"
        "print(backend.create(a_record()).file_name)\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / str(n)), url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    names = {process.communicate(timeout=60)[0].strip() for process in started}
    assert len(names) == 4
    assert postgres.ask(url, "SELECT count(*) FROM reqon.records") == [(4,)]


@pytest.mark.parametrize("given", [None, ""])
def test_without_a_url_it_is_a_configuration_error_that_names_the_variable(tmp_path: Path, given: str | None) -> None:
    with pytest.raises(ConfigurationError, match=VARIABLE) as caught:
        PostgresBackend(StateDirectory(tmp_path), {} if given is None else {VARIABLE: given})
    assert caught.value.exit_code == 3


def test_neither_a_bad_url_nor_a_dead_server_shows_its_password(tmp_path: Path) -> None:
    """K1."""
    directory = StateDirectory(tmp_path)
    with pytest.raises(ConfigurationError) as bad:
        PostgresBackend(directory, {VARIABLE: "postgresql://me:s3cr3t-word@[broken"})
    backend = PostgresBackend(directory, {VARIABLE: "postgresql://me:s3cr3t-word@127.0.0.1:1/db"})
    with pytest.raises(StateError, match=r"PostgreSQL db at 127\.0\.0\.1:1") as dead:
        backend.list()
    assert "s3cr3t-word" not in str(bad.value) + str(dead.value)
    assert SECRETS.redact("with s3cr3t-word in it") == "with *** in it"
    SECRETS.forget("s3cr3t-word")


def test_a_missing_driver_is_a_configuration_error_that_names_the_extra(tmp_path: Path) -> None:
    hidden = (
        "import sys\n"
        "sys.modules['psycopg'] = None\n"
        "from reqon.errors import ConfigurationError\n"
        "from reqon.state.choice import StateStores\n"
        "from reqon.state.directory import StateDirectory\n"
        "try: StateStores(StateDirectory(sys.argv[1])).choose('postgres')\n"
        "except ConfigurationError as error: print(error.format(), error.exit_code)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", hidden, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert "reqon[postgres]" in ended.stdout
    assert ended.stdout.rstrip().endswith(" 3")


def test_a_record_of_every_field_is_the_same_on_two_machines(machines: list[PostgresBackend]) -> None:
    one, two = machines
    record = one.create(a_full_record())
    assert two.load(record.execution_id) == record
