"""STREAM's networks: one encodes an image, the other writes its caption.

Source: ``CAPTION_CNN`` and ``CAPTION_RNN`` of qiaott/MirrorGAN, after yunjey/pytorch-tutorial. B batch, T words,
E the dimension of a word and of an image's code, V rows of the word table, N all words of a batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from t2i_zoo.nn.recurrent import run_recurrent
from t2i_zoo.text.vocabulary import END
from t2i_zoo.vision import VisionNetwork
from t2i_zoo.vision.on_backbone import OnBackbone


class Reader(OnBackbone):
    """Images (B, 3, S, S) in [-1, 1] to codes (B, E).

    Args:
        backbone: the image network.
        dim: E.
        trained: train the backbone too; otherwise it is frozen.
        still: keep the backbone in eval mode.
    """

    def __init__(self, backbone: VisionNetwork, dim: int, *, trained: bool, still: bool) -> None:
        super().__init__(backbone, trained=trained, still=still)
        self.linear = nn.Linear(backbone.feature_dim, dim)
        self.norm = nn.BatchNorm1d(dim, momentum=0.01)

    def code(self, features: Tensor) -> Tensor:
        """Features (B, F) to codes (B, E)."""
        codes: Tensor = self.norm(self.linear(features))
        return codes

    def forward(self, images: Tensor) -> Tensor:
        """Codes of images."""
        return self.code(self.see(images).features)


class Writer(nn.Module):
    """Predicts each word of a caption from the image's code and the words before.

    Args:
        words: V.
        dim: E.
        hidden_dim: units of the LSTM; the authors' config says 256, and their code doubles it.
    """

    def __init__(self, words: int, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, dim)
        self.lstm = nn.LSTM(dim, hidden_dim, batch_first=True)
        self.linear = nn.Linear(hidden_dim, words)
        self.reset(words)

    def reset(self, words: int) -> None:
        """Initialise word table and output for another number of words: U(-0.1, 0.1), biases 0."""
        device = self.embed.weight.device
        self.embed = nn.Embedding(words, self.embed.embedding_dim, device=device)
        self.linear = nn.Linear(self.linear.in_features, words, device=device)
        for layer in (self.embed, self.linear):
            nn.init.uniform_(layer.weight, -0.1, 0.1)
        nn.init.zeros_(self.linear.bias)

    def forward(self, codes: Tensor, numbers: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Score the words of captions: the code predicts the first word, each word the next; the last is not read.

        Args:
            codes: (B, E).
            numbers: (B, T) int64.
            lengths: (B,) int64 from 1 to T, on the CPU.

        Returns:
            Scores (N, V) of the words at all N places, and the words there (N,), place by place as in a packed
            sequence.
        """
        read = torch.cat([codes[:, None], self.embed(numbers[:, :-1])], 1)
        packed = pack_padded_sequence(read, lengths, batch_first=True, enforce_sorted=False)
        states = run_recurrent(self.lstm, packed)[0]
        wanted = pack_padded_sequence(numbers, lengths, batch_first=True, enforce_sorted=False)
        return self.linear(states.data), wanted.data

    @torch.no_grad()
    def write(self, codes: Tensor, limit: int, beam: int = 1) -> list[list[int]]:
        """Captions, as numbers without their end.

        Args:
            codes: (B, E).
            limit: the most words of a caption.
            beam: captions kept at each step; 1 is greedy. The caption whose words have the highest mean
                log-probability wins.
        """
        count = len(codes)
        scores = codes.new_zeros(count, beam)
        scores[:, 1:] = float("-inf")  # all beams begin with the same caption
        chosen = torch.empty(count, beam, 0, dtype=torch.int64, device=codes.device)
        ended = torch.zeros(count, beam, dtype=torch.bool, device=codes.device)
        inputs, state = codes.repeat_interleave(beam, 0), None
        first = torch.arange(count, device=codes.device)[:, None] * beam
        for _ in range(limit):
            output, state = run_recurrent(self.lstm, inputs[:, None], state)
            steps = F.log_softmax(self.linear(output[:, 0]).float(), 1).view(count, beam, -1)
            over = torch.full_like(steps, float("-inf"))
            over[..., END] = 0.0  # an ended caption goes on with ends, at no cost
            steps = torch.where(ended[..., None], over, steps)
            scores, places = (scores[..., None] + steps).flatten(1).topk(beam, 1)
            origin, word = places // steps.shape[2], places % steps.shape[2]
            chosen = torch.cat([chosen.gather(1, origin[..., None].expand_as(chosen)), word[..., None]], 2)
            ended = ended.gather(1, origin) | (word == END)
            rows = (first + origin).flatten()
            state = (state[0][:, rows], state[1][:, rows])
            inputs = self.embed(word.flatten())
        lengths = (chosen != END).sum(2) + ended
        best = (scores / lengths).argmax(1)
        rows_of_best = chosen[torch.arange(count, device=codes.device), best].tolist()
        return [row[: row.index(END)] if END in row else row for row in rows_of_best]

    def train(self, mode: bool = True) -> Writer:
        """Stay in training mode: nothing here depends on it, and cuDNN's LSTM has no backward in eval mode."""
        return super().train(True)
