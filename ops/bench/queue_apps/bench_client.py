"""One client process: enqueues what the bench asks for, one request in JSON a line, and says when."""

from __future__ import annotations

import importlib
import json
import sys
import time


def main() -> None:
    app = importlib.import_module(sys.argv[1])
    print("{}", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        began = time.monotonic_ns()
        if "count" in request:
            app.enqueue_many(request["job"], request["count"])
        else:
            app.enqueue(request["job"], request["arguments"], request["delay"])
        ended = time.monotonic_ns()
        print(json.dumps({"began": began, "ended": ended}), flush=True)


if __name__ == "__main__":
    main()
