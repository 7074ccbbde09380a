"""Reading by keys: what fails stands alone in the end, and what concerns all is raised."""

import itertools
import sqlite3

import pytest
from sqlalchemy.exc import OperationalError

from tether.errors import CommitUnknown, StoreError, StoreUnavailable
from tether.store.bad_rows import read_each
from tether.store.failures import Meaning, failure, meaning_of


@pytest.mark.parametrize("bad", [set(some) for k in range(4) for some in itertools.combinations(range(7), k)])
def test_all_rows_are_read_but_the_bad_ones(bad):
    reads = []

    def read(keys):
        reads.append(keys)
        if bad.intersection(keys):
            raise StoreError("it cannot be read")
        # There is no row for 5.
        return (f"row {key}" for key in keys if key != 5)

    rows, errors = read_each(read, [0, 1, 1, 2, 3, 4, 5, 6, 0])
    assert rows == [f"row {key}" for key in range(7) if key not in bad | {5}]
    assert errors.keys() == bad
    assert reads[0] == list(range(7))
    if not bad:
        assert len(reads) == 1


def test_rows_that_fail_as_they_are_fetched_cost_themselves():
    def read(keys):
        yield from (10 // key for key in keys)

    rows, errors = read_each(read, [5, 0, 2, 1])
    assert rows == [2, 5, 10]
    assert [type(error) for error in errors.values()] == [ZeroDivisionError]


def test_nothing_is_read_without_keys():
    assert read_each(lambda keys: pytest.fail("it has read"), []) == ([], {})


LOCKED = sqlite3.OperationalError("database is locked")
LOCKED.sqlite_errorname = "SQLITE_BUSY"


@pytest.mark.parametrize(
    "away",
    [StoreUnavailable("away"), CommitUnknown("lost"), OperationalError("SELECT", {}, LOCKED)],
    ids=repr,
)
def test_a_database_that_is_away_is_no_error_of_a_row(away):
    reads = []

    def read(keys):
        reads.append(keys)
        raise away

    with pytest.raises(type(away)):
        read_each(read, [1, 2, 3])
    assert reads == [[1, 2, 3]]


def test_a_text_that_is_no_utf_8_is_no_outage_and_is_not_repeated():
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (body TEXT)")
    connection.execute("INSERT INTO t VALUES (CAST(x'736563726574ff' AS TEXT))")
    with pytest.raises(sqlite3.OperationalError) as raised:
        connection.execute("SELECT body FROM t").fetchall()
    error = OperationalError("SELECT body FROM t", {}, raised.value)
    assert meaning_of(error) is Meaning.REFUSED
    told = failure(error, "here")
    assert not isinstance(told, StoreUnavailable)
    assert "column 'body'" in str(told)
    assert "secret" not in str(told)
