"""A worker process dies at a chosen place of an answer of the demo model: another goes on word for word."""

import sys
import threading
from dataclasses import replace

import pytest

from support.drawn_jobs import body_of
from support.dying_worker import FOLDER
from support.inference import InferenceBench
from support.waiting import PATIENCE_SECONDS
from tether.config.models import DEMO_MODEL, ModelSettings
from tether.jobs import Sampling
from tether_workers.engines.transformers.loading import load_engine
from tether_workers.served_models import served_models

LONG_PROMPT = "import os\n" * 100
"""Read in two parts."""


class DemoBench(InferenceBench):
    def __init__(self, folder):
        super().__init__(folder)
        self.models = [dict(DEMO_MODEL)]

    @property
    def pool(self):
        return served_models(self.settings, ["transformers"])[0].pool


@pytest.fixture
def bench(tmp_path):
    bench = DemoBench(tmp_path)
    yield bench
    bench.close()


def test_a_worker_that_dies_at_the_end_of_an_answer_changes_no_word(bench, tmp_path, monkeypatch):
    jobs = {
        1: ("The function opens a file and", Sampling(seed=11, temperature=0.9, top_k=200, max_tokens=40)),
        2: ("When a socket", Sampling(temperature=0.0, max_tokens=60)),
        3: (LONG_PROMPT, Sampling(temperature=0.9, seed=3, max_tokens=60)),
    }
    places = tmp_path / "places"
    places.mkdir()
    # What runs beside it is cut wherever that is.
    (places / "11-end").touch()
    monkeypatch.setenv(FOLDER, str(places))
    process = bench.begin_process(
        *(sys.executable, "-m", "tether_cli", "worker", "support.dying_worker:broker", "-p", "1")
    )
    engine = load_engine(ModelSettings.model_validate(DEMO_MODEL), "")
    try:
        prompt, sampling = jobs[1]
        free, _ = said(engine, prompt, sampling)
        jobs[1] = (prompt, replace(sampling, stop=(free[13][1:] + free[14] + free[15][:2],)))
        wanted = {number: said(engine, *job) for number, job in jobs.items()}
    finally:
        engine.close()
    assert len(wanted[1][0]) < len(free)
    process.wait_for_line("Serving.", within=PATIENCE_SECONDS)
    for number, (prompt, sampling) in jobs.items():
        bench.place(number, body=body_of(model="demo", prompt=prompt, **vars(sampling)))
    for number, (texts, reason) in wanted.items():
        job_id = f"job-{number}"
        bench.wait_for_state(job_id, "succeeded", ticking=True)
        assert bench.texts(job_id) == texts
        finished = bench.events(job_id)[-1]
        assert (finished.kind, finished.details()["reason"]) == ("finished", reason)
    assert "rerouted" in [event.kind for event in bench.events("job-1")]
    assert list(places.iterdir()) == []


def said(engine, prompt, sampling):
    texts, reason = [], None
    for delta in engine.start(engine.encode(prompt), (), sampling, threading.Event()):
        texts += delta.texts
        reason = delta.finish_reason
    return texts, reason
