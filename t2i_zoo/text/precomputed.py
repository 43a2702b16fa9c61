"""Precomputed text features, looked up by caption: the published embeddings, or your own arrays.

A caption that is not among them cannot be encoded. Captions are compared in lower case, NFKC-normalized and with single
spaces. If one caption belongs to several images with different vectors, it gets their mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.text.features import EncoderWithWeights, TextFeatures, check_not_blank
from t2i_zoo.text.precomputed_files import kept, normal, read

_VERSION = "t2i-precomputed-1"  # part of the fingerprint, to be raised when the features of the same file change


class PrecomputedEncoder(EncoderWithWeights):
    """Sentence embeddings of known captions.

    Args:
        path: a file or folder in one of the formats of ``t2i_zoo.text.precomputed_files``.
        captions: folder with a .txt file for each image, one caption in each line, for files that only name images.
        checkpoint_mb: the largest table, in MiB, that is stored in a checkpoint; 64 MiB are 16,384 captions of
            dimension 1024. The published tables have 300 MB and more, which would outweigh all networks in the
            checkpoint of each epoch. A model whose checkpoint does not contain its table needs ``path`` again.
        assets: files of ``assets()``; with them no file is opened, and a state dict brings the vectors.

    Raises:
        T2IError: a file cannot be read, holds something else, or does not match the captions.
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
        # A parameter, since DDP would broadcast a buffer in each step; a table that is not saved stays on the host.
        self.table = nn.Parameter(table, requires_grad=False) if carried else table
        self.register_buffer("device_marker", torch.empty(0), persistent=False)
        self.eval()

    def encode(self, captions: Sequence[str], *, words: bool = False) -> TextFeatures:
        """Look captions up.

        Args:
            captions: B texts, none of them blank.
            words: must be false, since there are no word vectors.

        Returns:
            sentence (B, dim), float32, on the encoder's device.

        Raises:
            T2IError: a caption is blank or not in the table, or ``words`` is true.
        """
        if words:
            raise T2IError(
                f"{self.path} holds sentence embeddings, expected word vectors too: give the model an encoder that has "
                "them, such as --model.text_encoder '{kind: rnn, path: RUN}'"
            )
        check_not_blank(captions)
        rows = [self._row(caption) for caption in captions]
        if unknown := [caption for caption, row in zip(captions, rows, strict=True) if row is None]:
            more = f" and {len(unknown) - 1} more captions" if len(unknown) > 1 else ""
            raise T2IError(
                f"found no features of {unknown[0]!r}{more} in {self.path}, which has {len(self.rows)} captions and "
                "cannot encode new ones: train with an encoder that can, such as --model.text_encoder "
                "'{kind: char_cnn_rnn, path: RUN}'"
            )
        chosen = torch.tensor(rows, dtype=torch.int64, device=self.table.device)
        return TextFeatures(self.table[chosen].to(self.device_marker.device))

    def _row(self, caption: str) -> int | None:
        row = self.rows.get(normal(caption))
        if row is None and self.by_characters:  # its captions are keyed by the characters that the authors kept
            found = (self.rows.get(normal(kept(text))) for text in (caption, caption.lower()))
            row = next((place for place in found if place is not None), None)
        return row

    def assets(self) -> dict[str, str]:
        """The captions, if the checkpoint contains their vectors; otherwise nothing, and ``path`` is read again."""
        if not self.carried:
            return {}
        about = {"dim": self.dim, "by_characters": self.by_characters}
        return {"captions.txt": "\n".join(self.rows), "options.json": json.dumps(about)}

    def _identity(self) -> Iterator[bytes | memoryview]:
        head = f"{_VERSION} {self.by_characters} {self.dim}\n" + "\n".join(self.rows)
        yield head.encode("utf-8", "surrogatepass")
        yield self.table.detach().cpu().contiguous().numpy().data
