"""A worker counts its start anew, or says why it cannot."""

import contextlib

from structlog.testing import capture_logs

from tether.discovery.trust.identity import Identity
from tether.telemetry.logs import get_logger
from tether_workers.control.boot_counter import RaisedBootCounter


def test_a_counter_that_cannot_be_written_is_told_once_and_tried_again(tmp_path):
    raised = []
    with contextlib.closing(Identity.claim(tmp_path)) as identity, capture_logs() as lines:
        counter = RaisedBootCounter(identity, raised.append, get_logger("test"))
        in_the_way = identity.counter_file.with_name(identity.counter_file.name + ".new")
        in_the_way.mkdir()
        assert [counter.above(7) for _ in range(3)] == [None] * 3
        (line,) = lines
        assert (line["log_level"], line["file"]) == ("error", str(identity.counter_file))
        assert line["error"] == "Is a directory"
        assert "draws no jobs" in line["event"]
        assert "Make room on the disk" in line["event"]
        in_the_way.rmdir()
        boot_id = counter.above(7)
        assert raised == [boot_id]
        assert boot_id.endswith(".8")
        in_the_way.mkdir()
        counter.above(8)
        assert [line["log_level"] for line in lines] == ["error", "info", "error"]
