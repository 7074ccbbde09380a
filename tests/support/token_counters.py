"""The Virtual Token Counter of one pool and class as plain Python: what the scripts are held against.

Algorithm 2 of Sheng et al., *Fairness in Serving Large Language Models* (OSDI 2024), with weights: the input
of a job is charged as it is drawn, its output as it is made, and a tenant that comes back from idle has no
credit for that time.
"""

from collections import Counter, deque
from dataclasses import dataclass

INPUT_PRICE = 1
OUTPUT_PRICE = 2


@dataclass
class WaitingJob:
    job_id: str
    tenant: str
    cost: int
    weight: float
    is_cancelled: bool = False


class TokenCounters:
    """Attributes:
    waiting: By tenant, its jobs in order, with what is left of cancelled ones until a draw comes by.
    counters: Tokens by their prices, divided by weights; by tenant.
    served: The same without the lifts: what each got.
    """

    def __init__(self):
        self.waiting = {}
        self.counters = {}
        self.served = Counter()
        self.floor = 0.0
        self.last = None

    def place(self, job, *, to_head=False):
        if job.tenant not in self.waiting:
            self.waiting[job.tenant] = deque()
            self._lift(job.tenant)
        jobs = self.waiting[job.tenant]
        (jobs.appendleft if to_head else jobs.append)(job)

    def _lift(self, tenant):
        others = [self.counters[each] for each in self.waiting if each != tenant]
        least = min(others) if others else max(self.floor, self.counters.get(self.last, 0.0))
        self.counters[tenant] = max(self.counters.get(tenant, 0.0), least)

    def draw(self, passes_over=lambda tenant: False):
        """The next job, or None where none waits but of tenants that are passed over: these keep what they
        have."""
        while drawable := [tenant for tenant in self.waiting if not passes_over(tenant)]:
            tenant = min(drawable, key=lambda each: (self.counters[each], each))
            jobs = self.waiting[tenant]
            while jobs and jobs[0].is_cancelled:
                jobs.popleft()
            job = jobs.popleft() if jobs else None
            if not jobs:
                del self.waiting[tenant]
            if job is not None:
                self.floor, self.last = self.counters[tenant], tenant
                self._charge(job, job.cost * INPUT_PRICE)
                return job
        return None

    def make(self, job, count):
        self._charge(job, count * OUTPUT_PRICE)

    def finish(self, job, input_tokens):
        """The engine has counted the input, which was charged as it was estimated."""
        rest = (input_tokens - job.cost) * INPUT_PRICE
        if rest >= 0:
            self._charge(job, rest)
        elif self.counters[job.tenant] > self.floor:
            lowered = self.counters[job.tenant] + rest / job.weight
            self.counters[job.tenant] = max(lowered, self.floor)

    def _charge(self, job, tokens):
        self.counters[job.tenant] += tokens / job.weight
        self.served[job.tenant] += tokens / job.weight

    def pass_years(self, tokens):
        """All have been served so much more."""
        self.counters = {tenant: counter + tokens for tenant, counter in self.counters.items()}
        self.floor += tokens
