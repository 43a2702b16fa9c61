"""A checkpoint whose text encoder is not the one that now lies at its path: batches hold the features of the former."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from t2i_zoo.data import CaptionDataModule, SyntheticFlowers, WebDataset
from t2i_zoo.data.shard_writer import write_shards
from t2i_zoo.data.store import StoreSpec
from t2i_zoo.models.gancls import GANCLS
from t2i_zoo.text import build_text_encoder
from t2i_zoo.text.char_cnn_rnn_network import CharCNNRNNNetwork


def write_weights(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    network = CharCNNRNNNetwork("gru", cnn_dim=5, dim=8, first_channels=6, second_channels=7)
    for parameter in network.parameters():  # the authors' initial weights hardly stir so narrow a network
        torch.nn.init.normal_(parameter, std=0.4)
    torch.save(network.state_dict(), path)


class Watch(L.Callback):
    """Compares the features in each batch with what the model's own encoder says."""

    def __init__(self) -> None:
        self.agree: list[bool] = []

    def look(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        own = pl_module.text_encoder.encode(batch["captions"]).sentence
        found = batch["text"].sentence if "text" in batch else own  # else the model encodes them itself
        self.agree.append(torch.allclose(found, own, atol=1e-5))

    on_train_batch_start = on_validation_batch_start = look
    on_test_batch_start = on_predict_batch_start = look


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_batches_follow_the_checkpoint(
    stage: str, streamed: bool, tmp_path: Path, tiny_options: dict[str, Any], build_trainer: Any
) -> None:
    weights = tmp_path / "encoder.pth"
    spec = {"kind": "char_cnn_rnn", "path": str(weights)}
    source: Any = SyntheticFlowers(images=64, size=24)

    def parts() -> tuple[GANCLS, CaptionDataModule]:
        widths = {"projection_dim": 8, "generator_width": 4, "discriminator_width": 4}
        data = CaptionDataModule(source, image_size=16, batch_size=8, cache_dir=str(tmp_path / "cache"))
        return GANCLS(**{**tiny_options, **widths, "text_encoder": spec}), data

    write_weights(weights, seed=1)
    former = build_trainer(max_steps=2)
    former.fit(*parts())
    former.save_checkpoint(tmp_path / "run.ckpt")
    write_weights(weights, seed=2)  # the encoder was trained again
    if streamed:  # with features of the new one in the shards
        write_shards(StoreSpec(source, 19), tmp_path / "shards", build_text_encoder(spec))
        source = WebDataset(str(tmp_path / "shards"))
    watch = Watch()
    trainer = build_trainer(max_epochs=2, limit_val_batches=2, callbacks=[watch])
    getattr(trainer, stage)(*parts(), ckpt_path=str(tmp_path / "run.ckpt"))
    assert watch.agree
    assert all(watch.agree)
