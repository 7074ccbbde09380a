"""Loads a model and its tokenizer from where the configuration says, with an adapter merged into it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from tether.config.settings import ModelSettings
from tether.errors import ModelUnusable
from tether_workers import demo_model
from tether_workers.engines.transformers.batch_model import BatchModel
from tether_workers.engines.transformers.engine import TransformersEngine
from tether_workers.engines.transformers.options import TransformersOptions
from tether_workers.engines.transformers.prompt_encoder import PromptEncoder

DEMO = "demo"
HUB = "hf:"


class WeightsLocation(NamedTuple):
    """What ``from_pretrained`` is told: a folder or a name on the model hub, and the revision there."""

    name: str
    revision: str | None = None


def weights_location(source: str) -> WeightsLocation:
    """Where a source is.

    Raises:
      ModelUnusable: It is a local folder that is not there.
      ModelDamaged: The files of the demo model are not as they were released.
    """
    if source == DEMO:
        demo_model.verify()
        return WeightsLocation(str(demo_model.folder()))
    if source.startswith(HUB):
        name, _, revision = source.removeprefix(HUB).partition("@")
        return WeightsLocation(name, revision or None)
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise ModelUnusable(
            f"there is no folder {folder}: give the model's folder, hf:organisation/name, or demo"
        )
    return WeightsLocation(str(folder))


def load_engine(settings: ModelSettings, adapter: str) -> TransformersEngine:
    """The engine of a model, with the adapter named, or none where that is empty.

    Weights come from safetensors files alone: others can run code when they are read.

    Raises:
      ModelUnusable: It cannot be loaded. The message says why.
      ModelDamaged: The files of the demo model are not as they were released.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    location = weights_location(settings.source)
    device = _device(settings)
    try:
        tokenizer = AutoTokenizer.from_pretrained(location.name, revision=location.revision)
        model = _load(location, settings, device, adapter)
    except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
        raise ModelUnusable(
            f"model {settings.name!r} cannot be loaded from {settings.source!r} ({type(error).__name__}): "
            f"{_first_line(error)}"
        ) from error
    if not tokenizer.is_fast:
        raise ModelUnusable(f"model {settings.name!r} has no tokenizer.json, which this engine needs")
    batch_model = BatchModel(model)
    batch_model.check()
    known = getattr(model.config.get_text_config(), "max_position_embeddings", None) or settings.context
    encoder = PromptEncoder(
        tokenizer,
        name=settings.name,
        context=min(settings.context, known),
        vocabulary=batch_model.vocabulary,
    )
    is_exact = model.dtype == torch.float32 and settings.quantize == "none"
    return TransformersEngine(
        batch_model, encoder, end_tokens=_end_tokens(model, tokenizer), repeatable=is_exact
    )


def _device(settings: ModelSettings) -> str:
    asked = TransformersOptions.model_validate(settings.options).device
    has_gpu = torch.cuda.is_available()
    if asked == "cuda" and not has_gpu:
        raise ModelUnusable(f"model {settings.name!r} is configured for a GPU, and this machine has none")
    return ("cuda" if has_gpu else "cpu") if asked == "auto" else asked


def _load(location: WeightsLocation, settings: ModelSettings, device: str, adapter: str) -> Any:
    dtype: str = TransformersOptions.model_validate(settings.options).dtype
    if dtype == "auto" and device == "cpu":
        # What CPUs are quick at, and what repeats token by token.
        dtype = "float32"
    arguments: dict[str, Any] = {
        "revision": location.revision,
        "use_safetensors": True,
        "attn_implementation": "sdpa",
    }
    if settings.quantize != "none":
        arguments["quantization_config"] = _quantization(settings.quantize)
        arguments["device_map"] = device
    model: Any = AutoModelForCausalLM.from_pretrained(
        location.name, dtype="float32" if adapter and settings.quantize == "none" else dtype, **arguments
    )
    if adapter:
        model = _merged(model, settings, adapter, dtype)
    if settings.quantize == "none":
        model = model.to(device)
    return model.eval().requires_grad_(False)


def _quantization(kind: str) -> Any:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if kind == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")


def _merged(model: Any, settings: ModelSettings, adapter: str, dtype: str) -> Any:
    """The model with a LoRA adapter merged into it, in single precision and then as it is to run."""
    # Takes up to ten seconds to import.
    from peft import PeftModel

    source = settings.adapter_source(adapter)
    location = (
        weights_location(source) if source else WeightsLocation(str(demo_model.adapter_folder(adapter)))
    )
    merged = PeftModel.from_pretrained(model, location.name, revision=location.revision).merge_and_unload()
    if settings.quantize != "none":
        return merged
    wanted = merged.config.dtype if dtype == "auto" else getattr(torch, dtype)
    return merged.to(wanted or torch.float32)


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = {configured} if isinstance(configured, int) else set(configured or ())
    if tokenizer.eos_token_id is not None:
        ends.add(tokenizer.eos_token_id)
    return frozenset(ends)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else "no reason given"
