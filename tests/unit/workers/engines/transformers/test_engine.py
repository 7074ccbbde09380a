"""The engine gives what the model gives by itself, in any company, and goes on from any token."""

import threading

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconH1Config,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from support.waiting import eventually
from tether.config.models import DEMO_MODEL, ModelSettings
from tether.errors import EngineFailed, InvalidRequest, ModelUnusable
from tether.jobs import Message, Sampling
from tether_workers import demo_model
from tether_workers.engines.transformers import engine as transformers_engine
from tether_workers.engines.transformers.batch_model import BatchModel
from tether_workers.engines.transformers.engine import TransformersEngine
from tether_workers.engines.transformers.loading import load_engine
from tether_workers.engines.transformers.prompt_encoder import PromptEncoder

PROMPTS = ("Return the", "The function opens a file and", "os.path", "When a socket", "import", "A " * 300)


def settings(**values):
    return ModelSettings.model_validate({**DEMO_MODEL, "adapters": ("code",), **values})


@pytest.fixture(scope="module")
def engine():
    engine = load_engine(settings(), "")
    yield engine
    engine.close()


def run(engine, prompt, accepted=(), cancelled=None, **sampling):
    ids = engine.encode(prompt) if isinstance(prompt, str) else prompt
    made, text, reason, offset = [], "", None, len(accepted)
    asked = Sampling(**{"max_tokens": 40, **sampling})
    for delta in engine.start(ids, accepted, asked, cancelled or threading.Event()):
        assert delta.offset == offset
        offset += len(delta.token_ids)
        made += delta.token_ids
        text += "".join(delta.texts)
        reason = delta.finish_reason
    return made, text, reason


def all_at_once(engine, calls):
    found = {}

    def call(place, values):
        found[place] = run(engine, **values)

    threads = [threading.Thread(target=call, args=(place, values)) for place, values in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[place] for place in range(len(calls))]


def generated(model, ids, count, ends=()):
    prompt = torch.tensor([ids])
    tokens = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=list(ends) or None,
    )[0, len(ids) :].tolist()
    return [token for token in tokens if token not in ends]


def test_greedy_tokens_are_those_of_generate_alone_and_together(engine, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(demo_model.folder(), dtype="float32")
    wanted = [generated(model, engine.encode(prompt), 40, [tokenizer.eos_token_id]) for prompt in PROMPTS]
    assert [run(engine, prompt)[0] for prompt in PROMPTS] == wanted
    calls = [{"prompt": prompt} for prompt in PROMPTS * 3]
    assert [made for made, _, _ in all_at_once(engine, calls)] == wanted * 3


def test_sampled_answers_do_not_hang_on_the_company(engine):
    calls = [
        {"prompt": prompt, "temperature": 0.9, "seed": seed, "top_p": 0.95, "top_k": 40 * (seed % 2)}
        for prompt in PROMPTS
        for seed in range(3)
    ]
    assert all_at_once(engine, calls) == [run(engine, **call) for call in calls]


@pytest.mark.parametrize("how", ["together", pytest.param("one by one", marks=pytest.mark.long)])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "seed": 7, "top_p": 0.95, "top_k": 50}])
def test_any_number_of_accepted_tokens_leads_to_the_same_answer(engine, sampling, how):
    for prompt in PROMPTS[:3]:
        whole, text, reason = run(engine, prompt, **sampling)
        calls = [
            {"prompt": prompt, "accepted": tuple(whole[:count]), **sampling} for count in range(len(whole))
        ]
        rests = all_at_once(engine, calls) if how == "together" else [run(engine, **call) for call in calls]
        for count, (rest, rest_text, again) in enumerate(rests):
            assert whole[:count] + rest == whole
            assert text.endswith(rest_text)
            assert again == reason


def test_an_answer_ends_before_a_stop_text(engine):
    _, text, _ = run(engine, "The function", temperature=0.8, seed=3)
    stop = text[5:9]
    _, cut, reason = run(engine, "The function", temperature=0.8, seed=3, stop=(stop,))
    assert cut == text[: text.index(stop)]
    assert reason == "stop"


