import pytest

from support.presences import DIGEST, KEY, OTHER_KEY, apply, presence, public
from tether.discovery.announcements.presence import WorkerState
from tether.discovery.fleet.fleet import Fleet, only, unroutable
from tether.discovery.fleet.unavailable import RevokedMembers, unavailable_workers

BOTH = apply(apply(Fleet(), presence(), 0), presence(OTHER_KEY), 0)
EXPIRY_MS = 15_000


@pytest.mark.parametrize(
    ("fleet", "counts"),
    [
        (BOTH, {}),
        (apply(BOTH, presence(sequence=2, state=WorkerState.CORDONED), 1), {DIGEST: {"cordoned": 1}}),
        (apply(BOTH, presence(sequence=2, state=WorkerState.DRAINING), 1), {DIGEST: {"draining": 1}}),
        (unroutable(BOTH, presence().boot_id), {DIGEST: {"unroutable": 1}}),
        (apply(BOTH, presence(sequence=2, state=WorkerState.CORDONED), 1, life_ms=1), {}),
    ],
)
def test_those_that_are_given_no_jobs_are_counted_by_model(fleet, counts):
    assert unavailable_workers(fleet, (), 2) == counts


class Revoking:
    def __init__(self):
        self.now = 0
        self.revoked = set()
        self.members = RevokedMembers(lambda key: key not in self.revoked, lambda: self.now, EXPIRY_MS)

    def revoke(self, key):
        self.revoked.add(public(key))
        self.members.add(BOTH, only(BOTH, lambda one: one.pub_key not in self.revoked))

    def keys(self):
        return {member.presence.pub_key for member in self.members.heard()}


def test_revoked_ones_are_counted_while_they_announce_themselves():
    revoking = Revoking()
    revoking.revoke(KEY)
    assert revoking.keys() == {public(KEY)}
    assert unavailable_workers(BOTH, revoking.members.heard(), 0) == {DIGEST: {"revoked": 1}}
    revoking.now = EXPIRY_MS - 1
    assert not revoking.members.counts(public(KEY))
    revoking.now = 2 * EXPIRY_MS - 2
    assert revoking.keys() == {public(KEY)}
    revoking.now += 1
    assert revoking.keys() == set()


def test_who_is_trusted_again_is_revoked_no_more():
    revoking = Revoking()
    revoking.revoke(KEY)
    revoking.revoked.clear()
    assert revoking.members.counts(public(KEY))
    assert revoking.keys() == set()
