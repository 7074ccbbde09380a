"""What is promised stays promised, whatever dies: the process, the connection, one of several."""

import os
import subprocess
import sys
import threading

import pytest
from sqlalchemy import func, select, text

from support.databases import accept, fresh_postgres, new_job, write
from support.paths import TESTS
from tether.errors import CommitUnknown, StoreError, StoreUnavailable
from tether.store import Store
from tether.store.admissions import admit
from tether.store.epoch import epoch, raise_epoch
from tether.store.schema import jobs

PROGRAM = TESTS / "support" / "store_program.py"


def start(url, name, count):
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), url, name, str(count)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def begin(process):
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()


def test_a_killed_process_loses_nothing_that_it_was_answered(database_url):
    Store(database_url).open().close()
    for round_number in range(3):
        process = start(database_url, f"round-{round_number}", 1_000_000)
        begin(process)
        said = [process.stdout.readline() for _ in range(200)]
        process.kill()
        said += process.stdout.read().splitlines(keepends=True)
        process.wait()
        process.stdin.close()
        process.stdout.close()
        answered = {line.split()[0] for line in said if line.endswith("\n")}
        assert len(answered) >= 200
        with Store(database_url) as store:
            kept = store.read(
                lambda connection: set(connection.execute(select(jobs.c.correlation_id)).scalars())
            )
        assert {f"correlation-{number}" for number in answered} <= kept


def test_two_processes_with_the_same_keys_make_each_job_once(database_url):
    Store(database_url).open().close()
    processes = [start(database_url, name, 300) for name in ("a", "b")]
    for process in processes:
        begin(process)
    answers = [process.communicate()[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    words = [line.split() for lines in answers for line in lines]
    assert sorted(int(number) for number, kind in words if kind == "accepted") == list(range(300))
    assert len(words) == 600


@pytest.fixture
def postgres_store(postgres_url):
    with fresh_postgres(postgres_url) as url, Store(url) as store:
        yield store


def test_a_connection_lost_before_the_commit_is_made_again(postgres_store):
    pids = []

    def lose_once(connection, items):
        pids.append(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
        if len(pids) == 1:
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return [raise_epoch(connection) for _ in items]

    assert postgres_store.write(lose_once, None).result(30) == 1
    assert len(set(pids)) == 2


def test_a_connection_that_is_lost_again_and_again_is_an_outage(postgres_store):
    def lose(connection, items):
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return items

    with pytest.raises(StoreUnavailable) as caught:
        postgres_store.write(lose, None).result(30)
    assert type(caught.value) is StoreUnavailable
    assert postgres_store.write_alone(raise_epoch).result(30) == 1


def test_readers_get_over_lost_connections(postgres_store):
    postgres_store.read(epoch)
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
    postgres_store.write_alone(
        lambda c: c.execute(text(others + "AND pid <> pg_backend_pid()")).all()
    ).result(30)
    assert postgres_store.read(epoch) == 0


def test_a_connection_lost_in_the_commit_leaves_it_unknown(postgres_store):
    def set_trap(connection):
        connection.execute(text("CREATE TABLE trap (number integer)"))
        connection.execute(
            text(
                "CREATE FUNCTION spring() RETURNS trigger LANGUAGE plpgsql AS "
                "'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'"
            )
        )
        connection.execute(
            text(
                "CREATE CONSTRAINT TRIGGER springs AFTER INSERT ON trap DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION spring()"
            )
        )

    postgres_store.write_alone(set_trap).result(30)
    future = postgres_store.write_alone(lambda c: c.execute(text("INSERT INTO trap VALUES (1)")).rowcount)
    with pytest.raises(CommitUnknown) as caught:
        future.result(30)
    assert caught.value.http_status == 503
    assert caught.value.retryable
    assert postgres_store.write_alone(raise_epoch).result(30) == 1


def test_a_database_that_is_not_there_is_unavailable():
    store = Store("postgresql://somebody:secret@127.0.0.1:1/none")
    with pytest.raises(StoreUnavailable) as caught:
        store.open()
    assert "secret" not in str(caught.value)
    assert "127.0.0.1:1/none" in str(caught.value)


def test_a_locked_sqlite_database_is_unavailable_and_then_available_again(tmp_path, monkeypatch):
    monkeypatch.setattr("tether.store.engines.BUSY_TIMEOUT_MS", 50)
    url = f"sqlite:///{tmp_path}/tether.db"
    with Store(url) as store, Store(url) as other:
        held, let_go = threading.Event(), threading.Event()

        def hold(connection):
            raise_epoch(connection)
            held.set()
            assert let_go.wait(60)

        holding = other.write_alone(hold)
        assert held.wait(60)
        with pytest.raises(StoreUnavailable):
            accept(store, new_job(1))
        # Reading goes on.
        assert store.read(lambda connection: connection.scalar(select(func.count()).select_from(jobs))) == 0
        let_go.set()
        holding.result(30)
        assert write(store, admit, new_job(1))[0].kind == "accepted"


def test_a_closed_store_takes_nothing_and_has_written_what_it_took(database_url):
    store = Store(database_url).open()
    futures = store.write_many(admit, [new_job(number) for number in range(600)])
    store.close()
    assert [future.result(0).kind for future in futures] == ["accepted"] * 600
    names = [thread.name for thread in threading.enumerate()]
    assert "tether-store-writer" not in names
    with pytest.raises(StoreError, match="not open"):
        store.write(admit, new_job(9))
    store.close()
