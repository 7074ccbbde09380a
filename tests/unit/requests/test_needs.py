"""What a job asks of a pool: names, sizes, and what may be preferred."""

import pytest

from tether.client.submission_documents import request_to_json
from tether.errors import InvalidRequest
from tether.requests.checking import read_request
from tether.requests.needs import MAX_BYTES

LEAST = {"model": "m", "prompt": "p"}


def read(**asked):
    return read_request({**LEAST, **asked})


@pytest.mark.parametrize(
    ("size", "size_bytes"),
    [
        (7, 7),
        ("7", 7),
        ("40GB", 40 * 10**9),
        ("40 gib", 40 * 2**30),
        ("1.5TiB", 3 * 2**39),
        ("80gb", 80 * 10**9),
        ("512MiB", 2**29),
        ("2kb", 2_000),
        ("9b", 9),
        (0, 0),
        (MAX_BYTES, MAX_BYTES),
    ],
)
def test_sizes_are_bytes_or_have_a_unit_of_tens_or_twos(size, size_bytes):
    request = read(min_vram=size)
    assert request.min_vram == size_bytes
    assert request_to_json(request).get("min_vram", 0) == size_bytes


@pytest.mark.parametrize(
    "size", [-1, MAX_BYTES + 1, True, 1.5, "", "GB", "40 G", "-1GB", "9999999TB", "4_0GB", None, []]
)
def test_what_is_no_size_is_refused_by_name(size):
    with pytest.raises(InvalidRequest, match=r"min_vram=.* is not a number of bytes, or a size such as 40GB"):
        read(min_vram=size)


@pytest.mark.parametrize("name", ["region", "gpu_class"])
@pytest.mark.parametrize("place", ["EU", "eu west", "a" * 33, "eu\n", 5, None, "eu.1"])
def test_places_are_what_workers_can_be_called(name, place):
    with pytest.raises(InvalidRequest, match=f"{name}=.* is not a name of a to z"):
        read(**{name: place})


def test_what_is_preferred_is_one_name_or_several_in_any_order():
    asked = {"region": "eu", "min_vram": 1}
    assert read(**asked, prefer="region").prefer == ("region",)
    request = read(**asked, prefer=["region", "min_vram", "region"])
    assert request.prefer == ("min_vram", "region")
    assert request.preferred == {"min_vram", "region"}
    assert request.digest() == read(**asked, prefer=("min_vram", "region")).digest()


@pytest.mark.parametrize("prefer", [["version"], "Region", [5], 5, {"region": 1}, [["region"]]])
def test_a_need_that_there_is_not_cannot_be_preferred(prefer):
    with pytest.raises(InvalidRequest, match="is not a list of some of region, gpu_class, min_vram"):
        read(region="eu", prefer=prefer)


@pytest.mark.parametrize("asked", [{}, {"region": ""}, {"gpu_class": "h100"}])
def test_a_need_that_is_not_given_cannot_be_preferred(asked):
    with pytest.raises(InvalidRequest, match="prefer names region, which is not given"):
        read(**asked, prefer=["region"])


@pytest.mark.parametrize("flag", [1, "true", None])
def test_any_version_is_true_or_false(flag):
    with pytest.raises(InvalidRequest, match=r"any_version=.* is neither true nor false"):
        read(any_version=flag)


def test_an_adapter_is_one_of_a_version():
    with pytest.raises(InvalidRequest, match="any_version and adapter are mutually exclusive"):
        read(any_version=True, adapter="poet")
    assert read(any_version=False, adapter="poet").adapter == "poet"
