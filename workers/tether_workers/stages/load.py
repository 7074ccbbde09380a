"""The stage ``load``: the engine of the job's model, with its adapter."""

from __future__ import annotations

from tether_workers.engine import ModelLoader
from tether_workers.stages.work import InferenceWork


class LoadModel:
    """Gets the model, which was loaded before the job was drawn, and its adapter, which may not have been.

    A slot waits for moments only. What takes longer is loaded beside the slots, and the job is handed back
    behind its tenant's others: it is drawn again, by this worker or by one that has the adapter loaded.
    """

    name = "load"

    def __init__(self, loader: ModelLoader) -> None:
        self._loader = loader

    def run(self, work: InferenceWork) -> None:
        """Set the engine; or let the attempt end, for another one to go on with the job.

        Raises:
          UnknownModel: This worker does not serve it; another one may.
          TetherError: It cannot be loaded.
        """
        job = work.job
        work.loaded = self._loader.load(job.model, job.version, job.adapter, work.attempt.cancelled)
        if work.loaded is None:
            work.attempt.give_way()
