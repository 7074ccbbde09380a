"""Announcements that each tell of one of a worker's models, put together. Pure.

A worker announces itself on the topic of each of its models, in each round with one order for all of them.
Within one run of its process it supports the same models.
"""

from __future__ import annotations

from dataclasses import replace

from tether.discovery.announcements.presence import Presence
from tether.discovery.topics import is_presence_topic
from tether.models.registry import pool_name


def with_known_parts(known: Presence | None, presence: Presence) -> Presence:
    """A newer announcement; where it is of one model, with what is known of the worker's others."""
    if known is None or is_presence_topic(presence.topic) or known.boot_counter != presence.boot_counter:
        return presence
    new = {(model.name, model.version): model for model in presence.supported}
    supported = [new.pop((model.name, model.version), model) for model in known.supported]
    told = {pool_name(presence.gpu_class, presence.region, model) for model in presence.supported}
    pools = [pool for pool in known.pools if pool not in told or pool in presence.pools]
    return replace(
        presence,
        supported=(*supported, *new.values()),
        pools=tuple(dict.fromkeys((*pools, *presence.pools))),
    )


def further_part(known: Presence, presence: Presence) -> Presence | None:
    """What is known of a worker after a further announcement of the same round; None where it tells nothing
    that is not known, or what is known is the whole."""
    if is_presence_topic(known.topic) or presence.order != known.order:
        return None
    both = with_known_parts(known, presence)
    return None if (both.supported, both.pools) == (known.supported, known.pools) else both
