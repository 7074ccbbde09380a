"""One SQLite file under several processes, and under several stores of one process."""

import subprocess
import sys

import pytest
from sqlalchemy import select

from support.databases import new_job
from support.workers import TESTS
from tether.store import Store
from tether.store.admissions import admit
from tether.store.schema import jobs

OPEN_AND_CLOSE = """
import sys
from tether.store import Store

Store(sys.argv[1]).open().close()
"""


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_committed_after_another_process_closed_the_database_is_there_for_all(tmp_path, count):
    url = f"sqlite:///{tmp_path}/tether.db"
    stores = [Store(url).open() for _ in range(count)]
    try:
        subprocess.run([sys.executable, "-c", OPEN_AND_CLOSE, url], check=True, cwd=TESTS, timeout=60)
        for number, store in enumerate(stores):
            store.write(admit, new_job(number)).result()
        with Store(url) as late:
            for store in (*stores, late):
                assert job_ids(store) == [f"job-{number:06}" for number in range(count)]
    finally:
        for store in stores:
            store.close()


def job_ids(store):
    query = select(jobs.c.job_id).order_by(jobs.c.job_id)
    return store.read(lambda connection: list(connection.execute(query).scalars()))
