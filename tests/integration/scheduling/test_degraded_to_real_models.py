"""A large model that has no room, and a small one that takes its calls: both real."""

import json
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from support.local_tether import LocalTether
from support.waiting import PATIENCE_SECONDS
from tether.config.models import DEMO_MODEL
from tether.errors import QueueFull
from tether_workers import demo_model

PROMPT = "Read a line from"


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory):
    """A model with the demo model's tokenizer and twenty times its layers' numbers, of chance."""
    folder = tmp_path_factory.mktemp("models") / "large"
    shutil.copytree(demo_model.folder(), folder)
    config = AutoConfig.from_pretrained(folder)
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = 768, 2_048, 12
    config.num_attention_heads, config.num_key_value_heads = 12, 2
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory, large_folder):
    large = {"name": "large", "source": str(large_folder), "context": 512}
    few = {"TETHER_SCHEDULING__POOL_JOBS": "1", "TETHER_SCHEDULING__POOL_HORIZON": "1"}
    local = LocalTether(tmp_path_factory.mktemp("degrade"), models=[large, dict(DEMO_MODEL)], **few)
    local.process = local.up()
    yield local
    local.process.stop()
    local.close()


def test_calls_that_the_large_model_has_no_room_for_are_answered_by_the_small_one(served, tmp_path):
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"degrade": [{"model": "large", "to": "demo", "max_tokens": 20}]}))
    assert served.run("policies", "set", "default", str(policy))[0] == 0
    with served.client() as client:
        assert client.submit("large", PROMPT, max_tokens=2).result(PATIENCE_SECONDS).token_ids
        expected = client.submit("demo", PROMPT, max_tokens=20).result(PATIENCE_SECONDS).text
        jobs = []
        while not any(job.degraded_from for job in jobs):
            try:
                jobs.append(client.submit("large", PROMPT, max_tokens=200, priority="interactive"))
            except QueueFull:
                pytest.fail("it was refused before it was degraded")
        assert jobs[0].degraded_from is None
        assert jobs[-1].degraded_from == "large@1"
        assert jobs[-1].result(PATIENCE_SECONDS).text == expected
        shown = served.run("jobs", "show", jobs[-1].job_id)[1]
        assert "degraded from" in shown
        for job in jobs:
            job.cancel()
