"""Skip-thought vectors: a sentence encoder trained to guess a sentence's neighbours.

Kiros, Zhu, Salakhutdinov, Zemel, Torralba, Urtasun, Fidler: "Skip-Thought Vectors", 2015, arXiv 1506.06726. Authors'
code: ryankiros/skip-thoughts (Theano). Deviations, the card has the reasons:

- captions of one image are each other's neighbours, where the paper has the sentences of a book;
- uni-skip and bi-skip are trained together, each with its own word table and decoders, on the sum of their losses;
- the loss is a mean over words, and gradients of both models are clipped by one joint norm;
- the decoders' output begins with the frequencies of the words, and narrow models begin with larger weights;
- some words are replaced by ``UNK`` in training, since a small corpus has no unknown words to learn it from;
- captions are cut after ``max_words``, where the authors leave longer sentences out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric

from t2i_zoo.batch import Batch, BatchNeeds
from t2i_zoo.errors import T2IError
from t2i_zoo.models.serving import ServingModule
from t2i_zoo.models.skipthought import losses, networks
from t2i_zoo.ranges import Count, Fraction, Positive, Weight
from t2i_zoo.text.skip_thought import SkipThoughtNetwork
from t2i_zoo.text.skip_thought_words import END, PADDING, SPECIAL, UNKNOWN, Vocabulary, count_words
from t2i_zoo.text.vocabulary import padded


class SkipThought(ServingModule):
    """Trains both encoders of combine-skip; ``text_encoder: {kind: skip_thought, path: RUN}`` uses them in a GAN.

    Args:
        word_dim: dimension of a word.
        uni_dim: units of uni-skip.
        bi_dim: units of each direction of bi-skip.
        vocabulary_size: the most frequent words that are kept, including three special ones.
        max_words: the most tokens of one caption.
        word_dropout: probability that a word which the encoder reads is replaced by ``UNK`` in training.
        learning_rate: of Adam.
        gradient_clip: largest norm of the gradient; None does not clip.
    """

    use = "give its run to a GAN with --model.text_encoder '{kind: skip_thought, path: RUN}'"
    needs = BatchNeeds(images=False, wrong_text=False, neighbours=True)

    def __init__(
        self,
        *,
        word_dim: Count = 620,
        uni_dim: Count = 2400,
        bi_dim: Count = 1200,
        vocabulary_size: Count = 20_000,
        max_words: Count = 30,
        word_dropout: Fraction = 0.02,
        learning_rate: Weight = 2e-4,
        gradient_clip: Positive | None = 10.0,
    ) -> None:
        super().__init__()
        if vocabulary_size <= len(SPECIAL):
            raise T2IError(f"found --model.vocabulary_size {vocabulary_size}, expected more than {len(SPECIAL)}")
        self.save_hyperparameters()
        self.encoder = SkipThoughtNetwork(vocabulary_size, word_dim, uni_dim, bi_dim)
        self.uni_decoders = networks.Decoders(vocabulary_size, word_dim, uni_dim)
        self.bi_decoders = networks.Decoders(vocabulary_size, word_dim, 2 * bi_dim)
        self.apply(partial(networks.skip_thought_init, word_dim=word_dim))
        self.known = Vocabulary([])
        self._loss = MeanMetric()

    def setup(self, stage: str) -> None:
        """Take the words of the training captions, unless a checkpoint brought its own."""
        super().setup(stage)
        if stage == "fit" and not self.known.words:
            captions = self.training_captions()
            self.known = Vocabulary(count_words(captions)[: self.hparams["vocabulary_size"] - len(SPECIAL)])
            self._begin_with_frequencies(captions)

    def know(self, words: Sequence[str]) -> None:
        """Take the words; the tables have room for ``vocabulary_size`` of them."""
        self.known = Vocabulary(words)

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], int]:
        """Losses of a batch, of both models and their sum ``"loss"``, and the number of words guessed by each.

        Reads ``captions`` (B) and ``neighbours`` (B pairs). Words become numbers here, on the host.
        """
        before, after = zip(*batch["neighbours"], strict=True)
        sentences, own_lengths = self._numbers(batch["captions"])
        words, lengths = zip(*(self._numbers(part) for part in (before, after)), strict=True)
        if self.training and self.hparams["word_dropout"]:
            drawn = torch.rand(sentences.shape, generator=self.rng, device=self.device)
            dropped = (drawn < self.hparams["word_dropout"]) & (sentences > END)
            sentences = sentences.masked_fill(dropped, UNKNOWN)
        uni, bi, _ = self.encoder(sentences, own_lengths)
        targets = [networks.flat(table, length) for table, length in zip(words, lengths, strict=True)]
        # what each word follows: nothing before the first, whose vector the padding row gives
        former = [F.pad(table[:, :-1], (1, 0), value=PADDING) for table in words]
        found: dict[str, Tensor] = {}
        for name, vectors, decoders, table in (
            ("uni", uni, self.uni_decoders, self.encoder.uni_words),
            ("bi", bi, self.bi_decoders, self.encoder.bi_words),
        ):
            scores = decoders(vectors, tuple(map(table, former)), lengths, len(self.known))
            found[name] = losses.neighbour_loss(scores[0], targets[0], scores[1], targets[1])
        return {"loss": found["uni"] + found["bi"], **found}, sum(len(target) for target in targets)

    @torch.no_grad()
    def _begin_with_frequencies(self, captions: Sequence[str]) -> None:
        """Let the decoders begin by guessing each word as often as it occurs.

        From zero, the first thing that lowers the loss is a sentence vector that says so, the same for all sentences:
        on a small corpus the encoder's states run into their bounds within a hundred batches.
        """
        limit = self.hparams["max_words"]
        counts = Counter(number for caption in captions for number in self.known.numbers(caption, limit, end=True))
        often = torch.tensor([float(counts[number] + 1) for number in range(len(self.known))])
        for decoders in (self.uni_decoders, self.bi_decoders):
            decoders.vocabulary.bias[: len(often)] = (often / often.sum()).log()

    def _numbers(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Word numbers (B, T) on the device, each sentence with its end, and lengths (B,) on the CPU."""
        rows = [self.known.numbers(caption, self.hparams["max_words"], end=True) for caption in captions]
        numbers, lengths = padded(rows)
        return numbers.to(self.device, non_blocking=True), lengths

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum of both models' losses."""
        return self.log_training(*self(batch))

    def evaluate(self, stage: str, batch: Batch) -> None:
        """Losses on held-out captions, a mean over words."""
        terms, count = self(batch)
        self.log_dict({f"{stage}/{name}": value for name, value in terms.items()}, batch_size=count, sync_dist=True)
        self._loss.update(terms["loss"], count)

    def summarise(self, stage: str) -> None:
        """Log the perplexity of a word: the geometric mean of both models', exp of half the sum of their losses."""
        self.log(f"{stage}/perplexity", torch.exp(0.5 * self._loss.compute()))  # sums over ranks itself
        self._loss.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One Adam for both models."""
        return torch.optim.Adam(self.parameters(), self.hparams["learning_rate"])
