"""The JSON of many jobs' changes that gateway and clients speak, apart since who submits a job needs none of
it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tether.codec import value_from_json, value_to_json
from tether.job_changes import JobChange, JobChanges


def changes_to_json(batch: JobChanges) -> dict[str, Any]:
    data = list(map(value_to_json, batch.changes))
    return {"object": "list", "data": data, "next_cursor": batch.next_cursor}


def changes_from_json(value: Mapping[str, Any]) -> JobChanges:
    changes = tuple(value_from_json(JobChange, each) for each in value["data"])
    return JobChanges(changes, value["next_cursor"])
