"""Addresses with a slash too many, and what is said of those that are none."""

import pytest

from tether.gateway.server.addresses import hint_for, tidied

KNOWN = ("/v1/chat/completions", "/v1/jobs", "/v1/models")


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/v1/jobs", "/v1/jobs"),
        ("/v1/jobs/", "/v1/jobs"),
        ("//v1///jobs//", "/v1/jobs"),
        ("/", "/"),
        ("//", "/"),
        ("", "/"),
    ],
)
def test_slashes_too_many_change_nothing(path, wanted):
    assert tidied(path) == wanted


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/chat/completions", "did you mean /v1/chat/completions"),
        ("/v1/v1/chat/completions", "did you mean /v1/chat/completions"),
        ("/api/v1/models", "did you mean /v1/models"),
        (
            "/v1/chat/completions/chat/completions",
            "did you mean /v1/chat/completions? A client's base URL must end with /v1, without a route",
        ),
        ("/v1/chat/completions/models", "did you mean /v1/models?"),
        ("/v1/responses", "not supported: use /v1/chat/completions"),
        ("/v1/nothing", "openapi.json"),
        ("/v1", "openapi.json"),
        ("/", "openapi.json"),
    ],
)
def test_a_path_that_is_no_route_gets_a_hint(path, words):
    assert words in hint_for(path, KNOWN.__contains__)
