"""The warnings in real runs: one whose discriminator wins, one whose noise has no effect, and a healthy one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest

from t2i_zoo import GANCLS, CaptionDataModule, SyntheticFlowers
from t2i_zoo.callbacks import SampleGrid, Watch

WINS = {"learning_rate": 1e-7, "discriminator_learning_rate": 4e-3, "mismatch_weight": 0.0}
DEAF = {"architecture": "dcgan", "learning_rate": 3e-3, "pixel_weight": 5000.0, "noise_dim": 1, "ema_decay": 0.0}


@pytest.mark.parametrize(
    ("options", "epochs", "expected"),
    [
        (WINS, 6, "watch: the discriminator wins: its loss is 0.0"),
        (DEAF, 9, "watch: the noise has little effect"),  # its images follow those of the captions, pixel by pixel
        ({"architecture": "light", "learning_rate": 1e-3}, 4, None),
    ],
    ids=["wins", "deaf", "healthy"],
)
def test_what_is_said_of_a_run(
    options: dict[str, Any], epochs: int, expected: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    L.seed_everything(0, verbose=False)
    source = SyntheticFlowers(root=str(tmp_path / "flowers"), images=96, size=24)
    data = CaptionDataModule(source, image_size=16, batch_size=8, cache_dir=str(tmp_path))
    widths = {"projection_dim": 16, "generator_width": 8, "discriminator_width": 8}
    model = GANCLS(image_size=16, text_encoder={"kind": "hashing", "dim": 32}, **widths, **options)
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=tmp_path,
        callbacks=[Watch(), SampleGrid(every_n_epochs=epochs)],
    )
    trainer.fit(model, data)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("watch: ")]
    assert [line[: len(expected or "")] for line in said] == ([expected] if expected else [])
