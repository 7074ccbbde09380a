"""Follows the fleet over Redis: says after each change who lives, until its input ends."""

import json
import sys

import redis

from tether.broker.keys import Keys
from tether.discovery.fleet.fleet_view import FleetView
from tether.discovery.over_redis.redis_presence import RedisPresence

url, namespace = sys.argv[1:]
with redis.Redis.from_url(url) as client:
    port = RedisPresence(client, Keys(namespace))
    view = FleetView({"redis": port}, lambda key: True)
    view.on_change(lambda fleet: print(json.dumps(sorted(fleet.members)), flush=True))
    view.start()
    view.wait_until_read(60)
    print("ready", flush=True)
    sys.stdin.read()
    view.stop()
    port.close()
