"""Messages of the channel for news, as bytes."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from tether.discovery.announcements.presence import Order
from tether.discovery.over_redis.redis_presence import unpack
from tether.discovery.port import Heard, Unroutable

batches = st.lists(st.builds(Heard, st.binary(max_size=40), st.integers(0, 2**32 - 1)), max_size=5)


def pack(heard):
    return b"a" + b"".join(struct.pack(">II", one.life_ms, len(one.envelope)) + one.envelope for one in heard)


@given(batches)
def test_a_batch_is_read_as_it_was_written(heard):
    assert list(unpack(pack(heard))) == heard


@given(batches, st.integers(0, 100))
def test_of_a_message_that_is_cut_off_what_is_whole_is_read(heard, length):
    found = list(unpack(pack(heard)[:length]))
    assert found == heard[: len(found)]


@given(st.binary(max_size=60), st.sampled_from([b"", b"a", b"u", b"uabc ", b"uabc 1:"]))
def test_no_bytes_make_it_fail(data, start):
    list(unpack(start + data))


def test_a_worker_is_unroutable_up_to_an_order():
    assert list(unpack(b"uabc 2:31")) == [Unroutable("abc", Order(2, 31))]
    for nonsense in (b"uabc 2", b"uabc 2:", b"uabc -1:2", b"u", b"uabc 1:" + b"9" * 5_000):
        assert not list(unpack(nonsense))
