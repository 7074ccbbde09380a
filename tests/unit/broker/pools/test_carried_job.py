"""Fields of a job that travel through Redis under their names."""

from dataclasses import dataclass
from typing import NewType

import pytest

from tether.broker.pools.carried_job import CarriedJob, FieldReader, names_of

Label = NewType("Label", str)


@dataclass(frozen=True, kw_only=True)
class Wider(CarriedJob):
    label: Label = Label("none")
    share: int = 1


NAMES = ("pool", "tenant", "deadline", "body", "options", "began_in", "label", "share")


def test_a_field_is_known_by_its_name_alone():
    assert names_of(Wider, but=("job_id",)) == FieldReader(Wider, but=("job_id",)).names == NAMES


def test_values_become_what_their_fields_are():
    values = [b"gpu", b"acme", b"7", b"{}", b'{"a":1}', b"", "größer".encode(), b"3"]
    fields = FieldReader(Wider, but=("job_id",)).read(values)
    assert Wider(job_id="a", **fields) == Wider(
        job_id="a",
        pool="gpu",
        tenant="acme",
        deadline=7,
        body=b"{}",
        options=b'{"a":1}',
        label="größer",
        share=3,
    )


def test_what_an_older_hash_does_not_have_is_left_to_the_default():
    fields = FieldReader(Wider, but=("job_id",)).read([b"gpu", b"acme", b"0", b"{}", None, None, None, None])
    job = Wider(job_id="a", **fields)
    assert (job.options, job.label, job.share) == (b"{}", "none", 1)


def test_values_and_names_are_as_many():
    with pytest.raises(ValueError, match="shorter"):
        FieldReader(CarriedJob, but=("job_id",)).read([b"gpu"])


def test_a_field_of_a_type_that_nobody_can_read_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Odd(CarriedJob):
        urgent: bool = False

    with pytest.raises(KeyError):
        FieldReader(Odd, but=("job_id",))
