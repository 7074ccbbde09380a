"""Claims an identity in a process of its own, says its boot id, and holds it until its input ends."""

import sys
from pathlib import Path

from tether.discovery.trust.identity import Identity

identity = Identity.claim(Path(sys.argv[1]))
print(identity.boot_id, flush=True)
sys.stdin.read()
