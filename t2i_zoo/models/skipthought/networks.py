"""The decoders of skip-thought vectors; the encoder is ``t2i_zoo.text.skip_thought.SkipThoughtNetwork``.

Shapes: B sentences, T words, D the dimension of a sentence embedding, E of a word, N words of all sentences
together, V words of the vocabulary.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from t2i_zoo.nn.recurrent import run_recurrent


class Decoders(nn.Module):
    """Two conditional GRUs that predict the sentences before and after one, word by word (paper, equations 5 to 9).

    The sentence's vector biases all three gates in each step (matrices C_r, C_z and C): it is given beside each word,
    so C is a part of ``weight_ih``. The decoders share the matrix from states to words alone. The reset gate comes
    after the recurrent product, as in the authors' code.

    Args:
        words: V.
        word_dim: E.
        dim: D, also the units of each decoder.
    """

    def __init__(self, words: int, word_dim: int, dim: int) -> None:
        super().__init__()
        self.before = nn.GRU(word_dim + dim, dim, batch_first=True)
        self.after = nn.GRU(word_dim + dim, dim, batch_first=True)
        self.vocabulary = nn.Linear(dim, words)

    def forward(
        self, vectors: Tensor, tables: tuple[Tensor, Tensor], lengths: tuple[Tensor, Tensor], known: int
    ) -> tuple[Tensor, Tensor]:
        """Scores of the next word at each place of both neighbours.

        Args:
            vectors: (B, D), from the encoder, not normalised.
            tables: for the sentence before and the one after, the vectors (B, T, E) of what each word follows; zeros at
                the first place.
            lengths: of both, (B,) int64 on the CPU.
            known: how many words of the vocabulary are in use, from its first on.

        Returns:
            Logits (N, known) for the sentences before and (N, known) for those after, in the order of ``flat``.
        """
        scores = []
        for decoder, table, length in zip((self.before, self.after), tables, lengths, strict=True):
            condition = vectors[:, None].expand(-1, table.shape[1], -1)
            packed = pack_padded_sequence(torch.cat([table, condition], 2), length, True, enforce_sorted=False)
            states = run_recurrent(decoder, packed)[0].data
            scores.append(F.linear(states, self.vocabulary.weight[:known], self.vocabulary.bias[:known]))
        return scores[0], scores[1]


def flat(numbers: Tensor, lengths: Tensor) -> Tensor:
    """Word numbers (B, T) without padding (N,), in the order of the logits of ``Decoders``."""
    return pack_padded_sequence(numbers, lengths, True, enforce_sorted=False).data


@torch.no_grad()
def skip_thought_init(module: nn.Module, word_dim: int) -> None:
    """Initialise one layer; use with ``network.apply(partial(skip_thought_init, word_dim=620))``.

    As in the authors' code, recurrent matrices are orthogonal, each gate's by itself, biases are 0, and word tables and
    output are uniform in [-0.1, 0.1]. What leads into a GRU is uniform within the root of 6 / E, which is their 0.1 at
    their 620 dimensions of a word; in a narrower model, 0.1 leaves so small a signal that decoders learn to ignore it.
    """
    if isinstance(module, nn.GRU):
        for name, weight in module.named_parameters():
            if name.startswith("weight_hh"):
                for gate in weight.chunk(3):
                    nn.init.orthogonal_(gate)
            elif name.startswith("weight_ih"):
                bound = math.sqrt(6 / word_dim)
                nn.init.uniform_(weight, -bound, bound)
            else:
                nn.init.zeros_(weight)
    elif isinstance(module, (nn.Embedding, nn.Linear)):
        nn.init.uniform_(module.weight, -0.1, 0.1)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        elif module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])
