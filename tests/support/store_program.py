"""Submits jobs to a store from a process of its own, and says of each what became of it.

store_program.py URL NAME COUNT
"""

import sys

from support.databases import new_job
from tether.store import Store
from tether.store.admissions import admit

url, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Store(url) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    waiting = []
    for number in range(count):
        waiting.append((number, store.write(admit, new_job(number, job_id=f"{name}-{number}"))))
        if len(waiting) == 20:
            for submitted, future in waiting:
                print(submitted, future.result().kind.value, flush=True)
            waiting.clear()
    for submitted, future in waiting:
        print(submitted, future.result().kind.value, flush=True)
