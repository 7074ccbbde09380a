"""The audit log: an act and its entry are one, and nothing changes an entry."""

import pytest
from sqlalchemy import insert, select, text, update

from tether.errors import InvalidRequest, StoreError, StoreUnavailable, TenantNotFound
from tether.store.audit import BEGUN, OK, Act, Audited, count_audit, prune_audit
from tether.store.audit_pages import audit_page
from tether.store.schema import audit_log, tenants
from tether.store.tenants import Tenant, create_tenant

NOW = 1_000


def act(target="research", action="tenants.create", **options):
    return Act(
        **{
            "act_id": "a",
            "actor": "key_1",
            "address": "192.0.2.7",
            "action": action,
            "target": target,
            **options,
        }
    )


def created(connection, tenant_id="research"):
    create_tenant(connection, Tenant(tenant_id, "", 1.0, None, NOW))


def there(store):
    return set(store.read(lambda connection: list(connection.execute(select(tenants.c.tenant_id)).scalars())))


def entries(store, **filters):
    return store.read(audit_page, **filters).entries


@pytest.fixture
def log(store):
    return Audited(store, lambda: NOW)


@pytest.fixture
def no_more_entries(store):
    """Nothing can be written to the log, as with a full disk."""
    store.write_alone(lambda connection: connection.execute(text("DROP TABLE audit_log"))).result()


def test_an_act_is_written_with_its_entry(store, log):
    wanted = act(tenant_id="research", details={"quota": None, "name": "ä"})
    log.write(wanted, created)
    (entry,) = entries(store)
    assert {name: getattr(entry, name) for name in vars(wanted)} == vars(wanted)
    assert (entry.at, entry.result) == (NOW, OK)
    assert "research" in there(store)


def test_what_was_refused_stands_in_the_log_with_the_error_s_code(store, log):
    error = TenantNotFound("there is no tenant")
    with pytest.raises(TenantNotFound) as told:
        log.write(act(), lambda connection: error)
    assert told.value is error
    assert [entry.result for entry in entries(store)] == ["tenant_unknown"]


@pytest.mark.usefixtures("no_more_entries")
def test_without_its_entry_an_act_in_the_database_is_not_done(store, log):
    with pytest.raises(StoreError):
        log.write(act(), created)
    assert there(store) == {"default"}


@pytest.mark.usefixtures("no_more_entries")
def test_without_its_entry_an_act_elsewhere_is_not_begun(log):
    done = []
    with pytest.raises(StoreError):
        log.elsewhere(act(), lambda: done.append(1))
    assert done == []


def test_an_act_elsewhere_has_an_entry_before_and_one_after(store, log):
    assert log.elsewhere(act(action="fleet.drain"), lambda: entries(store)[0].result) == BEGUN
    with pytest.raises(ZeroDivisionError):
        log.elsewhere(act(action="fleet.drain"), lambda: 1 // 0)

    def fail():
        raise InvalidRequest("no")

    with pytest.raises(InvalidRequest):
        log.elsewhere(act(action="fleet.drain"), fail)
    results = [entry.result for entry in reversed(entries(store))]
    assert results == [BEGUN, OK, BEGUN, "internal", BEGUN, "request_invalid"]


def test_an_act_elsewhere_whose_end_cannot_be_written_is_told_as_done_and_logged(store, log, caplog):
    def done():
        store.write_alone(lambda connection: connection.execute(text("DROP TABLE audit_log"))).result()
        return "done"

    assert log.elsewhere(act(action="fleet.drain"), done) == "done"
    assert "The end of an act could not be written to the audit log." in caplog.text


def test_nothing_changes_an_entry(store, log):
    log.write(act(), created)
    with pytest.raises(StoreError, match="append-only"):
        store.write_alone(
            lambda connection: connection.execute(update(audit_log).values(result="forged"))
        ).result()
    assert [entry.result for entry in entries(store)] == [OK]


def test_it_is_read_by_pages_newest_first_and_filtered(store, log):
    for number in range(5):
        log.write(
            act(target=f"t{number}", actor=f"key_{number % 2}", tenant_id=f"t{number}"),
            lambda connection: None,
        )
    log.write(act(action="keys.create"), lambda connection: None)
    log.write(act(action="keys_of_others"), lambda connection: None)
    page, cursor, seen = None, None, []
    while page is None or cursor is not None:
        page = store.read(audit_page, before=cursor, limit=2)
        cursor = page.after
        seen += [entry.target for entry in page.entries]
    assert seen == ["research", "research", "t4", "t3", "t2", "t1", "t0"]
    assert [entry.target for entry in entries(store, actor="key_0")] == ["t4", "t2", "t0"]
    assert [entry.action for entry in entries(store, action="keys")] == ["keys.create"]
    assert [entry.target for entry in entries(store, tenant_id="t3")] == ["t3"]
    assert [entry.action for entry in entries(store, action="tenants", limit=2)] == ["tenants.create"] * 2
    assert [entry.target for entry in entries(store, target="t3", actor="key_0")] == []


def test_old_entries_are_deleted_the_oldest_first_and_ids_are_not_used_again(store, log):
    def at(time):
        return {**vars(act()), "at": time, "details": "{}", "result": OK}

    rows = [at(5), at(1), at(9), at(2)]
    store.write_alone(lambda connection: connection.execute(insert(audit_log), rows)).result()
    last = entries(store)[0].entry_id
    assert store.write_alone(prune_audit, 9, 2).result() == 2
    assert sorted(entry.at for entry in entries(store)) == [5, 9]
    assert store.write_alone(prune_audit, 100, 100).result() == 2
    assert store.read(count_audit) == 0
    log.write(act(), lambda connection: None)
    assert entries(store)[0].entry_id > last
    log.write(act(), lambda connection: None)
    assert store.read(count_audit) == 2


def test_an_outage_of_the_database_is_no_end_of_an_act(store, log, monkeypatch):
    def away(*arguments):
        raise StoreUnavailable("away")

    monkeypatch.setattr("tether.store.audit.add_entry", away)
    with pytest.raises(StoreUnavailable):
        log.write(act(), created)
    assert there(store) == {"default"}
