"""The tables' versions, up and down, and what a program says of tables that it does not know."""

import stat
import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from support.waiting import join
from tether.errors import StoreError
from tether.store import Store, migrations
from tether.store.migrations import HEAD, KNOWN, downgrade, upgrade
from tether.store.schema import metadata


def tables(url):
    with Store(url) as store:
        return store.read(lambda connection: set(inspect(connection).get_table_names()))


def test_migrating_up_makes_exactly_the_tables_that_the_program_uses(empty_database_url):
    upgrade(empty_database_url)
    with Store(empty_database_url) as store:
        differences = store.read(
            lambda connection: compare_metadata(MigrationContext.configure(connection), metadata)
        )
        checks = store.read(
            lambda connection: {
                (table.name, check["name"])
                for table in metadata.sorted_tables
                for check in inspect(connection).get_check_constraints(table.name)
            }
        )
    assert differences == []
    assert ("jobs", "ck_jobs_state") in checks


def test_migrating_down_removes_everything_and_up_makes_it_again(empty_database_url):
    made = tables(empty_database_url)
    assert {"jobs", "dispatches", "attempts", "holds", "dead_letters"} <= made
    downgrade(empty_database_url, "base")
    with pytest.raises(StoreError, match="must be of"):
        Store(empty_database_url).open(migrate=False)
    assert tables(empty_database_url) == made


def test_the_newest_known_version_is_the_newest_there_is():
    folder = migrations.__path__[0]
    scripts = ScriptDirectory(folder)
    assert scripts.get_current_head() == HEAD
    assert [script.revision for script in scripts.walk_revisions()][::-1] == list(KNOWN)


def test_tables_of_a_newer_version_are_left_alone(empty_database_url):
    with Store(empty_database_url) as store:
        store.write_alone(
            lambda connection: (
                connection.execute(text("UPDATE alembic_version SET version_num = '9999'")) and None
            )
        ).result(30)
    for attempt in (Store(empty_database_url).open, lambda: upgrade(empty_database_url)):
        with pytest.raises(StoreError, match=rf"version 9999.*newest is {HEAD}"):
            attempt()


def test_a_version_that_does_not_exist_is_named(empty_database_url):
    upgrade(empty_database_url)
    with pytest.raises(StoreError, match="nowhere"):
        downgrade(empty_database_url, "nowhere")


def test_several_that_open_an_empty_database_at_once_make_the_tables_once(empty_database_url):
    errors, barrier = [], threading.Barrier(4)

    def open_it():
        try:
            barrier.wait(60)
            Store(empty_database_url).open().close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it, name=f"test-open-{number}") for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        join(thread)
    assert errors == []


def test_an_sqlite_database_is_its_owners_alone(tmp_path):
    place = tmp_path / "new" / "folder" / "tether.db"
    Store(f"sqlite:///{place}").open().close()
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.parent.parent.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be created"):
        Store(f"sqlite:///{tmp_path}/file/tether.db").open()
