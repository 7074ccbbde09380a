"""The inference worker of the soak: a null engine that fails where a prompt asks for that."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence

import dramatiq
from soak_prompts import BROKEN, REFUSED

from tether.config.loading import load_settings
from tether.errors import EngineFailed, InvalidRequest
from tether.jobs import Message, Sampling
from tether_workers.engine import Cancelled, Delta
from tether_workers.engines.null.engine import NullEngine
from tether_workers.loading import FACTORIES
from tether_workers.pool_worker import make_worker

TOKENS_BEFORE_FAILURE = 3
_BROKEN_IDS = NullEngine().encode(BROKEN)


class FailingEngine(NullEngine):
    """A null engine whose jobs end badly where their prompts say so."""

    def encode(self, prompt: str | Sequence[Message]) -> tuple[int, ...]:
        if isinstance(prompt, str) and prompt.startswith(REFUSED):
            raise InvalidRequest("the prompt asks to be refused")
        return super().encode(prompt)

    def start(
        self,
        prompt_ids: Sequence[int],
        accepted_ids: Sequence[int],
        sampling: Sampling,
        cancelled: Cancelled,
    ) -> Generator[Delta, None, None]:
        is_broken = tuple(prompt_ids[:1]) == _BROKEN_IDS
        for delta in super().start(prompt_ids, accepted_ids, sampling, cancelled):
            if is_broken and delta.offset >= TOKENS_BEFORE_FAILURE:
                raise EngineFailed("the prompt asks for failure")
            yield delta


broker = make_worker(
    load_settings(environ=os.environ), factories={**FACTORIES, "null": FailingEngine.from_settings}
)
dramatiq.set_broker(broker)
