"""A Redis of one's own, jobs in its pools, and inference workers: processes, or in this one."""

import json
import os
import signal
import sys

import redis
from dramatiq import Worker

from support.drawn_jobs import body_of
from support.waiting import eventually
from support.workers import TESTS, WorkerProcess
from tether.broker.keys import Keys
from tether.broker.outcomes import read_outcome
from tether.broker.pools import Dispatch, Pools
from tether.config import Settings
from tether.embedded.redis_server import RedisServer
from tether.jobs import Priority
from tether.token_log import read_events
from tether_workers.engines.null import NullEngine
from tether_workers.pool_worker import make_worker
from tether_workers.serving import served_models
