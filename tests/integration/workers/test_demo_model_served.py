"""The model that ships, through all of a local Tether: its text is that of the engine, whatever dies."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import openai
import pytest

from support.local_tether import LocalTether
from support.stream_reader import StreamReader
from tether.config.models import DEMO_MODEL, ModelSettings
from tether.errors import JobFailed
from tether.jobs import Message, Sampling
from tether_workers import demo_model
from tether_workers.engines.transformers.loading import load_engine

PROMPT = "Read a line from"


THINKS_UNLESS = (
    "{%- if enable_thinking is defined and not enable_thinking -%}Answer in one word.{%- endif -%}"
)


@pytest.fixture(scope="module")
def thinking_folder(tmp_path_factory):
    """The demo model with a chat template that has a variable."""
    folder = tmp_path_factory.mktemp("models") / "thinking"
    shutil.copytree(demo_model.folder(), folder)
    template = folder / "chat_template.jinja"
    # Before the answer begins, so that the answer is another one.
    before, begin = template.read_text().split("{%- if add_generation_prompt -%}")
    template.write_text(f"{before}{THINKS_UNLESS}{{%- if add_generation_prompt -%}}{begin}")
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory, thinking_folder):
    thinking = {"name": "thinking", "source": str(thinking_folder), "context": 512}
    local = LocalTether(tmp_path_factory.mktemp("demo"), models=[dict(DEMO_MODEL), thinking])
    local.process = local.up()
    yield local
    local.process.stop()
    local.close()


def said(prompt, adapter="", **sampling):
    """What the engine says by itself."""
    engine = load_engine(ModelSettings.model_validate({**DEMO_MODEL, "adapters": ("code",)}), adapter)
    try:
        asked = Sampling(**sampling)
        deltas = list(engine.start(engine.encode(prompt), (), asked, threading.Event()))
    finally:
        engine.close()
    return "".join(text for delta in deltas for text in delta.texts)


def test_a_prompt_and_a_chat_get_the_models_text(served):
    with served.client() as client:
        job = client.submit("demo", PROMPT, max_tokens=30)
        assert "".join(job.stream()) == said(PROMPT, max_tokens=30)
        asked = client.submit(
            "demo", messages=[{"role": "user", "content": "What does `len` do?"}], max_tokens=30
        )
        assert "".join(asked.stream()) == said([Message("user", "What does `len` do?")], max_tokens=30)
        coded = client.submit("demo", PROMPT, adapter="code", max_tokens=30)
        assert "".join(coded.stream()) == said(PROMPT, "code", max_tokens=30)


def test_openais_client_streams_it(served):
    told = served.endpoint()
    with openai.OpenAI(base_url=f"{told['url']}/v1", api_key=told["api_key"]) as client:
        assert [model.id for model in client.models.list()] == ["demo", "thinking"]
        chunks = client.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": "What does `len` do?"}],
            stream=True,
            max_tokens=30,
            temperature=0.8,
            seed=5,
            stream_options={"include_usage": True},
        )
        text, usage = "", None
        for chunk in chunks:
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            usage = chunk.usage or usage
    expected = said([Message("user", "What does `len` do?")], max_tokens=30, temperature=0.8, seed=5)
    assert text == expected
    assert usage.prompt_tokens > 3
    assert usage.completion_tokens > 0


def test_a_chat_templates_variables_reach_it_by_every_door(served, thinking_folder):
    engine = load_engine(ModelSettings(name="thinking", source=str(thinking_folder), context=512), "")
    said = [Message("user", "What does `len` do?")]
    try:
        with_thought, without = engine.encode(said), engine.encode(said, {"enable_thinking": False})
        deltas = list(engine.start(without, (), Sampling(max_tokens=20), threading.Event()))
    finally:
        engine.close()
    assert len(without) > len(with_thought)
    expected = "".join(text for delta in deltas for text in delta.texts)
    told, variables = served.endpoint(), {"enable_thinking": False}
    asked = {"messages": [{"role": "user", "content": said[0].content}]}
    with openai.OpenAI(base_url=f"{told['url']}/v1", api_key=told["api_key"]) as client:
        for body in ({}, {"chat_template_kwargs": variables}, {"enable_thinking": False}):
            answer = client.chat.completions.create(
                model="thinking", max_tokens=20, temperature=0, extra_body=body, **asked
            )
            count = len(without) if body else len(with_thought)
            assert answer.usage.prompt_tokens == count
            assert (answer.choices[0].message.content == expected) == bool(body)
        ignored = client.chat.completions.create(
            model="demo", max_tokens=5, temperature=0, extra_body={"chat_template_kwargs": variables}, **asked
        )
        assert ignored.usage.prompt_tokens == len(with_thought)
    with served.client() as client:
        job = client.submit("thinking", chat_template_kwargs=variables, max_tokens=20, **asked)
        assert "".join(job.stream()) == expected
    status, text, _ = served.run(
        *("submit", "--model", "thinking", "--chat", "--max-tokens", "20"),
        *("--chat-template-kwargs", '{"enable_thinking": false}', said[0].content),
    )
    assert (status, text) == (0, expected)


@pytest.mark.parametrize("sampling", [{"temperature": 0.0}, {"temperature": 1.5, "seed": 11}])
def test_a_worker_that_is_killed_in_mid_stream_changes_no_word(served, sampling):
    seed = sampling.get("seed", 0)
    asked = {"max_tokens": 400, **sampling}
    expected = said(PROMPT, **asked)
    while len(expected) < 400 and sampling["temperature"]:
        seed += 1
        asked["seed"] = seed
        expected = said(PROMPT, **asked)
    with served.client() as client:
        job = client.submit("demo", PROMPT, **asked)
        reader = StreamReader(job)
        reader.wait_for_tokens(3)
        os.kill(served.parts()["worker-1"]["pid"], signal.SIGKILL)
        reader.join()
    assert "".join(reader.texts) == expected


def test_a_light_client_never_loads_torch():
    code = "import sys, tether, tether_cli.main, tether_workers.loading; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_who_asks_for_a_model_that_cannot_be_loaded_is_told_why(tmp_path):
    local = LocalTether(tmp_path, models=[{"name": "gone", "source": "/nowhere/at/all"}])
    try:
        local.up(until="Tether accepts jobs")
        schedule = ("--max-attempts", "2", "--retry-base", "100ms")
        status, text, errors = local.run("submit", *schedule, "hello")
        assert (status, text) == (JobFailed.exit_status, "")
        *_, first, last = errors.splitlines()
        why = "there is no folder /nowhere/at/all"
        assert f": attempt 1 failed (model_unusable): {why}" in first
        assert re.match(rf"tether: job \S+ failed permanently \(model_unusable\): {why}", last)
    finally:
        local.close()
