"""Token streams: documents in a new order every epoch, cut into rows of one length."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

import torch
from chat import conversations
from corpus import Corpus, Entry
from recipe import Source, Stage
from tokenizer import BEGIN, END
from tokenizers import Tokenizer

__all__ = ["Streams", "TokenStream", "encode", "training_texts"]


def training_texts(corpus: Corpus, seed: int) -> dict[Source, list[str]]:
    """The documents of every source."""
    return {
        Source.PROSE: [entry.text for entry in corpus.training],
        Source.COMMENTS: sorted({comment for source in corpus.sources for comment in source.comments}),
        Source.CODE: [source.text for source in corpus.sources],
        Source.CHAT: list(conversations(corpus.training, seed)),
    }


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Each text's tokens, between ``<|begin|>`` and ``<|end|>``."""
    end = tokenizer.token_to_id(END)
    assert tokenizer.token_to_id(BEGIN) is not None
    return [[*encoding.ids, end] for encoding in tokenizer.encode_batch_fast(list(texts))]


class TokenStream:
    """All tokens of its documents, epoch after epoch, in an order that the seed decides."""

    def __init__(self, documents: Iterable[Sequence[int]], seed: str) -> None:
        self._documents = [torch.tensor(document, dtype=torch.int32) for document in documents]
        self._chance = random.Random(seed)
        self._left = torch.empty(0, dtype=torch.int32)
        self.tokens = sum(len(document) for document in self._documents)
        self.taken = 0

    def take(self, count: int) -> torch.Tensor:
        """The next tokens."""
        while len(self._left) < count:
            self._chance.shuffle(self._documents)
            self._left = torch.cat([self._left, *self._documents])
        taken, self._left = self._left[:count], self._left[count:]
        self.taken += count
        return taken


class Streams:
    """One stream a source."""

    def __init__(self, tokenizer: Tokenizer, texts: Mapping[Source, Sequence[str]], seed: int) -> None:
        self._streams = {
            source: TokenStream(encode(tokenizer, documents), f"{seed} {source}")
            for source, documents in sorted(texts.items())
        }

    def batch(self, stage: Stage) -> torch.Tensor:
        """A stage's next batch: rows of its length and one more token, the last one's target."""
        counts = [(source, share * stage.rows) for source, share in stage.mixture]
        rows: list[torch.Tensor] = []
        total = 0.0
        for source, count in counts:
            total += count
            while len(rows) < round(total):
                rows.append(self._streams[source].take(stage.length + 1))
        return torch.stack(rows).long()

    def epochs(self) -> dict[Source, float]:
        """How often each source was read so far."""
        return {source: stream.taken / max(1, stream.tokens) for source, stream in self._streams.items()}


def texts_of(entries: Iterable[Entry]) -> list[str]:
    """The documentation of entries."""
    return [entry.text for entry in entries]
