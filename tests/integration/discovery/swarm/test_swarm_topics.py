"""Topics that a process joins and leaves, also while its sidecar is started anew."""

import os
import signal

from support.waiting import PATIENCE_SECONDS, eventually
from tether.discovery.topics import model_topic


def takes_part_in(transport, *topics):
    def is_so(status):
        return {topic["topic"] for topic in status.get("topics", ())} == set(topics)

    assert transport.wait_for_status(is_so, PATIENCE_SECONDS), transport.status


def test_a_topic_that_was_left_is_not_joined_again_by_the_next_sidecar(network):
    transport = network.transport(network.enrol("one"))
    model = model_topic("org/model", "1", network.region)
    transport.join([network.topic, model])
    transport.start()
    takes_part_in(transport, network.topic, model)
    transport.leave([model, "tether/presence/never-joined"])
    takes_part_in(transport, network.topic)
    before = transport.pid
    os.kill(before, signal.SIGKILL)
    assert transport.wait_for_status(lambda status: not status, PATIENCE_SECONDS)
    takes_part_in(transport, network.topic)
    assert transport.pid != before
    transport.join([model])
    takes_part_in(transport, network.topic, model)


def test_an_address_that_this_machine_does_not_have_is_said_and_everything_still_ends(network, caplog):
    transport = network.transport(network.enrol("one"), host="192.0.2.254")
    transport.join([network.topic])
    transport.start()

    def is_said():
        return any("The swarm is unavailable" in record.getMessage() for record in caplog.records)

    eventually(is_said, PATIENCE_SECONDS, "it is said")
    transport.stop()
    assert transport.pid is None
