"""What comes in and goes out as a message: checked here, so that no bytes in Redis can end a worker."""

from __future__ import annotations

from typing import Any

from dramatiq import DecodeError, Message
from dramatiq.common import q_name

from tether.broker.keys import check_queue_name
from tether.broker.queues.holdings import HeldMessage, Holding
from tether.errors import InvalidMessage

MAX_DELAY_MS = 2**53
"""Delays are kept as JSON numbers, which are exact up to here."""


def check_outgoing(message: Message[Any], delay: int | None) -> str:
    """Return the name of the queue that an outgoing message belongs to, without ``.DQ``.

    Raises:
      InvalidName: Users' queues cannot have that name.
      InvalidMessage: The delay is not a number of milliseconds.
    """
    if delay is not None and not (isinstance(delay, int | float) and 0 <= delay < MAX_DELAY_MS):
        raise InvalidMessage(
            f"delay={delay!r} of a message for actor {message.actor_name!r} is not a number of milliseconds, "
            "0 or more"
        )
    name = message.queue_name
    return check_queue_name(q_name(name) if isinstance(name, str) else name)


def encode(message: Message[Any]) -> bytes:
    """Encode a message with the encoder that the program has set.

    Raises:
      InvalidMessage: The encoder does not know how.
    """
    try:
        return message.encode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidMessage(
            f"message for actor {message.actor_name!r} cannot be encoded ({error}): send plain values, or "
            "set an encoder that knows these"
        ) from error


def decode(data: bytes, holding: Holding) -> HeldMessage:
    """Decode what was taken from a queue, as the message of one delivery.

    Raises:
      InvalidMessage: It is not a message, or one that a worker could trip over.
    """
    try:
        message = HeldMessage.decode(data)
    except DecodeError as error:
        raise InvalidMessage("its bytes are not a message of the program's encoder") from error
    assert isinstance(message, HeldMessage)
    retries = message.options.get("retries", 0) if isinstance(message.options, dict) else 0
    for what, value, kind in (
        ("queue_name", message.queue_name, str),
        ("actor_name", message.actor_name, str),
        ("kwargs", message.kwargs, dict),
        ("options", message.options, dict),
        ("message_id", message.message_id, str),
        ("message_timestamp", message.message_timestamp, int | float),
        ("options.retries", retries, int),
    ):
        if not isinstance(value, kind):
            raise InvalidMessage(f"its {what} is of type {type(value).__name__}")
    message.bind(holding)
    if message.queue_name != holding.queue_name:
        # A worker answers for a message at the queue that it names, which must be the one it came from.
        message = message.copy(queue_name=holding.queue_name)
    # Scripts know the message by this id, whatever another program wrote into its options.
    message.options["redis_message_id"] = holding.redis_id
    holding.is_delayed = "eta" in message.options
    return message
