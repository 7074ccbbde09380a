"""Training from scratch: one recipe, one model."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from batches import Streams
from measuring import HeldOut, Loss
from precision import autocast
from recipe import CONTEXT, Optimizer, Recipe, Size
from tokenizer import BEGIN, END
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

__all__ = ["Progress", "build", "optimizers_of", "train"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Progress:
    """One look at a training.

    Attributes:
      training_loss: Mean over the steps since the last look, in nats per token.
      seconds: Since the training began.
    """

    step: int
    training_loss: float
    held_out: Loss
    seconds: float


@dataclass
class Trained:
    """A finished training."""

    model: LlamaForCausalLM
    history: list[Progress] = field(default_factory=list)
    epochs: dict[str, float] = field(default_factory=dict)
    tokens: int = 0


def build(size: Size, tokenizer: Tokenizer, seed: int) -> LlamaForCausalLM:
    """A model of this size with random weights."""
    torch.manual_seed(seed)
    begin, end = tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(END)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size.vocabulary,
            hidden_size=size.hidden,
            intermediate_size=size.intermediate,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.key_value_heads,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=begin,
            eos_token_id=end,
            pad_token_id=end,
            attn_implementation="sdpa",
        )
    )


def train(
    recipe: Recipe,
    model: LlamaForCausalLM,
    streams: Streams,
    held_out: HeldOut,
    *,
    say: Say,
    checkpoint: Callable[[LlamaForCausalLM, Progress], None] | None = None,
    look_every: int = 100,
    compiled: bool = True,
) -> Trained:
    """Trains the model in place.

    Args:
      checkpoint: Called at every look with the model as it then is.
      look_every: Steps between two looks at the held-out text.
      compiled: Whether the model is compiled first, which takes a minute and a C++ compiler and then
        halves the time of a step. Without a compiler it is not.
    """

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        with autocast():
            logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())

    step_loss = torch.compile(loss_of, dynamic=False) if compiled and shutil.which("g++") else loss_of
    optimizers = optimizers_of(recipe, model)
    trained = Trained(model)
    model.train()
    began, since = time.monotonic(), []
    for step in range(recipe.steps):
        batch = streams.batch(recipe.stage(step))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(step)
        loss = step_loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        since.append(loss.item())
        trained.tokens += batch[:, 1:].numel()
        if (step + 1) % look_every == 0 or step + 1 == recipe.steps:
            last = step + 1 == recipe.steps
            seen = held_out.measure(model, None if last else 24)
            progress = Progress(step + 1, sum(since) / len(since), seen, time.monotonic() - began)
            since = []
            trained.history.append(progress)
            say(
                f"step {progress.step} of {recipe.steps}: training {progress.training_loss:.3f}, "
                f"held out {seen.nats_per_token:.3f} nats/token, {seen.bits_per_byte:.3f} bits/byte, "
                f"{progress.seconds:.0f} s, {trained.tokens / progress.seconds:.0f} tokens/s"
            )
            if checkpoint is not None:
                checkpoint(model, progress)
    trained.epochs = {source.value: round(count, 2) for source, count in streams.epochs().items()}
    return trained


def optimizers_of(recipe: Recipe, model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """What moves the weights of a model."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    embeddings = [p for name, p in model.named_parameters() if "embed" in name]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    beta = (0.9, 0.95)
    if recipe.optimizer is Optimizer.ADAMW:
        groups = [
            {"params": [*matrices, *embeddings], "weight_decay": recipe.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return [torch.optim.AdamW(groups, lr=recipe.peak, betas=beta, fused=True)]
    groups = [
        {"params": embeddings, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    muon = torch.optim.Muon(
        matrices, lr=recipe.peak, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, torch.optim.AdamW(groups, lr=recipe.peak, betas=beta, fused=True)]


def save_model(model: LlamaForCausalLM, folder: Path) -> None:
    """Writes the weights in bfloat16, with a mode that lets everybody read them."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.to(torch.bfloat16)
    copy.generation_config.eos_token_id = model.config.eos_token_id
    copy.generation_config.pad_token_id = model.config.pad_token_id
    copy.generation_config.bos_token_id = model.config.bos_token_id
    copy.save_pretrained(folder)
    for file in folder.iterdir():
        if file.is_file():
            file.chmod(0o644)
