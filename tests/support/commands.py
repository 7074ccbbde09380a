"""Commands for tests."""

from nacl.signing import SigningKey

from support.presences import KEY, public
from tether.discovery.announcements.presence import NO_NETWORK, worker_id
from tether.discovery.commands.command import Action, Command, sign_command
from tether.discovery.topics import control_topic

OPERATOR = SigningKey(b"9" * 32)
OTHER_OPERATOR = SigningKey(b"8" * 32)
NOW = 1_700_000_000_000
LIFE_MS = 60_000
TOPIC = control_topic("local")


def command(key=OPERATOR, *, number=1, **changes):
    values = {
        "command_id": f"{number:032x}",
        "network": NO_NETWORK,
        "topic": TOPIC,
        "pub_key": public(key),
        "target": worker_id(public(KEY)),
        "action": Action.DRAIN,
        "issued_at": NOW,
        "expires_at": changes.get("issued_at", NOW) + LIFE_MS,
    }
    return Command(**{**values, **changes})


def signed_command(key=OPERATOR, **changes):
    return sign_command(command(key, **changes), key)
