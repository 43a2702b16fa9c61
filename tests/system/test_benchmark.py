"""t2i-zoo benchmark: its figures, and that the bare loop it compares with computes the same step."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import lightning as L
import pytest
import torch

from t2i_zoo.__main__ import main
from t2i_zoo.commands.bare_loop import BareLoop
from t2i_zoo.commands.benchmark import PARTS, SideBySide
from t2i_zoo.commands.benchmark_data import benchmark_data, decode_batch
from t2i_zoo.data import CaptionDataModule, SyntheticFlowers, WebDataset
from t2i_zoo.data.shard_writer import write_shards
from t2i_zoo.data.store import StoreSpec
from t2i_zoo.errors import T2IError
from t2i_zoo.models.gancls import GANCLS

BESIDE = ["checkpoint_ms", "checkpoint_pause_ms", "checkpoint_mb", "log_ms", "bar_ms", "grid_ms", "drawn_per_second"]
TIMES = ["step_ms", "bare_step_ms", *(f"{part.replace(' ', '_')}_ms" for part in PARTS)]


def test_a_table_and_a_file_of_figures(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = words(tmp_path / "unused", "--window", "2", "--rounds", "2", "--out", str(tmp_path / "new" / "b.json"))
    assert main(["benchmark", *given]) == 0
    figures = json.loads((tmp_path / "new" / "b.json").read_text())
    table = capsys.readouterr().out
    for name in [*TIMES, *BESIDE, "images_per_second", "peak_memory_gib", "batch_size"]:
        assert math.isfinite(figures[name])
        assert figures[name] > 0, name
        assert f"\n{name} " in table
    assert math.isfinite(figures["overhead_percent"])
    assert figures["overhead_percent"] > -100
    assert figures["images_per_second"] == pytest.approx(1e3 * figures["batch_size"] / figures["step_ms"])
    assert figures["versions"]["torch"] == torch.__version__
    assert not (tmp_path / "unused").exists()  # it leaves no run behind
    assert not (tmp_path / "runs").exists()


def test_windows_are_counted_and_the_run_ends(build_data, build_trainer, tiny_options):
    watch = SideBySide(window=2, rounds=2)
    model = GANCLS(generator_width=8, discriminator_width=4, projection_dim=8, **tiny_options)
    build_trainer(max_epochs=-1, callbacks=[watch]).fit(model, build_data())
    assert len(watch.lightning) == len(watch.bare) == 3  # one of them to warm up
    assert model.clock == 6
    assert watch.loop.model.clock == 6 + 3  # and a batch a round for the parts
    assert all(len(times) == 3 for times in watch.parts.values())


class Beside(L.Callback):
    """Before Lightning's batch, the bare loop takes the same one from the same weights and random numbers."""

    def __init__(self, autocast: torch.dtype | None) -> None:
        self.autocast = autocast

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        rng, pl_module.rng = pl_module.rng, None
        if batch_idx == 0 and trainer.current_epoch == 0:
            self.loop = BareLoop(pl_module, trainer.datamodule, self.autocast)
            assert torch.equal(self.loop.batch()["images"][-1], batch["images"][-1])  # its first batch is Lightning's
        pl_module.rng = rng
        self.loop.model.rng = torch.Generator().manual_seed(0)
        self.loop.model.rng.set_state(rng.get_state())
        given = {key: copy.copy(value) for key, value in batch.items()}
        self.loop.batch = lambda: given
        before = [p.detach().clone() for p in pl_module.parameters()]
        state = torch.get_rng_state()
        self.loop.step()
        torch.set_rng_state(state)
        assert all(torch.equal(a, b) for a, b in zip(before, pl_module.parameters(), strict=True))  # a copy is trained

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        ours, bare = pl_module.state_dict(), self.loop.model.state_dict()
        for name in ours:
            torch.testing.assert_close(bare[name], ours[name], rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("precision", "autocast", "clip"),
    [("32-true", None, None), ("32-true", None, 0.01), ("bf16-mixed", torch.bfloat16, None)],
)
def test_the_bare_loop_is_the_same_computation(precision, autocast, clip, build_data, build_trainer, tiny_options):
    model = GANCLS(generator_width=8, discriminator_width=4, projection_dim=8, gradient_clip=clip, **tiny_options)
    start = [p.detach().clone() for p in model.generator.parameters()]
    trainer = build_trainer(callbacks=[Beside(autocast)], limit_train_batches=3, precision=precision)
    trainer.fit(model, build_data())
    assert model.clock == 3
    assert all(not torch.equal(a, b) for a, b in zip(start, model.generator.parameters(), strict=True))


def test_the_data_path_beside_files_decoded_one_by_one(tmp_path, capsys, monkeypatch, build_data):
    monkeypatch.chdir(tmp_path)
    small = ["--data.source.images", "48", "--data.source.size", "24", "--data.image_size", "16"]
    given = ["--config", "gancls_synthetic", *small, "--data.batch_size", "8", "--data.pyramid", "[8]"]
    assert main(["benchmark", "--what", "data", *given, "--window", "2", "--rounds", "2", "--out", "b.json"]) == 0
    figures = json.loads((tmp_path / "b.json").read_text())
    assert figures["sizes"] == [8, 16]
    assert figures["store_images_per_second"] > 0
    assert figures["files_images_per_second"] > 0
    assert "\nratio" in capsys.readouterr().out


@pytest.mark.parametrize("resize", ["stretch", "short_side"])
def test_both_ways_give_the_same_pictures(resize, build_data):
    module = build_data(resize=resize, resample="bilinear", pyramid=[8])
    module.prepare_data()
    module.setup("fit")
    part = next(iter(module.train_dataloader()))
    plan = part["plan"]
    batch = module.on_after_batch_transfer(part)
    for store, files in zip(batch["images"], decode_batch(module.source.records(), plan, module), strict=True):
        torch.testing.assert_close(store, files, rtol=0, atol=0.02)  # Pillow rounds the smaller size


def test_the_data_path_of_shards(tmp_path):
    write_shards(StoreSpec(SyntheticFlowers(images=64, size=24), 19), tmp_path / "shards")
    sizes = {"image_size": 16, "batch_size": 8, "cache_dir": str(tmp_path / "cache")}
    with pytest.raises(T2IError, match=r"found streamed shards, .*: pass --data\.source\.stream false"):
        benchmark_data(CaptionDataModule(WebDataset(str(tmp_path / "shards")), **sizes))
    packed = CaptionDataModule(WebDataset(str(tmp_path / "shards"), stream=False), **sizes)
    assert benchmark_data(packed, window=1, rounds=1)["pictures"] == 64
