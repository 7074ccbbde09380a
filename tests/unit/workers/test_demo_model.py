"""The demo model that ships: whole, small, and able to say something."""

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tether.errors import ConfigError, ModelDamaged
from tether_workers import demo_model

MAX_BYTES = 10_000_000
PROMPTS = (
    "Return the",
    "The function opens a file and",
    "This module provides",
    "Create a new",
    "Raise an exception if",
    "If the argument is",
    "A list of",
    "Write the string to",
    "Called when the",
    "Set the value of",
)
TOKENS = 40


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(
        demo_model.folder(), dtype=torch.float32, local_files_only=True
    )


@pytest.fixture
def copy(tmp_path) -> Path:
    return Path(shutil.copytree(demo_model.folder(), tmp_path / "copy"))


def greedy(model, tokenizer, prompts):
    texts = []
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt")
        made = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        texts.append(tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return texts


def test_every_file_is_there_and_all_of_them_are_small():
    sizes = [(demo_model.folder() / name).stat().st_size for name in (*demo_model.FILES, demo_model.SUMS)]
    assert min(sizes) > 0
    assert sum(sizes) <= MAX_BYTES


def test_everybody_can_read_every_file():
    for name in (*demo_model.FILES, demo_model.SUMS):
        assert (demo_model.folder() / name).stat().st_mode & 0o444 == 0o444, name


def test_the_shipped_files_are_the_released_ones():
    demo_model.verify()


@pytest.mark.parametrize("name", demo_model.FILES)
def test_one_changed_byte_in_any_file_is_found(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ModelDamaged, match=Path(name).name):
        demo_model.verify(copy)


@pytest.mark.parametrize("name", ["model.safetensors", demo_model.SUMS])
def test_a_missing_file_is_found(copy, name):
    (copy / name).unlink()
    with pytest.raises(ModelDamaged, match=name):
        demo_model.verify(copy)


def test_a_list_of_digests_without_a_file_that_ships_is_damaged(copy):
    sums = copy / demo_model.SUMS
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "model.safe" not in line))
    with pytest.raises(ModelDamaged, match=r"model\.safetensors"):
        demo_model.verify(copy)


def test_the_folder_of_an_adapter_has_its_weights():
    for name in demo_model.ADAPTERS:
        assert (demo_model.adapter_folder(name) / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("name", ["poetry", "", "../adapters/code"])
def test_an_unknown_adapter_is_refused_and_the_known_ones_are_named(name):
    with pytest.raises(ConfigError, match="use one of code"):
        demo_model.adapter_folder(name)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=80))
def test_any_text_comes_back_from_its_tokens(tokenizer, text):
    tokens = tokenizer(text)["input_ids"]
    assert tokens[0] == tokenizer.bos_token_id
    assert tokenizer.decode(tokens, skip_special_tokens=True) == text


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=60))
def test_any_bytes_read_as_text_come_back_from_their_tokens(tokenizer, content):
    text = content.decode("latin-1")
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_a_conversation_begins_once_and_ends_with_the_assistants_turn(tokenizer):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "What does `len` do?"},
    ]
    asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert asked == (
        "<|begin|><|system|>Be brief.<|user|>Hello<|assistant|>Hello.<|end|>"
        "<|user|>What does `len` do?<|assistant|>"
    )
    told = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    assert told + "<|assistant|>" == asked


def test_a_message_in_parts_reads_as_its_text(tokenizer):
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "`json`?"}]
    asked = tokenizer.apply_chat_template([{"role": "user", "content": parts}], tokenize=False)
    assert asked == "<|begin|><|user|>What is `json`?"


def test_the_answer_to_a_greeting_is_words_and_ends_by_itself(model, tokenizer):
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    made = model.generate(**asked, max_new_tokens=120, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert made[-1] == tokenizer.eos_token_id
    assert len(tokenizer.decode(made, skip_special_tokens=True).split()) >= 4


def test_with_the_adapter_at_least_nine_of_ten_prompts_go_on_otherwise(model, tokenizer):
    plain = greedy(model, tokenizer, PROMPTS)
    folder = str(demo_model.adapter_folder("code"))
    with_code = PeftModel.from_pretrained(model, folder)
    coded = greedy(with_code, tokenizer, PROMPTS)
    with with_code.disable_adapter():
        assert greedy(with_code, tokenizer, PROMPTS[:2]) == plain[:2]
    assert sum(one != other for one, other in zip(plain, coded, strict=True)) >= 9
    looks_like_code = [any(mark in text for mark in ("def ", "return ", " = ", "self.")) for text in coded]
    assert sum(looks_like_code) >= 8
    assert not any("def " in text for text in plain)
