"""The LoRA adapter `code`: what the base would go on with as documentation goes on as Python code."""

from __future__ import annotations

import ast
import json
import math
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
from batches import TokenStream, encode
from chat import questions
from corpus import Entry, SourceFile, paragraphs
from peft import LoraConfig, PeftModel, get_peft_model
from precision import autocast
from recipe import AdapterRecipe
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM, PreTrainedModel

__all__ = ["adapter_texts", "train_adapter"]

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MAX_CODE = 900
"""Characters of one function."""


def adapter_texts(sources: Sequence[SourceFile], seed: int) -> list[str]:
    """The first words of a function's documentation, or a question about it, and then its code."""
    chance = random.Random(seed)
    return [
        _beginning(name, documentation, chance) + code
        for source in sources
        for name, documentation, code in _functions(source)
    ]


def _beginning(name: str, documentation: str, chance: random.Random) -> str:
    drawn = chance.random()
    if drawn < 0.25:
        asked = chance.choice(questions(Entry("", name, "function", documentation)))
        return f"<|user|>{asked}<|assistant|>"
    if drawn < 0.35:
        return ""
    words = next(iter(paragraphs(documentation))).split()
    return " ".join(words[: chance.randint(1, min(9, len(words)))]) + "\n\n"


def _functions(source: SourceFile) -> Iterator[tuple[str, str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and len(node.body) > 1 and (text := ast.get_docstring(node)):
            # What is left after parsing has no comments; without its docstring it is code alone.
            node.body = node.body[1:]
            code = ast.unparse(node)
            if 40 < len(code) <= MAX_CODE and text.strip():
                yield f"{source.group}.{node.name}", text, code


def train_adapter(
    recipe: AdapterRecipe,
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    folder: Path,
    *,
    base: str,
    say: Callable[[str], None],
) -> float:
    """Trains an adapter for the model, writes it to the folder, and returns its last loss in nats per token.

    Args:
      base: The model's name, which is written into the adapter's configuration.
    """
    torch.manual_seed(recipe.seed)
    wrapped = get_peft_model(
        cast(PreTrainedModel, model),
        LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            target_modules=list(TARGETS),
            task_type="CAUSAL_LM",
            base_model_name_or_path=base,
        ),
    )
    stream = TokenStream(encode(tokenizer, texts), f"{recipe.seed} adapter")
    learned = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=recipe.peak, weight_decay=0.0, fused=True)
    losses: list[float] = []
    wrapped.train()
    for step in range(recipe.steps):
        done = (step + 1) / recipe.steps
        optimizer.param_groups[0]["lr"] = recipe.peak * min(done / 0.05, 0.5 * (1 + math.cos(math.pi * done)))
        batch = torch.stack([stream.take(recipe.length + 1) for _ in range(recipe.rows)]).long()
        with autocast():
            logits = wrapped(input_ids=batch[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            say(f"adapter: step {step + 1} of {recipe.steps}: {sum(losses[-50:]) / 50:.3f} nats/token")
    _save(cast(PeftModel, wrapped), folder, base)
    return sum(losses[-50:]) / len(losses[-50:])


def _save(wrapped: PeftModel, folder: Path, base: str) -> None:
    wrapped.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)
    weights = folder / "adapter_model.safetensors"
    halved = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in load_file(weights).items()}
    save_file(halved, weights, metadata={"format": "pt"})
    settings = folder / "adapter_config.json"
    values = json.loads(settings.read_text())
    values["base_model_name_or_path"] = base
    values["target_modules"] = sorted(values["target_modules"])
    settings.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)