def test_an_answer_ends_where_the_context_is_full(engine):
    ids = engine.encode("a " * 200)
    made, _, reason = run(engine, ids, max_tokens=512, temperature=3.0, seed=1)
    while reason == "stop":
        made, _, reason = run(engine, ids, max_tokens=512, temperature=3.0, seed=len(made))
    assert len(ids) + len(made) == 512
    assert reason == "length"
    assert run(engine, ids, accepted=tuple(made), max_tokens=512) == ([], "", "length")


def test_a_prompt_beyond_the_context_is_refused_with_numbers(engine):
    with pytest.raises(InvalidRequest, match="512 of prompt and answer"):
        engine.encode("word " * 600)


def test_tokens_that_the_model_does_not_know_are_refused(engine):
    with pytest.raises(InvalidRequest, match="vocabulary"):
        run(engine, (1, 10**6))
    with pytest.raises(InvalidRequest, match="no tokens"):
        run(engine, ())


def test_a_cancelled_answer_ends_within_a_token_and_the_others_go_on(engine):
    cancelled = threading.Event()
    stream = engine.start(engine.encode("Return"), (), Sampling(max_tokens=400, temperature=2.0), cancelled)
    seen = [next(stream), next(stream)]
    cancelled.set()
    rest = list(stream)
    # What was made before the event was set may still come, and one step that was under way.
    assert all(delta.finish_reason is None for delta in rest)
    assert len(seen) + len(rest) < 400
    assert run(engine, "Return the")[2] is not None


def test_a_cancelled_one_ends_between_two_parts_of_its_prompt(engine, monkeypatch):
    model, cancelled, parts = engine._model, threading.Event(), []
    logits = model.logits

    def count(row, begins, tokens):
        parts.append(len(tokens[0]))
        if len(parts) == 2:
            cancelled.set()
        return logits(row, begins, tokens)

    monkeypatch.setattr(transformers_engine, "MAX_PREFILL_TOKENS", 16)
    monkeypatch.setattr(model, "logits", count)
    assert run(engine, "import os\n" * 100, cancelled=cancelled) == ([], "", None)
    assert parts == [16, 16]
    assert engine._in_cache() == ()


def test_an_answer_that_nobody_reads_any_more_leaves_the_batch(engine):
    stream = engine.start(
        engine.encode("Return"), (), Sampling(max_tokens=400, temperature=2.0), threading.Event()
    )
    next(stream)
    stream.close()
    eventually(lambda: not engine._decoding, 60, "the batch is empty")


def test_a_chat_is_rendered_by_the_models_template(engine, tokenizer):
    messages = [Message("system", "Be brief."), Message("user", "What does `len` do?")]
    told = [{"role": message.role, "content": message.content} for message in messages]
    text = tokenizer.apply_chat_template(told, tokenize=False, add_generation_prompt=True)
    assert engine.encode(messages) == tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_step_that_fails_fails_its_requests_and_no_later_one(engine, monkeypatch):
    def broken(*_):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(engine._model, "logits", broken)
        with pytest.raises(EngineFailed, match="worker's log"):
            run(engine, "Return the")
    assert run(engine, "Return the")[0]


def test_the_adapter_changes_what_is_said():
    plain, coded = load_engine(settings(), ""), load_engine(settings(), "code")
    try:
        pairs = [(run(plain, prompt)[1], run(coded, prompt)[1]) for prompt in PROMPTS]
    finally:
        plain.close()
        coded.close()
    assert sum(one != other for one, other in pairs) >= 5


def test_closing_ends_answers_without_a_reason_and_leaves_no_thread():
    engine = load_engine(settings(), "")
    stream = engine.start(
        engine.encode("A"), (), Sampling(max_tokens=400, temperature=2.0), threading.Event()
    )
    next(stream)
    engine.close()
    assert all(delta.finish_reason is None for delta in stream)
    with pytest.raises(EngineFailed, match="shutting down"):
        run(engine, "A")
    assert not engine._thread.is_alive


