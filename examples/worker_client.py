"""A worker that has nothing of Tether, on redis-py and PyNaCl alone: docs/reference/worker-port.md, done.

    python examples/worker_client.py unix://.tether/run/redis.sock ./key '{"name": "capitals"}'

Its model answers with the prompt in capitals; a token is a character, and its id the code point. Gateways
need a [[models]] table for it, and must trust the key that the worker prints: `tether fleet trust KEY`.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from nacl.signing import SigningKey
from redis.backoff import NoBackoff
from redis.retry import Retry

BEAT_SECONDS, DRAW_SECONDS, OUTRANKED_SECONDS = 0.5, 5.0, 2.0
TOKENS_A_STEP = 8


class EpochChanged(Exception):
    """Redis has lost what this worker's attempts stand on."""


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def pool_name(gpu_class: str, region: str, name: str, digest: str) -> str:
    head, tail = f"gpu.{gpu_class}.{region}.", f"-{digest[:8]}"
    slug = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-") or "model"
    return head + slug[: 128 - len(head) - len(tail)].rstrip("-") + tail


def claim_key(folder: Path) -> tuple[SigningKey, object]:
    """The key in a folder, and the lock that keeps others from it meanwhile."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (folder / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    seed = folder / "worker.key"
    if not seed.exists():
        seed.touch(0o600)
        seed.write_text(SigningKey.generate().encode().hex())
    return SigningKey(bytes.fromhex(seed.read_text())), lock


def next_boot(folder: Path, above: int = 0) -> int:
    """A boot counter that was never used, on disk."""
    counter, aside = folder / "worker.boot", folder / "worker.boot.new"
    boot = max(int(counter.read_text()) if counter.exists() else 0, above) + 1
    with aside.open("w") as file:
        file.write(str(boot))
        file.flush()
        os.fsync(file.fileno())
    aside.rename(counter)
    return boot


def this_machine() -> str:
    """Changes when the machine is started again."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(eq=False)
class Attempt:
    identity: tuple[bytes, ...]  # job, dispatch, attempt, draw: each write begins with them
    run: int
    offset: int
    is_alone: bool
    text: str = ""
    ending: tuple[Any, ...] = ()  # the script that ends it, and what that gets beside the last tokens

    def take(self, count: int) -> tuple[int, int, int, bytes]:
        """The next tokens, as each script wants them: run, offset, count, data."""
        piece = self.text[self.offset : self.offset + count]
        data = canonical({"t": [ord(token) for token in piece], "s": list(piece)}) if piece else b"{}"
        return self.run, self.offset, len(piece), data

    def fail(self, kind: str, code: str, message: str) -> None:
        error = {"code": code, "message": message, "retryable": False, "retry_after_ms": 0}
        self.ending = ("fail", kind, canonical(error))


