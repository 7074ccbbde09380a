"""What the clients of a chaos run ask for, and how they behave. Pure: a seed makes it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

SHORT_LIMIT_MS = 1_500
LONG_LIMIT_MS = 600_000
STOPS = (" maple", " thicket", " zephyr ochre", " quartz")


class ReaderKind(StrEnum):
    """How a stream is read: by Tether's own client, or as server-sent events with ``Last-Event-ID``."""

    SDK = "sdk"
    PLAIN = "plain"


class CancelMoment(StrEnum):
    """When a client cancels its job: never, as soon as it is accepted, or once tokens have come."""

    NEVER = "never"
    BEFORE = "before"
    DURING = "during"


@dataclass(frozen=True)
class ClientMix:
    """What jobs are like.

    Attributes:
      model: For which they are.
      min_tokens, max_tokens: Between which their lengths are.
      words: Words of the prompt that follow its own number; the model's vocabulary where empty.
    """

    model: str
    min_tokens: int
    max_tokens: int
    words: str = "amber birch cedar delta ember fjord grove heath"


@dataclass(frozen=True)
class ClientJob:
    """One job and what its client does.

    Attributes:
      key: Its idempotency key.
      request: The fields of the HTTP body.
      by_sdk: Whether it is submitted through the SDK.
      again: Whether it is submitted once more after it was accepted.
      readers: Who reads its stream.
      drops: After how many events the plain reader drops its connection, each time.
      cancel: When it is cancelled.
    """

    key: str
    request: dict[str, object]
    by_sdk: bool
    again: bool
    readers: tuple[ReaderKind, ...]
    drops: tuple[int, ...]
    cancel: CancelMoment


def make_job(seed: str, client: str, number: int, mix: ClientMix) -> ClientJob:
    """Return a client's job by its number: equal for equal arguments. No two prompts of a run are equal."""
    chance = random.Random(f"{seed} {client} {number}")
    words = " ".join(chance.sample(mix.words.split(), 4))
    request: dict[str, object] = {
        "model": mix.model,
        "prompt": f"{client} {number} of {seed}: {words}",
        "max_tokens": chance.randint(mix.min_tokens, mix.max_tokens),
        "temperature": chance.choice((0.0, 0.0, 0.8)),
        "seed": chance.randrange(2**31),
        "priority": chance.choices(("standard", "interactive", "batch"), (8, 1, 1))[0],
    }
    if chance.random() < 0.15:
        request["stop"] = [chance.choice(STOPS)]
    if (limit := chance.random()) < 0.12:
        request["time_limit_ms"] = SHORT_LIMIT_MS if limit < 0.04 else LONG_LIMIT_MS
    if chance.random() < 0.08 and request.get("time_limit_ms") != SHORT_LIMIT_MS:
        request["delay_ms"] = chance.randrange(200, 2_500)
    # "interactive" jobs are shed where others wait; all may be tried again.
    readers = chance.choices(
        ((ReaderKind.PLAIN,), (ReaderKind.SDK,), (ReaderKind.PLAIN, ReaderKind.SDK), ()), (55, 25, 10, 10)
    )[0]
    drops = tuple(chance.randrange(1, 15) for _ in range(chance.choices((0, 1, 3), (60, 30, 10))[0]))
    moments = (CancelMoment.NEVER, CancelMoment.BEFORE, CancelMoment.DURING)
    return ClientJob(
        key=f"{client}-{number}",
        request=request,
        by_sdk=chance.random() < 0.3,
        again=chance.random() < 0.15,
        readers=readers,
        drops=drops,
        cancel=chance.choices(moments, (90, 3, 7))[0],
    )
