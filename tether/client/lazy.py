"""Types that the client names and starts without: each is imported when it is first used, or when somebody
evaluates a signature, as ``typing.get_type_hints`` does."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tether.client.dead_letters import DeadLetters as DeadLetters
    from tether.client.dead_messages import DeadQueues as DeadQueues
    from tether.client.handles import JobHandle as JobHandle
    from tether.client.many_jobs import ManyJobs as ManyJobs
    from tether.config.settings import Settings as Settings
    from tether.core.direct.tether import AsyncDirectTether as AsyncDirectTether
    from tether.core.direct.tether import DirectTether as DirectTether
    from tether.explanations import Explanation as Explanation
    from tether.explanations import JobPlacements as JobPlacements
    from tether.histories import JobHistory as JobHistory
    from tether.job_filters import JobFilter as JobFilter
    from tether.statuses import JobStatus as JobStatus
    from tether.statuses import ModelInfo as ModelInfo
else:
    _HOMES = {
        "DeadLetters": "tether.client.dead_letters",
        "DeadQueues": "tether.client.dead_messages",
        "JobHandle": "tether.client.handles",
        "ManyJobs": "tether.client.many_jobs",
        "Settings": "tether.config.settings",
        "AsyncDirectTether": "tether.core.direct.tether",
        "DirectTether": "tether.core.direct.tether",
        "Explanation": "tether.explanations",
        "JobPlacements": "tether.explanations",
        "JobHistory": "tether.histories",
        "JobFilter": "tether.job_filters",
        "JobStatus": "tether.statuses",
        "ModelInfo": "tether.statuses",
    }

    def __getattr__(name: str) -> type:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)
