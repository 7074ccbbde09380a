"""The stage ``encode``: the tokens of the prompt, or of the conversation."""

from __future__ import annotations

from tether_workers.attempts.attempt import AttemptPhase
from tether_workers.stages.work import InferenceWork


class EncodePrompt:
    """Lets the engine's tokenizer, and for a conversation its chat template, make tokens of the prompt."""

    name = "encode"

    def run(self, work: InferenceWork) -> None:
        """Set the prompt's tokens.

        Raises:
          InvalidRequest: The prompt is not possible for this model.
        """
        work.attempt.enter(AttemptPhase.PREFILL)
        job = work.job
        if job.chat_template_kwargs:
            work.prompt_ids = work.engine.encode(job.messages, job.chat_template_kwargs)
        else:
            work.prompt_ids = work.engine.encode(job.messages or job.prompt)
