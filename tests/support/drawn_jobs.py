"""Drawn jobs for tests of the worker."""

from tether.broker.pools.worker_port import DrawnJob
from tether.jobs import JobRequest, Sampling, canonical_json
from tether.outcomes import Fence
from tether.requests.payload import payload_of
from tether.streams.token_log import encode_pieces


def body_of(model="count", prompt="one two three", adapter="", any_version=False, **sampling):
    request = JobRequest(model=model, prompt=prompt, adapter=adapter, sampling=Sampling(**sampling))
    taken = {"any_version": True} if any_version else {}
    return canonical_json({**payload_of(request), "model": model, "version": "1", **taken})


def drawn_job(number=1, *, made=(), data=None, dispatch=1, **changes):
    """A job that was drawn; `made` are the pieces of former attempts, `data` those as they were written."""
    defaults = {
        "job_id": f"job-{number}",
        "fence": Fence(dispatch, 1, f"boot:{number}"),
        "offset": len(made),
        "made": data if data is not None else (encode_pieces(made),) if made else (),
        "pool": "",
        "tenant": "tenant",
        "deadline": 0,
        "body": body_of(),
    }
    return DrawnJob(**{**defaults, **changes})
