"""Signed commands of an operator to one worker."""

from __future__ import annotations

import os

import redis

from tether.broker.redis.connections import address_of
from tether.core.fleet_reading import FleetReading, unavailable
from tether.discovery.announcements.presence import CacheManifest
from tether.discovery.commands.command import Action, Command, command_to, sign_command
from tether.discovery.commands.inbox import send_command
from tether.discovery.commands.manifest_request import ANSWER_SECONDS, request_manifest
from tether.discovery.commands.operator_key import operator_key
from tether.discovery.fleet.fleet import Member
from tether.errors import BrokerUnavailable, CommandUnanswered

_ID_BYTES = 16


def tell_worker(reading: FleetReading, member: Member, action: Action, *, now_ms: int) -> Command:
    """Sign a command to a worker with the operator's key of this machine, and put it where the worker finds
    it.

    Args:
      now_ms: Milliseconds since the epoch.

    Raises:
      ConfigError: The operator's key cannot be used.
      BrokerUnavailable: Redis did not take the command.
    """
    key = operator_key(reading.settings.presence.identity_dir)
    command = command_to(member.presence, action, key, command_id=os.urandom(_ID_BYTES).hex(), now_ms=now_ms)
    try:
        send_command(reading.client, reading.keys, command, sign_command(command, key))
    except redis.RedisError as error:
        raise BrokerUnavailable(
            f"Redis at {address_of(reading.client)} did not take the command: {str(error).rstrip('.')}"
        ) from None
    return command


def whole_cache(reading: FleetReading, member: Member) -> CacheManifest:
    """Return what a worker answers when it is asked for all that its cache has.

    Raises:
      BrokerUnavailable: Redis went away.
      ConfigError: The operator's key cannot be used.
      CommandUnanswered: The worker does not answer.
    """
    key = operator_key(reading.settings.presence.identity_dir)
    try:
        cache = request_manifest(reading.client, reading.keys, member.presence, key)
    except redis.RedisError as error:
        raise unavailable(reading.client, error) from None
    if cache is None:
        raise CommandUnanswered(
            f"worker {member.presence.worker_id} did not send its cache within {ANSWER_SECONDS:g} s. "
            "If its log says that the command was rejected, add the operator's public key "
            f"{key.verify_key.encode().hex()} to its presence.operator_keys"
        )
    return cache
