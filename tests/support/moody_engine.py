"""An engine that can be made slow, or to fail, while it serves."""

from tether.errors import EngineFailed
from tether_workers.engines.null.engine import NullEngine


class Mood:
    """What the engines of a worker do from now on.

    Attributes:
      fails: Every prompt.
      rate: Tokens a second of each job; 0 is as fast as possible.
    """

    def __init__(self, rate=0.0):
        self.fails = False
        self.rate = rate
        self.started = 0

    def engine(self, model, adapter):
        return MoodyEngine(self)


class MoodyEngine(NullEngine):
    def __init__(self, mood):
        super().__init__()
        self._mood = mood

    def start(self, prompt_ids, accepted_ids, sampling, cancelled):
        self._mood.started += 1
        if self._mood.fails:
            raise EngineFailed("the driver is broken")
        sound = NullEngine(tokens_per_second=self._mood.rate)
        yield from sound.start(prompt_ids, accepted_ids, sampling, cancelled)
