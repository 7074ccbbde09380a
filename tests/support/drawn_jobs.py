"""Drawn jobs for tests of the worker."""

from tether.broker.worker_port import Drawn
from tether.jobs import Fence, Sampling, canonical_json, sampling_to_json
from tether.token_log import encode_pieces


def body_of(model="count", prompt="one two three", adapter="", **sampling):
    return canonical_json(
        {
            "v": 1,
            "model": model,
            "version": "1",
            "prompt": prompt,
            "sampling": sampling_to_json(Sampling(**sampling)),
            "adapter": adapter,
        }
    )


def drawn_job(number=1, *, made=(), data=None, dispatch=1, **changes):
    """A job that was drawn; `made` are the pieces of former attempts, `data` those as they were written."""
    defaults = {
        "job_id": f"job-{number}",
        "fence": Fence(dispatch, 1, f"boot:{number}"),
        "offset": len(made),
        "made": data if data is not None else (encode_pieces(made),) if made else (),
        "tenant": "tenant",
        "body": body_of(),
    }
    return Drawn(**{**defaults, **changes})
