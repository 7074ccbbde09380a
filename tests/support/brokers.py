"""Our broker, and Dramatiq's own to compare it with."""

from dramatiq.brokers.redis import MAINTENANCE_SCALE, RedisBroker

from tether.broker import TetherBroker

NAMESPACE = "program"


def make_broker(kind, url):
    """A broker with the same keys for each kind: `tether`, `stock`, or `stock-eager`.

    The last is Dramatiq's with everything in its power set to quick recovery.
    """
    if kind == "tether":
        return TetherBroker(url=url, namespace=NAMESPACE, hash_tag=False)
    if kind == "stock":
        return RedisBroker(url=url, namespace=NAMESPACE)
    assert kind == "stock-eager"
    return RedisBroker(
        url=url, namespace=NAMESPACE, heartbeat_timeout=1_000, maintenance_chance=MAINTENANCE_SCALE
    )
