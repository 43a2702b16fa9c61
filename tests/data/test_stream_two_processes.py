"""Streamed shards in two gloo processes on the CPU: ``test_stream_two_processes.py FOLDER`` is one of them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from t2i_zoo.data import CaptionDataModule, StreamDataModule, SyntheticFlowers, WebDataset
from t2i_zoo.data.shard_writer import write_shards
from t2i_zoo.data.store import StoreSpec
from t2i_zoo.models.gancls import GANCLS
from t2i_zoo.text import build_text_encoder

# by its path, since other folders have modules of this name
_CONFTEST = runpy.run_path(str(Path(__file__).parents[1] / "conftest.py"))
build_trainer, TINY = _CONFTEST["build_trainer"], _CONFTEST["TINY"]
ENCODER: dict[str, object] = {"kind": "hashing", "dim": 32}
BATCH = 4


class Witness(L.Callback):
    """What each batch held, by epoch."""

    def __init__(self) -> None:
        self.pictures: list[list[int]] = []
        self.sizes: list[int] = []
        self.classes_differ = True
        self.lone_captions = 0  # which nobody had encoded ahead

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.pictures.append([])

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.pictures[-1] += batch["index"].tolist()
        self.sizes.append(len(batch["images"][-1]))
        self.classes_differ &= bool((batch["labels"] != batch["wrong_labels"]).all())
        self.lone_captions += "text" not in batch


def train(folder: Path) -> dict[str, Any]:
    L.seed_everything(4, verbose=False)
    options = {"image_size": 16, "noise_dim": 4, "text_encoder": ENCODER, "learning_rate": 1e-3}
    model, witness = GANCLS(**options, **TINY["gancls"]), Witness()
    start = model.generator.state_dict()[next(iter(model.generator.state_dict()))].clone()
    data = CaptionDataModule(WebDataset(str(folder / "shards"), buffer=16), image_size=16, batch_size=BATCH)
    assert isinstance(data, StreamDataModule)
    two = {"devices": 2, "strategy": "ddp_find_unused_parameters_true"}
    trainer = build_trainer(folder, max_epochs=2, limit_val_batches=1.0, callbacks=[witness], **two)
    trainer.fit(model, data)
    return {
        "start": start,
        "state": {name: value.detach() for name, value in model.named_parameters()},
        "pictures": witness.pictures,
        "sizes": witness.sizes,
        "classes_differ": witness.classes_differ,
        "lone_captions": witness.lone_captions,
        "held": data.index.pictures("train"),
        "world": trainer.world_size,
        "clock": model.clock,
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory, two_ranks: Any) -> list[dict[str, Any]]:
    """What both processes wrote down; seven pictures a shard, so that the ranks' shares end within one."""
    folder = tmp_path_factory.mktemp("ranks")
    spec = StoreSpec(SyntheticFlowers(images=64, size=24), 19)
    write_shards(spec, folder / "shards", build_text_encoder(ENCODER), per_shard=7)
    return two_ranks(__file__, folder)


def test_every_rank_has_equally_many_batches_of_other_pictures(ranks: list[dict[str, Any]]) -> None:
    assert [rank["world"] for rank in ranks] == [2, 2]
    batches = ranks[0]["held"] // 2 // BATCH
    assert batches > 3
    for rank in ranks:
        assert rank["sizes"] == [BATCH] * (2 * batches)
        assert rank["classes_differ"]
        assert rank["lone_captions"] == 0
    for first, second in zip(*(rank["pictures"] for rank in ranks), strict=True):
        assert len(first) == len(second) == batches * BATCH
        assert len({*first, *second}) == 2 * batches * BATCH  # no picture twice in an epoch
        assert max(*first, *second) < ranks[0]["held"]
    assert ranks[0]["pictures"][0] != ranks[0]["pictures"][1]


def test_the_ranks_end_equal(ranks: list[dict[str, Any]]) -> None:
    first, second = (rank["state"] for rank in ranks)
    assert {name.split(".")[0] for name in first} == {"generator", "discriminator", "generator_ema"}
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert ranks[0]["clock"] == ranks[1]["clock"] == len(ranks[0]["sizes"])
    live = next(value for name, value in first.items() if name.startswith("generator."))
    assert not torch.equal(live, ranks[0]["start"])  # it was trained


if __name__ == "__main__":
    found = train(Path(sys.argv[1]))
    torch.save(found, Path(sys.argv[1]) / f"rank_{torch.distributed.get_rank()}.pt")