class Worker:
    def __init__(
        self,
        client: redis.Redis,
        folder: Path,
        model: dict[str, Any],
        *,
        prefix: str = "{tether}",
        gpu_class: str = "cpu",
        region: str = "local",
        secret: str = "",
        slots: int = 4,
        pause: float = 0.0,
    ) -> None:
        self.client: Any = client
        self.prefix, self.slots, self.pause = prefix, slots, pause
        self.folder = folder
        self.key, self._lock = claim_key(folder)
        public = self.key.verify_key.encode()
        worker_id = hashlib.blake2b(public).hexdigest()[:16]
        self.process = os.urandom(8).hex()
        model = {"version": "1", "source": "", "quantize": "none", "context": 8192, **model}
        digest = hashlib.sha256(canonical(model)).hexdigest()
        self.pool = pool_name(gpu_class, region, model["name"], digest)
        network = hashlib.blake2b(b"tether network", key=bytes.fromhex(secret), digest_size=16)
        supported = {"modelId": model["name"], "version": model["version"], "digest": digest, "state": "warm"}
        no_artifacts = hashlib.blake2b(b"[]", digest_size=32).hexdigest()
        self.fixed = {
            "v": 3,
            "network": network.hexdigest(),
            "topic": f"tether/presence/{region}",
            "pubKey": public.hex(),
            "workerId": worker_id,
            "gpuClass": gpu_class,
            "region": region,
            "supported": [supported],
            "pools": [self.pool],
            "queueDepth": 0,
            "latencyHops": 0,
            "tokensPerSecond": 0.0,
            "vram": {"total": 0, "free": 0},
            "cacheManifest": {"artifacts": [], "complete": True, "digest": no_artifacts},
            "softwareVersion": "",
        }
        self.scripts: dict[str, bytes] = {}
        self.epoch, self.lease, self.interval = b"", 0, 0.0
        self.attempts: list[Attempt] = []
        self.stopping = threading.Event()
        self.step_at = 0.0
        self.life_file = folder / "worker.life"
        self.former = json.loads(self.life_file.read_text()) if self.life_file.exists() else None
        self.begin_boot(next_boot(folder))

    def begin_boot(self, boot: int) -> None:
        self.boot, self.boot_id = boot, f"{self.fixed['workerId']}.{boot}"
        self.life_file.touch(0o600)
        self.life_file.write_text(json.dumps([self.boot_id, self.process, this_machine(), self.place()]))
        self.number, self.sequence, self.draw_at, self.announce_at = 1, 0, 0.0, 0.0
        self.is_answer_owed = self.is_outranked = self.is_unheard = False

    def hello(self) -> None:
        """Learn the scripts, and the epoch where none is known. There are none before an orchestrator was."""
        key = f"{self.prefix}:core:worker_port"
        if self.client.hget(key, "digest") not in (None, self.scripts.get("digest")):
            port: dict[bytes, bytes] = self.client.hgetall(key)
            if port.get(b"v", b"1") != b"1":
                raise SystemExit(
                    f"this worker speaks version 1 of the worker port, not {port[b'v'].decode()}"
                )
            self.scripts.update({name.decode(): text for name, text in port.items()})
            self.lease = int(port.get(b"lease", 3_000))
            self.interval = int(port.get(b"presence_interval", 5_000)) / 1000
            self.life = int(port.get(b"presence_expiry", 15_000))
        if self.scripts and not self.epoch:
            self.epoch = self.client.get(f"{self.prefix}:core:epoch") or b""

    def tell_of_the_former(self) -> None:
        """The process before this one did not stop in order: what it ran goes on at once."""
        former, self.former = self.former, None
        if former is not None and former[3] == self.place():
            how = "unknown" if former[2] == this_machine() else "host"
            self.call("gone", self.epoch, former[0], former[1], how)

    def place(self) -> int:
        """Tells the folder from a copy of it, whose process must end nobody's life."""
        return (self.folder / "lock").stat().st_ino

    def call(self, script: str, *arguments: Any, key: str = "core:leases") -> list[Any]:
        text, name = self.scripts[script], f"{self.prefix}:{key}"
        try:
            answer: Any = self.client.evalsha(hashlib.sha1(text).hexdigest(), 1, name, *arguments)
        except redis.exceptions.NoScriptError:
            answer = self.client.eval(text, 1, name, *arguments)
        if answer[0] == b"epoch":
            raise EpochChanged
        return list(answer)

    def announce(self, state: str) -> None:
        self.sequence += 1
        now = {
            "bootId": self.boot_id,
            "bootCounter": self.boot,
            "sequence": self.sequence,
            "nonce": os.urandom(16).hex(),
            "issuedAt": int(time.time() * 1000),
            "state": state,
            "capacity": {"slots": self.slots, "free": self.free()},
        }
        body = canonical({**self.fixed, **now})
        envelope = self.key.sign(b"tether presence 3\0" + body).signature + body
        order = (self.boot, self.sequence, self.life, int(state == "stopped"))
        counted, known = self.call("announce", self.fixed["workerId"], envelope, *order, key="fleet:presence")
        self.is_unheard = not counted and not known

    def free(self) -> int:
        rests = self.stopping.is_set() or any(each.is_alone for each in self.attempts)
        return 0 if rests else self.slots - len(self.attempts)

    def draw(self, count: int) -> None:
        again, is_busy = int(self.is_answer_owed), int(bool(self.attempts))
        identity = (self.epoch, self.boot_id, count, self.number, self.lease, again, is_busy, self.process)
        self.is_answer_owed = True
        status, *rest = self.call("draw", *identity, int(self.is_outranked), 1, "body", self.pool)
        self.is_answer_owed = False
        if status == b"revoked":
            # Every write is refused. Once the key is trusted again, jobs come again.
            self.attempts, self.draw_at = [], time.monotonic() + DRAW_SECONDS
            return
        if status == b"outranked":
            self.stand_back(int(rest[0]), is_gone=rest[1] == b"1")
            return
        self.is_outranked = False
        again_in_ms, *jobs = rest
        self.draw_at = time.monotonic() + (again_in_ms / 1000 or DRAW_SECONDS)
        for job_id, dispatch, number, draw_id, run, offset, alone, _lossy, _deaths, (body,), _made in jobs:
            self.number = max(self.number, int(draw_id.rpartition(b":")[2]) + 1)
            identity = (job_id, dispatch, number, draw_id)
            attempt = Attempt(identity, int(run), int(offset), is_alone=alone == b"1")
            self.attempts.append(attempt)
            self.begin(attempt, body)
        if self.is_unheard and count:
            # It is the one that draws, but somebody announced more with its boot counter than it.
            self.begin_boot(next_boot(self.folder))

    def stand_back(self, boot: int, *, is_gone: bool) -> None:
        """Another process uses the key: wait until it is gone, then count on from its boot counter."""
        if is_gone:
            self.begin_boot(next_boot(self.folder, above=boot))
            return
        if not self.is_outranked:
            print(f"another process uses this key, with boot counter {boot}: it gets the jobs", flush=True)
        self.is_outranked, self.draw_at = True, time.monotonic() + OUTRANKED_SECONDS

    def begin(self, attempt: Attempt, body: bytes) -> None:
        """Read the task. The same prompt has the same answer, so that an attempt goes on at its offset."""
        try:
            task = json.loads(body)
            if task["v"] != 1 or task.get("adapter"):
                raise ValueError("only payloads of version 1 without an adapter can be run here")
            prompt = task["prompt"] or task["messages"][-1]["content"]
            whole = prompt.upper()
            for stop in task["sampling"]["stop"]:
                whole = whole.partition(stop)[0]
            attempt.text = whole[: task["sampling"]["max_tokens"]]
            attempt.ending = ("finish", len(prompt), "stop" if whole == attempt.text else "length")
        except (ValueError, LookupError, TypeError) as error:
            attempt.fail("failed", "request_invalid", f"the job cannot be read: {error}")

    def step(self) -> None:
        """Add the next tokens of all attempts in one call. What is left at last goes along with the end."""
        growing = [
            each
            for each in self.attempts
            if each.ending[0] == "finish" and len(each.text) - each.offset > TOKENS_A_STEP
        ]
        if growing:
            taken = [each.take(TOKENS_A_STEP) for each in growing]
            parts = zip(growing, taken, strict=True)
            arguments = [x for each, (*place, data) in parts for x in (*each.identity, *place, "delta", data)]
            _, *answers = self.call("append_many", self.epoch, self.lease, *arguments)
            rows = zip(growing, taken, answers[::2], answers[1::2], strict=True)
            for each, (_, offset, count, _), code, stands_at in rows:
                # If it stands where this call ends, that was written before, and the answer was lost.
                is_repeat = code == b"offset" and int(stands_at) == offset + count
                self.hear(each, b"ok" if is_repeat else code, int(stands_at))
        for each in [each for each in self.attempts if each not in growing or each.ending[0] != "finish"]:
            script, *more = each.ending
            rest = each.take(TOKENS_A_STEP if script == "finish" else 0)
            code, stands_at = self.call(script, self.epoch, *each.identity, *rest, *more)
            self.hear(each, b"fenced" if code == b"ok" else code, int(stands_at))
            self.draw_at = 0.0

    def beat(self) -> None:
        """Renew the leases of attempts whose model needs its time for a step."""
        arguments = [part for each in self.attempts for part in (*each.identity, 1)]
        _, *codes = self.call("beat", self.epoch, self.lease, *arguments)
        for each, code in zip(list(self.attempts), codes, strict=True):
            self.hear(each, code, each.offset)

    def hear(self, attempt: Attempt, code: bytes, stands_at: int) -> None:
        attempt.offset = stands_at
        if code in (b"cancelled", b"expired"):
            attempt.fail(code.decode(), f"job_{code.decode()}", "it was asked to end")
        elif code == b"offset":
            attempt.ending = ("release",)  # Redis lost tokens: another attempt goes on where it stands
        elif code == b"invalid":
            attempt.fail("failed", "engine_failed", "its tokens were refused")
        elif code != b"ok":
            self.attempts.remove(attempt)  # it is over, or another worker's

    def turn(self) -> None:
        """Do what is due, and wait on the bell until more is."""
        now = time.monotonic()
        if not self.epoch or now >= self.announce_at:
            self.hello()
        if self.epoch:
            self.tell_of_the_former()
        if self.epoch and now >= self.announce_at:
            self.announce_at = now + self.interval
            if not self.is_outranked:
                self.announce("serving")
        if self.epoch and now >= self.draw_at and self.free() > 0:
            self.draw(self.free())
        if self.attempts and now >= self.step_at:
            self.step()
            self.step_at = now + self.pause
        elif self.attempts:
            self.beat()
        # Short waits, as nothing else hears of signals; one of 0 would be for ever.
        wait = min(self.pause if self.attempts else 1.0, BEAT_SECONDS)
        if self.is_outranked:
            self.stopping.wait(wait)  # the bell may be the other process's, which has the same boot id
        elif wait and self.client.blpop([f"{self.prefix}:wake:{self.boot_id}"], wait):
            self.draw_at = 0.0

    def run(self) -> None:
        outages = (redis.ConnectionError, redis.TimeoutError)
        while not self.stopping.is_set():
            try:
                self.turn()
            except EpochChanged:
                self.epoch, self.is_answer_owed, self.attempts = b"", False, []
            except outages:
                # Every call can be made again: a repeat is answered as the first was.
                self.stopping.wait(BEAT_SECONDS)
        with contextlib.suppress(EpochChanged, *outages):
            self.draw(0)  # out of the idle sets; and what a lost answer had is heard of
            for attempt in self.attempts:
                attempt.ending = ("release",)
            self.step()
            self.announce("stopped")
            self.life_file.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("redis_url")
    parser.add_argument("folder", type=Path, help="where the worker's key is, or will be")
    parser.add_argument("model", type=json.loads, help="what its [[models]] table says, as JSON")
    for name in ("prefix", "gpu_class", "region", "secret"):
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that the model takes for a step")
    given = vars(parser.parse_args())
    # No command is repeated unseen: the worker must know where the answer to a draw was lost.
    client = redis.Redis.from_url(given.pop("redis_url"), retry=Retry(NoBackoff(), 0), socket_timeout=10)
    worker = Worker(client, given.pop("folder"), given.pop("model"), **given)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stopping.set())
    print(f"key {worker.fixed['pubKey']}, pool {worker.pool}", flush=True)
    worker.run()


if __name__ == "__main__":
    main()
