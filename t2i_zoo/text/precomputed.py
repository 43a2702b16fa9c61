"""Text features that someone else has computed, looked up by caption: the published embeddings, or arrays of one's own.

A caption that is not among them cannot be encoded. Captions are compared in lower case, NFKC-normalised, with single
spaces. One caption may stand at several pictures; where it has different vectors there, their mean is given for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.text.features import EncoderWithWeights, TextFeatures, check_not_blank
from t2i_zoo.text.precomputed_files import kept, normal, read

_VERSION = "t2i-precomputed-1"  # part of the fingerprint: a new number where the features of the same file change


class PrecomputedEncoder(EncoderWithWeights):
    """Sentence vectors of known captions.

    Args:
        path: a file or folder in one of the forms of ``t2i_zoo.text.precomputed_files``.
        captions: folder with one .txt file a picture, a caption a line, for files that name pictures alone.
        checkpoint_mb: the largest table, in MiB, that a checkpoint carries; 64 are 16,384 captions of 1024 numbers. The
            published tables have 300 MB and more: in the checkpoint of each epoch they would outweigh all networks, and
            who trains on them has them. A model whose checkpoint lacks its table needs ``path`` again.
        assets: files of ``assets()``; where given, no file is opened and a state dict brings the vectors.

    Raises:
        T2IError: where a file cannot be read, holds something else, or does not fit the captions.
    """

    table: Tensor
    device_marker: Tensor

    def __init__(
        self,
        path: str,
        captions: str | None = None,
        checkpoint_mb: int = 64,
        assets: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        if checkpoint_mb < 0:
            raise T2IError(f"found text_encoder's checkpoint_mb {checkpoint_mb}, expected 0 or more")
        self.path = path
        if assets is None:
            self.by_characters, keys, vectors = read(path, captions)
            table = torch.from_numpy(vectors)
            carried = table.nbytes <= checkpoint_mb * 2**20
        else:
            about = json.loads(assets["options.json"])
            self.by_characters, keys = about["by_characters"], assets["captions.txt"].split("\n")
            table, carried = torch.zeros(len(keys), about["dim"]), True
        self.rows = {key: row for row, key in enumerate(keys)}
        self.carried = carried
        self.dim, self.word_dim, self.max_words = table.shape[1], 0, 0
        # What is carried is no buffer, which DDP would send around in each step; the rest stays on the host.
        self.table = nn.Parameter(table, requires_grad=False) if carried else table
        self.register_buffer("device_marker", torch.empty(0), persistent=False)
        self.eval()

    def encode(self, captions: Sequence[str], *, words: bool = False) -> TextFeatures:
        """Look captions up.

        Args:
            captions: B texts, none of them blank.
            words: there are none; a model that needs them needs another encoder.

        Returns:
            sentence (B, dim), float32, on the encoder's device.

        Raises:
            T2IError: where a caption is blank or not in the table, or ``words`` is true.
        """
        if words:
            raise T2IError(
                f"{self.path} holds vectors of sentences, expected those of words too: give the model an encoder that "
                "has them, such as --model.text_encoder '{kind: rnn, path: RUN}'"
            )
        check_not_blank(captions)
        rows = [self._row(caption) for caption in captions]
        if unknown := [caption for caption, row in zip(captions, rows, strict=True) if row is None]:
            one = len(unknown) == len(captions) == 1
            raise T2IError(
                f"found no features of {unknown[0]!r}{'' if one else f' and {len(unknown) - 1} more captions'} in "
                f"{self.path}, which has {len(self.rows)} captions and cannot encode new ones: train with an encoder "
                "that can, such as --model.text_encoder '{kind: char_cnn_rnn, path: RUN}'"
            )
        chosen = torch.tensor(rows, dtype=torch.int64, device=self.table.device)
        return TextFeatures(self.table[chosen].to(self.device_marker.device))

    def _row(self, caption: str) -> int | None:
        row = self.rows.get(normal(caption))
        if row is None and self.by_characters:  # their captions are known by the characters that the authors kept
            found = (self.rows.get(normal(kept(text))) for text in (caption, caption.lower()))
            row = next((place for place in found if place is not None), None)
        return row

    def assets(self) -> dict[str, str]:
        """The captions, where the checkpoint carries their vectors; else nothing, and ``path`` is read again."""
        if not self.carried:
            return {}
        about = {"dim": self.dim, "by_characters": self.by_characters}
        return {"captions.txt": "\n".join(self.rows), "options.json": json.dumps(about)}

    def _identity(self) -> Iterator[bytes | memoryview]:
        head = f"{_VERSION} {self.by_characters} {self.dim}\n" + "\n".join(self.rows)
        yield head.encode("utf-8", "surrogatepass")
        yield self.table.detach().cpu().contiguous().numpy().data