SMALL = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
LLAMA_LIKE = {**SMALL, "intermediate_size": 96, "num_key_value_heads": 2, "pad_token_id": 0}
ARCHITECTURES = {
    "llama": LlamaConfig(**LLAMA_LIKE),
    "mistral": MistralConfig(**{**LLAMA_LIKE, "sliding_window": None}),
    "mistral with a window": MistralConfig(**{**LLAMA_LIKE, "sliding_window": 12}),
    "qwen2": Qwen2Config(**LLAMA_LIKE),
    "qwen3": Qwen3Config(**{**LLAMA_LIKE, "head_dim": 16}),
    "phi3": Phi3Config(**LLAMA_LIKE),
    "gemma3": Gemma3TextConfig(
        **{**LLAMA_LIKE, "head_dim": 16, "sliding_window": 12},
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "gpt_neox": GPTNeoXConfig(**{**SMALL, "intermediate_size": 96}),
    "gpt2": GPT2Config(vocab_size=300, n_embd=64, n_layer=3, n_head=4, n_positions=256),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_give_what_they_give_by_themselves(name, tokenizer):
    torch.manual_seed(3)
    config = ARCHITECTURES[name]
    made = Gemma3ForCausalLM(config) if name == "gemma3" else AutoModelForCausalLM.from_config(config)
    made = made.eval().requires_grad_(False)
    prompts = [
        tuple((7 * place + shift) % 290 + 2 for place in range(length))
        for shift, length in ((1, 5), (2, 30), (3, 61), (4, 17))
    ]
    wanted = [generated(made, prompt, 30) for prompt in prompts]
    batch_model = BatchModel(made)
    batch_model.check()
    engine = TransformersEngine(
        batch_model,
        PromptEncoder(tokenizer, name=name, context=256, vocabulary=300),
        end_tokens=frozenset(),
        repeatable=True,
    )
    try:
        calls = [{"prompt": prompt, "max_tokens": 30} for prompt in prompts]
        assert [tokens for tokens, _, _ in all_at_once(engine, calls)] == wanted
    finally:
        engine.close()


def test_a_model_whose_layers_keep_something_else_is_refused():
    config = FalconH1Config(**{**LLAMA_LIKE, "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16})
    with pytest.raises(ModelUnusable):
        BatchModel(AutoModelForCausalLM.from_config(config).eval()).check()


@pytest.mark.parametrize(
    ("source", "message"),
    [("/nowhere/at/all", "there is no folder"), ("{empty}", "cannot be loaded")],
)
def test_a_source_that_is_none_is_named(tmp_path, source, message):
    with pytest.raises(ModelUnusable, match=message):
        load_engine(settings(source=source.format(empty=tmp_path), adapters=()), "")


def test_weights_that_could_run_code_are_not_read(tmp_path):
    model = AutoModelForCausalLM.from_config(ARCHITECTURES["llama"])
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((demo_model.folder() / name).read_bytes())
    with pytest.raises(ModelUnusable, match="cannot be loaded"):
        load_engine(settings(source=str(tmp_path), adapters=()), "")


@pytest.mark.parametrize("quantize", ["int8", "nf4"])
def test_quantized_weights_answer_and_promise_no_repetition(tmp_path, quantize):
    # On CPUs the sizes of such a model must be multiples of 64.
    config = LlamaConfig(**{**LLAMA_LIKE, "vocab_size": 3072, "intermediate_size": 128})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((demo_model.folder() / name).read_bytes())
    engine = load_engine(settings(source=str(tmp_path), adapters=(), quantize=quantize), "")
    try:
        assert run(engine, "Return the")[0]
        assert not engine.repeatable
    finally:
        engine.close()


def test_the_check_at_load_catches_a_mask_that_hides_a_token(monkeypatch):
    model = BatchModel(AutoModelForCausalLM.from_pretrained(demo_model.folder(), dtype="float32"))
    make = model._masks.make

    def hiding(starts, count, length, device):
        mask = make(starts, count, length, device)
        mask[..., 1] = False
        return mask

    monkeypatch.setattr(model._masks, "make", hiding)
    with pytest.raises(ModelUnusable, match="logits in a batch differ from those alone"):
        model.check()
