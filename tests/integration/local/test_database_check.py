"""The doctor's check of a database that is not `tether up`'s own."""

from support.databases import fresh_postgres
from tether.config.loading import load_settings
from tether.local.doctor import CheckStatus, check_database
from tether.local.state_folder import StateFolder
from tether.store import Store
from tether.store.migrations import HEAD, KNOWN, downgrade


def test_tables_that_the_next_start_makes_or_upgrades_are_no_failure(postgres_url, tmp_path):
    with fresh_postgres(postgres_url, with_tables=False) as url:
        settings = load_settings(environ={"TETHER_DATABASE__URL": url})

        def checked():
            check = check_database(settings, StateFolder(tmp_path))
            return check.verdict, check.found.removeprefix(Store(url).place), check.mend

        verdict, found, _ = checked()
        assert (verdict, "has no tables yet" in found) == (CheckStatus.OK, True)
        Store(url).open().close()
        assert checked() == (CheckStatus.OK, f", version {HEAD}", "")
        downgrade(url, KNOWN[-2])
        verdict, found, mend = checked()
        assert (verdict, found) == (CheckStatus.WARN, f" is of version {KNOWN[-2]}")
        assert f"upgrades it to {HEAD}" in mend
