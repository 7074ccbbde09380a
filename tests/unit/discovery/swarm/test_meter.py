"""What a sidecar says of itself becomes metrics that only grow."""

from tether.discovery.swarm.meter import StatusMeter, outcomes
from tether.telemetry.metrics import SWARM_BYTES, SWARM_MESSAGES, SWARM_PEERS


def status(accepted, signature, received, peers=1):
    return {
        "peers": [{}] * peers,
        "counts": {"accepted": accepted, "refused": {"signature": signature}},
        "bytes": {"in": received, "out": 0},
    }


def value(metric, label):
    return metric.labels(label).value


def test_counts_go_on_where_a_new_sidecar_begins_again():
    meter = StatusMeter()
    before = value(SWARM_MESSAGES, "accepted"), value(SWARM_MESSAGES, "signature"), value(SWARM_BYTES, "in")
    meter.tell(status(3, 1, 100))
    meter.tell(status(5, 1, 150, peers=2))
    assert SWARM_PEERS.labels().value == 2
    meter.tell({})
    assert SWARM_PEERS.labels().value == 0
    meter.tell(status(4, 0, 10))
    after = value(SWARM_MESSAGES, "accepted"), value(SWARM_MESSAGES, "signature"), value(SWARM_BYTES, "in")
    assert [new - old for new, old in zip(after, before, strict=True)] == [9, 1, 160]


def test_what_is_no_status_counts_nothing():
    assert outcomes(None) == outcomes({"accepted": "many", "refused": "some"}) == {}
