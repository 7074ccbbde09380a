"""Presence over real Hyperswarm, between processes, without Redis."""

import os
import signal
import threading

from nacl.signing import SigningKey

from support.swarm import LOOPBACK, NEVER_EXPIRES, BootstrapNode, Network, command
from support.waiting import PATIENCE_SECONDS, eventually
from tether.discovery.swarm import packages
from tether.discovery.swarm.bootstrap import free_udp_port
from tether.discovery.topics import model_topic
from tether.processes.restarts import RestartPolicy


def is_alive(pid):
    return os.path.exists(f"/proc/{pid}")


def ends(pid):
    eventually(lambda: not is_alive(pid), PATIENCE_SECONDS, f"process {pid} ends")


def swarm_threads():
    return [thread.name for thread in threading.enumerate() if thread.name == "tether-swarm"]


def test_all_members_see_each_other_and_a_goodbye_ends_a_life_at_once(network):
    watcher = network.watcher(**NEVER_EXPIRES)
    members = [network.member(name, **NEVER_EXPIRES) for name in ("one", "two", "three")]
    watcher.sees(*members)
    for member in members:
        member.sees(*(other for other in members if other is not member))
    # They would live for ten minutes.
    first, *others = members
    assert first.stop() == 0
    assert first.left == []
    watcher.sees(*others)
    others[0].sees(others[1])


def test_a_member_that_is_killed_expires_and_its_next_life_takes_its_place(network):
    watcher = network.watcher()
    first, other = network.member("first"), network.member("other")
    watcher.sees(first, other)
    sidecar = first.sidecar()
    first.kill()
    ends(sidecar)
    watcher.sees(other)
    last = watcher.order_of(first)
    again = network.member(first.enrolled)
    watcher.sees(again, other)
    other.sees(again)
    assert watcher.order_of(again).boot_counter == last.boot_counter + 1
    orders = [one.order for one in watcher.accepted if one.worker_id == first.worker]
    assert orders == sorted(set(orders))


def test_a_sidecar_that_is_killed_comes_back_and_presence_goes_on(network):
    watcher, member = network.watcher(), network.member("worker")
    watcher.sees(member)
    boot = watcher.order_of(member).boot_counter
    for pid_of in (member.sidecar, lambda: watcher.transport.pid):
        killed = pid_of()
        os.kill(killed, signal.SIGKILL)
        watcher.hears_again(member)
        watcher.sees(member)
        assert pid_of() != killed
        assert not is_alive(killed)
    assert watcher.order_of(member).boot_counter == boot


def test_peers_that_are_connected_need_no_bootstrap_node(tmp_path):
    with BootstrapNode() as own, Network(tmp_path, own.address) as network:
        watcher = network.watcher()
        members = [network.member(name) for name in ("one", "two")]
        watcher.sees(*members)
        own.kill()
        watcher.hears_again(*members, times=5)


def test_members_that_start_before_their_bootstrap_node_find_each_other_once_it_is_there(tmp_path):
    port = free_udp_port(LOOPBACK)
    with Network(tmp_path, f"{LOOPBACK}:{port}") as network:
        watcher = network.watcher()
        member = network.member("member")
        member.sidecar()
        assert watcher.memory()
        assert not watcher.members
        with BootstrapNode(port=port):
            watcher.sees(member)
            watcher.hears_again(member)


def test_a_subscriber_of_one_model_learns_of_that_model_s_workers_only(network):
    topic = model_topic("tiny", "1", network.region)
    watcher = network.watcher(follows=[topic])
    whole = network.watcher("whole")
    tiny = network.member("tiny", models=["tiny"])
    both = network.member("both", models=["large", "tiny"])
    large = network.member("large", models=["large"])
    whole.sees(tiny, both, large)
    watcher.sees(tiny, both)
    watcher.hears_again(tiny, both)
    assert {one.worker_id for one in watcher.accepted} == {tiny.worker, both.worker}
    assert {model.name for one in watcher.accepted for model in one.supported} == {"tiny"}
    assert {one.topic for one in watcher.accepted} == {topic}
    assert [one["topic"] for one in watcher.transport.status["topics"]] == [topic]


def test_neither_a_stranger_nor_one_with_another_secret_is_heard_or_let_in(network, tmp_path):
    watcher, member = network.watcher(), network.member("member")
    stranger = network.enrol("stranger", is_trusted=False)
    # The stranger itself trusts everybody.
    gullible = tmp_path / "gullible"
    gullible.mkdir()
    for one in (watcher.enrolled, member.enrolled, stranger):
        (gullible / f"{one.name}.pub").write_text(one.pub_key)
    outside = network.member(stranger, trusted=gullible)
    other_secret = network.member("other-secret", secret=b"another".hex())
    eventually(lambda: stranger.pub_key in watcher.trust.asked, PATIENCE_SECONDS, "the stranger has knocked")
    watcher.sees(member)
    watcher.hears_again(member, times=6)
    assert {one.worker_id for one in watcher.accepted} == {member.worker}
    watcher.is_connected_to(member)
    for outsider in (outside, other_secret):
        assert outsider.ready
        assert outsider.status().get("peers") == []
        assert not outsider.fleet


