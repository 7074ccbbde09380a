"""The stage ``load``: the engine of the job's model, with its adapter."""

from __future__ import annotations

from tether_workers.engine import ModelLoader
from tether_workers.stages.work import InferenceWork


class LoadModel:
    """Waits until the model is loaded; slots that ask for the same one load it once."""

    name = "load"

    def __init__(self, loader: ModelLoader) -> None:
        self._loader = loader

    def run(self, work: InferenceWork) -> None:
        """Set the engine.

        Raises:
          UnknownModel: This worker does not serve it; another one may.
          TetherError: It cannot be loaded.
        """
        job = work.job
        work.loaded = self._loader.load(job.model, job.version, job.adapter)
