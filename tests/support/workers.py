"""Worker processes of ``support/program.py``, and what they say."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import redis
from dramatiq import Message

from support.brokers import NAMESPACE, make_broker
from support.waiting import PATIENCE_SECONDS
from tether.local.redis_server import RedisServer

TESTS = Path(__file__).resolve().parent.parent
PATIENCE_WITH_STOCK_SECONDS = 10.0
"""The stock broker is expected not to do it at all, or after 60 s."""


def children_but_fork_server(pid):
    """The processes that a supervisor started to do something, and not the one that it forks them from."""
    found = []
    for child in psutil.Process(pid).children():
        # It may have ended meanwhile.
        with contextlib.suppress(psutil.NoSuchProcess):
            if not any("fork_server_program" in word for word in child.cmdline()):
                found.append(child)
    return found


class WorkerProcess:
    """One Dramatiq worker process. Owns it, and the thread ``worker-output`` that reads what it logs."""

    def __init__(self, command, environ):
        self.lines = []
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            command,
            env=environ,
            cwd=TESTS,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="worker-output", daemon=True)
        self._reader.start()

    @property
    def pid(self):
        return self._process.pid

    def _read(self):
        for line in self._process.stdout:
            with self._news:
                self.lines.append(line.rstrip())
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_for_line(self, text, within, count=1):
        def seen():
            return sum(text in line for line in self.lines) >= count

        with self._news:
            if not self._news.wait_for(seen, within):
                raise AssertionError(f"no {text!r} within {within} s in:\n" + "\n".join(self.lines[-40:]))

    def wait_for_end(self, within):
        self._process.wait(within)

    def kill(self):
        """Kill what does the work: the children of the process that we started. That one then ends."""
        for child in psutil.Process(self.pid).children(recursive=True):
            child.kill()
        self._process.wait(PATIENCE_SECONDS)

    def signal(self, number):
        self._process.send_signal(number)

    def stop(self):
        """Stop in order; what does not stop in time is killed, and is an error. Answers the exit status."""
        try:
            if self._process.poll() is None:
                self._process.terminate()
            self._process.wait(PATIENCE_SECONDS)
        finally:
            self.close()
        return self._process.returncode

    def close(self):
        """Kill whatever is left of it."""
        left = []
        with contextlib.suppress(psutil.NoSuchProcess):
            left = psutil.Process(self.pid).children(recursive=True)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()


class Program:
    """Two Redis servers, the program's own and the ledger, and the program's worker processes."""

    def __init__(self, kind):
        self.patience = PATIENCE_SECONDS if kind == "tether" else PATIENCE_WITH_STOCK_SECONDS
        self.server = RedisServer().start()
        self.ledger_server = RedisServer(append_only=False).start()
        self.redis = redis.Redis.from_url(self.server.url, decode_responses=True)
        self.ledger = redis.Redis.from_url(self.ledger_server.url, decode_responses=True, socket_timeout=None)
        self.workers = []
        self.environ = {
            **os.environ,
            "PROGRAM_BROKER": kind,
            "PROGRAM_REDIS": self.server.url,
            "PROGRAM_LEDGER": self.ledger_server.url,
            "PYTHONPATH": str(TESTS),
            "PYTHONUNBUFFERED": "1",
        }
        self.broker = make_broker(kind, self.server.url)

    def start_worker(self, *, threads=2, **environ):
        """A worker process, once it is ready to take messages."""
        worker = self._start(
            [sys.executable, "-m", "dramatiq", "support.program", "-p", "1", "-t", str(threads)], environ
        )
        worker.wait_for_line("is ready for action", within=PATIENCE_SECONDS)
        return worker

    def start_supervised(self, *, processes=1, threads=1, **environ):
        """`tether worker` with the program, once its processes are ready."""
        worker = self.start_tether(
            "worker", "support.program", "-p", str(processes), "-t", str(threads), **environ
        )
        worker.wait_for_line("A child is ready", within=PATIENCE_SECONDS, count=processes)
        return worker

    def start_tether(self, *arguments, **environ):
        return self._start([sys.executable, "-m", "tether_cli", *arguments], environ)

    def _start(self, command, environ):
        worker = WorkerProcess(command, self.environ | environ)
        self.workers.append(worker)
        return worker

    def send(self, actor_name, *args, delay=None, **options):
        """Enqueue a message for one of the program's actors."""
        message = Message(queue_name="default", actor_name=actor_name, args=args, kwargs={}, options=options)
        return self.broker.enqueue(message, delay=delay)

    def next_word(self, within):
        """What an actor says next; None if nothing is said within so many seconds."""
        answer = self.ledger.blpop(["said"], timeout=within)
        return answer and answer[1]

    def words(self, count, within):
        """The next ``count`` words, or fewer if each takes longer than ``within`` seconds."""
        said = []
        while len(said) < count:
            word = self.next_word(within)
            if word is None:
                break
            said.append(word)
        return said

    def let_go(self, count=1):
        self.ledger.rpush("let-go", *["now"] * count)

    def copies(self):
        """How many messages of the program's queue there are, whatever state they are in."""
        return sum(self.redis.hlen(f"{NAMESPACE}:default{suffix}.msgs") for suffix in ("", ".DQ", ".XQ"))

    def close(self):
        for worker in self.workers:
            worker.stop()
        self.broker.close()
        self.redis.close()
        self.ledger.close()
        self.server.close()
        self.ledger_server.close()
