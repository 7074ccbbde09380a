"""`tether orchestrator`'s own process, which can be profiled."""

from __future__ import annotations

import sys

import core_sampling

from tether.orchestrator.process import main

if __name__ == "__main__":
    core_sampling.start("orchestrator")
    sys.exit(main())
