"""Submits a job, prints its text as it is made, and reads the second half once more.

    tether up                                                            # in another terminal
    python examples/submit_and_stream.py "This function opens a file and"

The job is durable once `submit` returns. Kill a worker, the gateway or this program while text comes: the job
goes on, and whoever follows it misses no token.
"""

import sys

from tether import Tether

MODEL = "demo"
PATIENCE_SECONDS = 60


def main(prompt: str) -> None:
    with Tether() as tether:  # the gateway that TETHER_URL names, else the `tether up` of this machine
        job = tether.submit(
            MODEL,
            prompt,
            max_tokens=40,
            priority="interactive",
            time_limit=300,  # seconds; it expires then, running or not
            labels={"example": "stream"},
        )
        for text in job.stream(timeout=PATIENCE_SECONDS):
            print(text, end="", flush=True)
        print()

        result = job.result(timeout=PATIENCE_SECONDS)
        print(f"job {job.job_id}: {len(result.token_ids)} tokens, ended by {result.finish_reason}")

        # Any process can follow a job by its id, from any token on.
        middle = len(result.token_ids) // 2
        for event in tether.job(job.job_id).events(offset=middle, timeout=PATIENCE_SECONDS):
            if event.kind == "delta":
                print(f"tokens up to {event.offset}: {event.text}")


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "This function opens a file and")
