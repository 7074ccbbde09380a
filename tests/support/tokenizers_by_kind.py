"""Small tokenizers of the kinds that models have, each with control tokens and a chat template of its own."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    *("The function opens a file and returns its contents.", "You are a helpful assistant.", "hello world"),
    *(
        "Return the number of items in the list: [1, 2, 3] < 4.",
        "system user assistant end inst evil you are",
    ),
    *("Ein Satz mit Umlauten: äöü ß.", "a | b || c <= d => e < f > g", "<|x|> </y> [z] <<w>>\n\n\tif x:\n"),
]
PLAIN = (
    *(
        "hello world",
        "The function opens a file.",
        "  a\n\nb  ",
        "äöü ß 漢字 \U0001f600",
        "x < y | z > w",
        "<",
        "[",
        "|>",
    ),
    *("a <| b", "if x:\n\treturn [1]\n", "end", "<<SYS>>", "[INST", "<|", "I am \uf8ff"),
)
"""Texts in which no control token is written."""

TURNS = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")


def _chatty(
    tokenizer: Tokenizer, template: str, begin: str, end: str, **others: Any
) -> PreTrainedTokenizerFast:
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin, eos_token=end, **others)
    wrapped.chat_template = template
    return wrapped


def byte_level() -> PreTrainedTokenizerFast:
    """As Llama 3's: a word of the vocabulary is taken as a whole; roles are no special tokens."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"), "isolated"
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS * 3, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens(["<|begin|>", "<|end|>"])
    tokenizer.add_tokens([AddedToken(role, normalized=False, special=False) for role in ROLES])
    return _chatty(tokenizer, TURNS, "<|begin|>", "<|end|>")


def sentence_piece() -> PreTrainedTokenizerFast:
    """As Llama 2's and Mistral's: a space before the text, bytes for what is unknown."""
    trained = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256))]
    trained.train_from_iterator(
        TEXTS * 3, trainers.BpeTrainer(vocab_size=460, special_tokens=specials[:3], show_progress=False)
    )
    vocabulary = trained.get_vocab()
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    for piece in specials[3:]:
        vocabulary.setdefault(piece, len(vocabulary))
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = trained.normalizer
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
        "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
    )
    return _chatty(tokenizer, template, "<s>", "</s>", unk_token="<unk>")


def unigram() -> PreTrainedTokenizerFast:
    """As T5's: control tokens are pieces of the vocabulary, and better ones than their letters."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    specials = ["<unk>", "<s>", "</s>", *ROLES]
    tokenizer.train_from_iterator(
        TEXTS * 3,
        trainers.UnigramTrainer(
            vocab_size=150, special_tokens=specials, unk_token="<unk>", show_progress=False
        ),
    )
    # Found after the text is normalized, as they are where a model's tokenizer says nothing of it.
    tokenizer.add_special_tokens([AddedToken(role, normalized=True, special=True) for role in ROLES])
    return _chatty(tokenizer, TURNS, "<s>", "</s>", unk_token="<unk>")


def word_piece() -> PreTrainedTokenizerFast:
    """As BERT's: lower case, words between spaces."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece()
    specials = ["[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        TEXTS * 3, trainers.WordPieceTrainer(vocab_size=300, special_tokens=specials, show_progress=False)
    )
    tokenizer.add_special_tokens([AddedToken(role, normalized=True, special=True) for role in ROLES])
    return _chatty(tokenizer, TURNS, "[CLS]", "[SEP]", unk_token="[UNK]")


KINDS = {
    "byte level": byte_level,
    "sentence piece": sentence_piece,
    "unigram": unigram,
    "word piece": word_piece,
}