def test_a_key_that_is_trusted_later_gets_in_and_one_that_is_revoked_is_dropped(network):
    watcher = network.watcher()
    late = network.enrol("late", is_trusted=False)
    member, newcomer = network.member("member"), network.member(late)
    eventually(lambda: late.pub_key in watcher.trust.asked, PATIENCE_SECONDS, "it has knocked")
    watcher.sees(member)
    network.trust(late)
    watcher.sees(member, newcomer)
    watcher.is_connected_to(member, newcomer)
    member.sees(newcomer)
    network.revoke(late)
    watcher.sees(member)
    member.sees()
    watcher.is_connected_to(member)
    last = watcher.order_of(newcomer)
    watcher.hears_again(member, times=5)
    assert watcher.order_of(newcomer) == last
    assert newcomer.process.poll() is None
    network.trust(late)
    watcher.sees(member, newcomer)


def test_commands_of_an_operator_reach_all_and_those_of_others_nobody(network):
    operator, sender = SigningKey.generate(), network.enrol("sender")
    operators = [operator.verify_key.encode().hex()]
    told = {"joins": [network.control], "operators": operators, **NEVER_EXPIRES}
    members = [network.member(name, **told) for name in ("one", "two", "three")]
    transport = network.transport(sender, **NEVER_EXPIRES)
    transport.start()
    forged, _ = command(SigningKey.generate(), network, number=1)
    by_worker, _ = command(transport._key, network, number=2)
    good, identifier = command(operator, network, number=3)
    for number, envelope in enumerate((forged, by_worker, good)):
        transport.broadcast(envelope, network.control, f"{number}")
    for member in members:
        eventually(lambda member=member: member.commands, PATIENCE_SECONDS, "the command has come")
        assert member.commands == [identifier]
    later, other_identifier = command(operator, network, number=4)
    transport.broadcast(later, network.control, "later")
    for member in members:
        eventually(lambda member=member: len(member.commands) > 1, PATIENCE_SECONDS, "the next has come")
        assert member.commands == [identifier, other_identifier]


def test_two_that_start_in_the_same_instant_find_each_other(network):
    names = ("left", "right")
    transports = [network.transport(network.enrol(name)) for name in names]
    for transport in transports:
        transport.join([network.topic])
    barrier = threading.Barrier(2)

    def start(transport):
        barrier.wait()
        transport.start()

    threads = [threading.Thread(target=start, args=(transport,)) for transport in transports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for transport in transports:
        assert transport.wait_for_status(lambda status: bool(status.get("peers")), PATIENCE_SECONDS)


def test_nothing_is_left_when_a_transport_has_stopped(network):
    transport = network.transport(network.enrol("one"))
    transport.join([network.topic])
    transport.start()
    assert transport.wait_for_status(bool, PATIENCE_SECONDS)
    pid = transport.pid
    assert is_alive(pid)
    transport.stop()
    assert not is_alive(pid)
    assert transport.pid is None
    assert not transport.status
    assert not swarm_threads()
    transport.stop()


def test_a_transport_that_was_never_started_stops(network):
    network.transport(network.enrol("one")).stop()


def programs(folder, node):
    """A PATH with a Node that says that it is one, and an npm that has nothing to do."""
    for name, script in (("node", node), ("npm", "exit 0")):
        path = folder / name
        path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && {{ echo v20.0.0; exit; }}\n{script}\n')
        path.chmod(0o755)
    return f"{folder}{os.pathsep}{os.defpath}"


def test_a_transport_stops_where_its_sidecar_never_gets_ready(network, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", programs(tmp_path, "exec sleep 600"))
    transport = network.transport(network.enrol("one"), package_dir=tmp_path / "packages")
    transport.announce(b"x", _Presence(network.topic))
    transport.start()
    pid = eventually(lambda: transport.pid, PATIENCE_SECONDS, "the sidecar is there")
    transport.stop()
    assert not is_alive(pid)
    assert not swarm_threads()


def test_a_sidecar_that_always_fails_is_started_again_and_spoken_of_once(
    network, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("PATH", programs(tmp_path, f"echo x >> {tmp_path}/starts; exit 3"))
    transport = network.transport(network.enrol("one"), package_dir=tmp_path / "packages")
    transport._policy = RestartPolicy(first_delay=0.01, max_delay=0.01)
    transport.start()
    starts = tmp_path / "starts"
    eventually(
        lambda: starts.exists() and starts.read_text().count("x") >= 5,
        PATIENCE_SECONDS,
        "it was started five times",
    )
    transport.stop()
    assert caplog.text.count("The swarm is unavailable") == 1


def test_without_node_there_is_one_clear_line_and_the_thread_ends(network, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(packages, "_WHEEL", "no_such_package")
    transport = network.transport(network.enrol("one"))
    transport.start()
    eventually(lambda: not swarm_threads(), PATIENCE_SECONDS, "the thread ends")
    (line,) = [record for record in caplog.records if record.name == "tether.swarm"]
    assert (
        "The swarm is not used: no Node 20 or newer with npm was found on this machine" in line.getMessage()
    )
    assert "Traceback" not in caplog.text
    transport.stop()


class _Presence:
    def __init__(self, topic):
        self.topic = topic
        self.worker_id = "0" * 16
