import pytest

from tether.errors import mask_url


def test_a_password_never_stands_in_a_masked_url():
    masked = mask_url("redis://user:hunter2@10.0.0.1:6379/0?password=hunter2")
    assert "hunter2" not in masked
    assert masked == "redis://user:***@10.0.0.1:6379/0?***"


def test_a_url_without_secrets_stays_readable():
    assert mask_url("redis://127.0.0.1:6379/0") == "redis://127.0.0.1:6379/0"


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@127.0.0.1",
        "redis://:hun/ter2@127.0.0.1",
        "redis://user:hunter2@[::1",
        "redis://:hunter2?@127.0.0.1",
        "redis://hunter2?x@127.0.0.1",
        "://:hunter2@",
    ],
)
def test_a_password_in_a_broken_url_is_masked_too(url):
    masked = mask_url(url)
    assert "ter2" not in masked
    assert "***" in masked
