"""The `tether` command in this process, over whatever client a test gives it."""

import json

from click.testing import CliRunner

from tether.client.api import Tether
from tether.client.backend import StreamEvent
from tether.jobs import Piece
from tether.testing import FakeBackend
from tether_cli.main import main
from tether_cli.surroundings import Surroundings


class CommandLine:
    """Runs verbs. The client of each is closed by it; the fake behind them stays."""

    def __init__(self, fake=None):
        self.fake = fake or FakeBackend()
        self.opened = []

    def run(self, *arguments, stdin=None, open_client=None):
        return CliRunner().invoke(
            main,
            list(arguments),
            input=stdin,
            obj=Surroundings(open_client or self._open, open_client or self._open),
            prog_name="tether",
        )

    def document(self, *arguments, **options):
        """What a verb prints, where it succeeds."""
        result = self.run(*arguments, **options)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def _open(self, url, api_key):
        self.opened.append((url, api_key))
        return Tether(backend=self.fake.for_tenant("default"))


class Told:
    """The subscription of a stream that was told at once."""

    def close(self):
        pass


class ToldBackend(FakeBackend):
    """Jobs whose streams are what a test says. They may end before their last event."""

    def __init__(self, *events):
        super().__init__(autorun=False)
        self.events = events

    def follow(self, job_id, offset, deliver):
        for event in self.events:
            if isinstance(event, BaseException) or event.offset >= offset:
                deliver(event)
        return Told()


def delta(offset, *texts):
    """The tokens that end at ``offset``."""
    return StreamEvent(kind="delta", offset=offset, pieces=tuple(Piece(7, text) for text in texts))


def finished(offset):
    return StreamEvent(kind="finished", offset=offset, details={"reason": "stop", "input_tokens": 3})


def failed(offset, state, code="engine_failed"):
    return StreamEvent(kind="failed", offset=offset, details={"state": state, "code": code})
