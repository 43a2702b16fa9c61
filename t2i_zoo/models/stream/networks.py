"""STREAM's networks: one looks at a picture, the other writes a caption of what it saw.

Source: ``CAPTION_CNN`` and ``CAPTION_RNN`` of qiaott/MirrorGAN, after yunjey/pytorch-tutorial. B batch, T words,
E numbers of a word and of a picture's code, V rows of the word table, N all words of a batch.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from t2i_zoo.nn.recurrent import run_recurrent
from t2i_zoo.text.vocabulary import END
from t2i_zoo.vision import VisionNetwork


class Reader(nn.Module):
    """Pictures (B, 3, S, S) in [-1, 1] to codes (B, E).

    Args:
        backbone: what looks at the pictures.
        dim: E.
        trained: train the backbone too; else it is frozen.
        still: leave the backbone's batch norm in eval mode.
    """

    def __init__(self, backbone: VisionNetwork, dim: int, *, trained: bool, still: bool) -> None:
        super().__init__()
        self.trained, self.still = trained, still
        self.backbone = backbone.requires_grad_(trained)
        self.linear = nn.Linear(backbone.feature_dim, dim)
        self.norm = nn.BatchNorm1d(dim, momentum=0.01)
        self.train()  # the backbone comes in eval mode

    def look(self, images: Tensor) -> Tensor:
        """The backbone's features (B, F); through a frozen one gradients flow where the pictures ask for them."""
        idle = not (self.trained or images.requires_grad)
        with torch.no_grad() if idle else nullcontext():
            features: Tensor = self.backbone(images).features
        return features

    def code(self, features: Tensor) -> Tensor:
        """Features (B, F) to codes (B, E)."""
        codes: Tensor = self.norm(self.linear(features))
        return codes

    def forward(self, images: Tensor) -> Tensor:
        """Look, and make codes of what is seen."""
        return self.code(self.look(images))

    def train(self, mode: bool = True) -> Reader:
        """Leave the backbone in eval mode where its statistics are to be kept."""
        super().train(mode)
        if self.still:
            self.backbone.eval()
        return self


class Writer(nn.Module):
    """Guesses each word of a caption from the picture's code and the words before.

    Args:
        words: V.
        dim: E.
        hidden_dim: units of the LSTM; the authors' config says 256 and their code doubles it.
    """

    def __init__(self, words: int, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, dim)
        self.lstm = nn.LSTM(dim, hidden_dim, batch_first=True)
        self.linear = nn.Linear(hidden_dim, words)
        self.reset(words)

    def reset(self, words: int) -> None:
        """Draw word table and output anew, U(-0.1, 0.1) and zero biases, for a number of words."""
        device = self.embed.weight.device
        self.embed = nn.Embedding(words, self.embed.embedding_dim, device=device)
        self.linear = nn.Linear(self.linear.in_features, words, device=device)
        for layer in (self.embed, self.linear):
            nn.init.uniform_(layer.weight, -0.1, 0.1)
        nn.init.zeros_(self.linear.bias)

    def forward(self, codes: Tensor, numbers: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Score the words of captions: the code is to give the first one, each word the next, the last is not read.

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
            beam: captions kept at each step; 1 takes the likeliest word each time. The one with the highest mean
                log-probability of a word is given.
        """
        count = len(codes)
        scores = codes.new_zeros(count, beam)
        scores[:, 1:] = float("-inf")  # all beams begin alike
        chosen = torch.empty(count, beam, 0, dtype=torch.int64, device=codes.device)
        ended = torch.zeros(count, beam, dtype=torch.bool, device=codes.device)
        inputs, state = codes.repeat_interleave(beam, 0), None
        first = torch.arange(count, device=codes.device)[:, None] * beam
        for _ in range(limit):
            output, state = run_recurrent(self.lstm, inputs[:, None], state)
            steps = F.log_softmax(self.linear(output[:, 0]).float(), 1).view(count, beam, -1)
            over = torch.full_like(steps, float("-inf"))
            over[..., END] = 0.0  # a caption that has ended goes on with ends, for nothing
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
        """Stay in training mode: nothing here depends on it, and cuDNN's LSTM has no backward without."""
        return super().train(True)
