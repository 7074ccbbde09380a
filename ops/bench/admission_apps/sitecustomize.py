"""Makes each statement of this process take longer, as with a database that is some way off. Python imports
it at its start where this folder is in its path.

BENCH_STATEMENT_MS is by how many milliseconds.
"""

from __future__ import annotations

import os
import time

from sqlalchemy import Engine, event

SECONDS = float(os.environ["BENCH_STATEMENT_MS"]) / 1000


@event.listens_for(Engine, "before_cursor_execute")
def wait(*execution: object) -> None:
    time.sleep(SECONDS)
