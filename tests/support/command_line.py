"""The `tether` command in this process, over whatever client a test gives it."""

import json

from click.testing import CliRunner

from tether.client.api import Tether
from tether.jobs import Piece
from tether.streams.events import StreamEvent
from tether.testing import FakeBackend
from tether_cli.environment import CommandEnvironment
from tether_cli.main import main


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
            obj=CommandEnvironment(open_client or self._open, open_client or self._open),
            prog_name="tether",
        )

    def document(self, *arguments, **options):
        """What a verb prints, where it succeeds."""
        result = self.run(*arguments, **options)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def _open(self, url, api_key, *, within=None):
        self.opened.append((url, api_key))
        return Tether(backend=self.fake.for_tenant("default"))


class Told:
    """The subscription of a stream that was told at once."""

    def close(self):
        pass


class ToldStreams:
    """Streams that are what a test says. They may end before their last event, or heed no offset."""

    def __init__(self, events, *, heeds_offset):
        self.events = events
        self.heeds_offset = heeds_offset

    def follow(self, job_id, offset, deliver, *, within=None):
        for event in self.events:
            if not self.heeds_offset or isinstance(event, BaseException) or event.offset >= offset:
                deliver(event)
        return Told()

    def close(self):
        pass


class ToldBackend(FakeBackend):
    """Jobs with :class:`ToldStreams`."""

    def __init__(self, *events, heeds_offset=True):
        super().__init__(autorun=False)
        self.told = ToldStreams(events, heeds_offset=heeds_offset)

    def for_tenant(self, tenant):
        other = super().for_tenant(tenant)
        other.stream_port = self.told
        return other


def delta(offset, *texts):
    """The tokens that end at ``offset``."""
    return StreamEvent(kind="delta", offset=offset, pieces=tuple(Piece(7, text) for text in texts))


def finished(offset):
    return StreamEvent(kind="finished", offset=offset, details={"reason": "stop", "input_tokens": 3})


def failed(offset, state, code="engine_failed"):
    return StreamEvent(kind="failed", offset=offset, details={"state": state, "code": code})
