"""The byte-level BPE tokenizer of the demo model."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

__all__ = ["BEGIN", "END", "SPECIAL", "save_tokenizer", "train_tokenizer"]

BEGIN, END = "<|begin|>", "<|end|>"
SPECIAL = (BEGIN, END, "<|system|>", "<|user|>", "<|assistant|>")

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role in ("system", "developer") -%}{{ "<|system|>" }}
{%- elif message.role == "assistant" -%}{{ "<|assistant|>" }}
{%- else -%}{{ "<|user|>" }}
{%- endif -%}
{%- if message.content is string -%}{{ message.content | trim }}
{%- elif message.content -%}
{{ message.content | map(attribute="text", default="") | join | trim }}
{%- endif -%}
{%- if message.role == "assistant" -%}{{ eos_token }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "<|assistant|>" }}{%- endif -%}
"""


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A tokenizer with this many tokens, all bytes and :data:`SPECIAL` among them.

    Every text begins with ``<|begin|>``, so that even the empty one is a prompt.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    begin = tokenizer.token_to_id(BEGIN)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B", special_tokens=[(BEGIN, begin)]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Writes it so that ``AutoTokenizer.from_pretrained(folder)`` reads it without a network."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[token for token in SPECIAL if token not in (BEGIN, END)],
        model_max_length=context,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    wrapped.chat_template = CHAT_TEMPLATE
    logging.getLogger("transformers").setLevel(logging.ERROR)
    wrapped.save_pretrained(folder)
