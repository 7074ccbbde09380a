"""The writer: what gathers while it commits shares the next transaction, and fails alone."""

import threading

import pytest

from support.waiting import join
from tether.errors import StoreError, StoreUnavailable
from tether.store.writer import MAX_GROUP, MAX_GROUP_BYTES, Writer


class Transactions:
    """Stands in for the database: runs each transaction when it is let go on, and notes it."""

    def __init__(self):
        self.done = []
        self.failure = None
        self.is_closed = False
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.go_on.set()

    def run(self, function):
        self.entered.release()
        assert self.go_on.wait(60)
        if self.failure is not None:
            raise self.failure
        transaction = []
        answer = function(transaction)
        self.done.append(transaction)
        return answer

    def close(self):
        self.is_closed = True


def double(connection, items):
    connection.extend(("double", item) for item in items)
    if "bad" in items:
        raise ValueError("a bad item")
    return [item * 2 for item in items]


def negate(connection, items):
    connection.extend(("negate", item) for item in items)
    return [-item for item in items]


@pytest.fixture
def transactions():
    return Transactions()


@pytest.fixture
def open_writer(transactions):
    opened = []

    def open_one(shares_transaction=True):
        writer = Writer(transactions, shares_transaction=shares_transaction)
        writer.start()
        opened.append(writer)
        return writer

    yield open_one
    transactions.go_on.set()
    for writer in opened:
        writer.close()


def hold(transactions, writer):
    """Have the writer be in the middle of a transaction, and answer that one's future."""
    transactions.go_on.clear()
    [first] = writer.write(double, [1])
    assert transactions.entered.acquire(timeout=30)
    return first


def test_what_comes_while_it_commits_shares_the_next_transaction(transactions, open_writer):
    writer = open_writer()
    first = hold(transactions, writer)
    later = [writer.write(double, [number])[0] for number in range(10)] + writer.write(negate, [5])
    assert not first.done()
    transactions.go_on.set()
    assert [future.result(30) for future in later] == [*range(0, 20, 2), -5]
    assert [len(transaction) for transaction in transactions.done] == [1, 11]


def test_operations_have_a_transaction_each_where_they_may_not_share(transactions, open_writer):
    writer = open_writer(shares_transaction=False)
    hold(transactions, writer)
    futures = writer.write(double, [1]) + writer.write(negate, [1]) + writer.write(double, [2])
    transactions.go_on.set()
    assert [future.result(30) for future in futures] == [2, -1, 4]
    assert transactions.done[1:] == [[("double", 1), ("double", 2)], [("negate", 1)]]


def test_a_group_has_a_largest_size(transactions, open_writer):
    writer = open_writer()
    hold(transactions, writer)
    futures = writer.write(double, range(MAX_GROUP + 1))
    transactions.go_on.set()
    assert futures[-1].result(30) == 2 * MAX_GROUP
    assert [len(transaction) for transaction in transactions.done] == [1, MAX_GROUP, 1]


class Body:
    def __init__(self, body_bytes):
        self.body_bytes = body_bytes


def keep(connection, items):
    connection.extend(items)
    return items


def test_large_bodies_do_not_share_a_transaction(transactions, open_writer):
    writer = open_writer()
    hold(transactions, writer)
    futures = writer.write(keep, [Body(MAX_GROUP_BYTES // 2) for _ in range(5)])
    transactions.go_on.set()
    for future in futures:
        future.result(30)
    assert [len(transaction) for transaction in transactions.done] == [1, 2, 2, 1]


def test_no_more_share_a_transaction_than_are_written_in_a_short_time(transactions):
    now = [0.0]

    def take_long(connection, items):
        connection.extend(items)
        now[0] += 0.01 * len(items)
        return items

    writer = Writer(transactions, shares_transaction=True, clock=lambda: now[0])
    writer.start()
    try:
        hold(transactions, writer)
        futures = writer.write(take_long, range(MAX_GROUP + 12))
        transactions.go_on.set()
        for future in futures:
            future.result(30)
        assert [len(transaction) for transaction in transactions.done] == [1, MAX_GROUP, 5, 5, 2]
    finally:
        transactions.go_on.set()
        writer.close()


def test_a_bad_item_fails_alone(transactions, open_writer):
    writer = open_writer()
    hold(transactions, writer)
    good = writer.write(double, [1, 2, 3]) + writer.write(negate, [4])
    [bad] = writer.write(double, ["bad"])
    good += writer.write(double, [5, 6])
    transactions.go_on.set()
    assert [future.result(30) for future in good] == [2, 4, 6, -4, 10, 12]
    with pytest.raises(ValueError, match="a bad item"):
        bad.result(30)
    assert ("double", "bad") not in [item for transaction in transactions.done for item in transaction]


def test_an_outage_fails_all_at_once_and_each_with_an_error_of_its_own(transactions, open_writer):
    writer = open_writer()
    transactions.failure = StoreUnavailable("away")
    errors = [future.exception(30) for future in writer.write(double, range(5))]
    assert {type(error) for error in errors} == {StoreUnavailable}
    assert len({id(error) for error in errors}) == 5


def test_a_write_that_was_cancelled_while_it_waited_is_not_written(transactions, open_writer):
    writer = open_writer()
    hold(transactions, writer)
    kept, dropped = writer.write(double, [1, 2])
    assert dropped.cancel()
    transactions.go_on.set()
    assert kept.result(30) == 2
    assert transactions.done[1] == [("double", 1)]


def test_an_operation_that_forgets_an_item_is_an_error_and_nothing_is_committed(transactions, open_writer):
    def forget(connection, items):
        return []

    [future] = open_writer().write(forget, [1])
    with pytest.raises(StoreError, match="answered 0 of 1"):
        future.result(30)
    assert transactions.done == []


def test_closing_writes_what_was_given_and_ends_the_thread(transactions, open_writer):
    writer = open_writer()
    hold(transactions, writer)
    futures = writer.write(double, range(1_000))
    closing = threading.Thread(target=writer.close, name="test-closes")
    closing.start()
    transactions.go_on.set()
    join(closing)
    assert all(future.done() for future in futures)
    assert transactions.is_closed
    with pytest.raises(StoreError, match="closed"):
        writer.write(double, [1])
    assert "tether-store-writer" not in [thread.name for thread in threading.enumerate()]
