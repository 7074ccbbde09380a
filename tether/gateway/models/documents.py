"""The documents of models, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tether.gateway.schemas import Document


class ModelDocument(Document):
    """A model that jobs can use."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    version: str
    context: int = Field(description="Maximum number of tokens of prompt and answer together.")
    adapters: list[str]
    workers: int = Field(description="Number of live workers that serve the model.")
    silent_workers: int = Field(
        description="Number of further workers that announce the model and draw no jobs."
    )
    unavailable_workers: dict[str, int] = Field(
        description="Number of further workers that have the model and are given no jobs, by what they are: "
        "`cordoned`, `draining`, `unroutable` or `revoked`.",
        examples=[{"cordoned": 1}],
    )
    held_workers: dict[str, str] = Field(
        description="Why workers that serve the model are held back from the caller's jobs, by their ids: "
        "they fail what others do, and get one at a time.",
        examples=[{"b96e7cb22d0f2c7a": "5 attempts in a row failed (engine_failed) in 12 s"}],
    )
    failing_workers: dict[str, str] = Field(
        description="Why workers cannot load the model, by their ids. They try again by themselves.",
        examples=[{"b96e7cb22d0f2c7a": "its files are damaged"}],
    )
    shut_regions: dict[str, str] = Field(
        description="Why circuit breakers keep jobs from regions, by region: the model fails there, or "
        "is slow.",
        examples=[
            {
                "eu": "the circuit breaker of m@1 in region eu is open since 2026-12-01T08:00:00Z: 80% of 20 "
                "attempts had failed; the next job tries at 2026-12-01T08:00:10Z"
            }
        ],
    )
    pools: list[str] = Field(description="Names of the pools in which live workers serve the model.")
    gpu_class: str = Field(description="The only GPU class on which it may be served; empty is any.")
    region: str = Field(description="The only region in which it may be served; empty is any.")
    is_loaded: bool = Field(
        description="Whether a worker has the model loaded. Else its next job waits until one has."
    )


class ModelListDocument(Document):
    """All models."""

    object: Literal["list"]
    data: list[ModelDocument]
