"""Memory of a training on a set as large as COCO: ``python tests/data/coco_size.py FOLDER [words]``.

Not a test: it fills a folder with some gigabytes. 83,000 pictures in the store's own format, their pixels a sparse
file, with 415,000 captions; then a tiny GAN-CLS sees 50 batches of them through the real data module. Sentences alone
come from a store of 76 px; with ``words`` the store has 304 px and words are encoded too.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from t2i_zoo.batch import BatchNeeds
from t2i_zoo.data import CaptionDataModule
from t2i_zoo.data.packing import FORMAT
from t2i_zoo.data.records import Record, Source
from t2i_zoo.data.store import StoreSpec
from t2i_zoo.models.gancls import GANCLS

PICTURES, EACH, BATCHES = 83_000, 5, 50
WORDS = "a the man woman dog cat bus street red blue on in with standing riding near large small table food people"


@dataclass
class Simulated(Source):
    """A source whose store is there already."""

    root: str

    def fingerprint(self, cache: Path) -> str:
        return "simulated"

    def records(self) -> list[Record]:
        raise SystemExit("the simulated store was not taken")


class WithWords(GANCLS):
    """Reads words too, and makes no use of them."""

    needs = BatchNeeds(words=True)


def spec(root: str, size: int) -> StoreSpec:
    return StoreSpec(Simulated(root), size, "short_side", resample="bilinear")


def write_store(root: Path, size: int) -> None:
    """A store of pictures whose short side has this many pixels."""
    folder = root / "cache" / "stores" / spec(str(root), size).key()
    if folder.exists():
        return
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    long = (size * rng.choice([1, 5 / 4, 4 / 3, 3 / 2], PICTURES)).astype(np.int64)
    sides = np.stack([np.full(PICTURES, size), long], 1)
    shapes = np.where(rng.random((PICTURES, 1)) < 0.3, sides[:, ::-1], sides)
    starts = np.cumsum([0, *(3 * shapes.prod(1))])
    np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (int(starts[-1]),)).flush()
    words = WORDS.split()
    captions = [" ".join(rng.choice(words, rng.integers(8, 14))) + f" number {i}" for i in range(PICTURES * EACH)]
    (folder / "captions.json").write_text(json.dumps(captions))
    np.savez(
        folder / "table.npz",
        starts=starts[:-1],
        shapes=shapes,
        labels=np.full(PICTURES, -1, np.int64),
        splits=np.where(np.arange(PICTURES) < PICTURES - 500, 0, 2).astype(np.int8),
        offsets=np.arange(PICTURES + 1, dtype=np.int64) * EACH,
    )
    files = {path.name: {"bytes": path.stat().st_size, "hash": "-"} for path in sorted(folder.iterdir())}
    made = {"format": FORMAT, "pictures": PICTURES, "captions": len(captions), "load_size": size, "files": files}
    made |= {"resize": "short_side", "resample": "bilinear", "source": {}, "source_fingerprint": "simulated"}
    (folder / "manifest.json").write_text(json.dumps({**made, "skipped": [], "emptied": []}))
    print(f"{starts[-1] / 2**30:.1f} GiB of pixels, {len(captions):,} captions")


def memory(when: str) -> None:
    """GiB of this process: with mapped files, its peak so, and without them."""
    status = Path("/proc/self/status").read_text()
    found = {key: int(re.search(rf"{key}:\s+(\d+)", status)[1]) / 2**20 for key in ("VmRSS", "VmHWM", "RssAnon")}  # type: ignore[index]
    print(f"{when:16}" + "".join(f"{key:>9} {value:5.2f}" for key, value in found.items()), flush=True)


class Watch(L.Callback):
    """Prints the memory at the first batch and the last."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx in (0, BATCHES - 1):
            memory(f"batch {batch_idx + 1}")


def main(root: Path, words: bool) -> None:
    """Write the store where it is missing, encode the captions, train."""
    torch.set_num_threads(1)
    memory("imported")
    size, load, dim = (256, 304, 256) if words else (64, 76, 1024)
    write_store(root, load)
    memory("store written")
    kind = WithWords if words else GANCLS
    tiny = {"noise_dim": 4, "projection_dim": 8, "generator_width": 4, "discriminator_width": 4}
    model = kind(image_size=size, text_encoder={"kind": "hashing", "dim": dim}, **tiny)  # type: ignore[arg-type]
    more = {"resize": "short_side", "resample": "bilinear", "pyramid": [64, 128] if words else None}
    data = CaptionDataModule(
        Simulated(str(root)), image_size=size, load_size=load, batch_size=24, cache_dir=str(root / "cache"), **more
    )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, limit_train_batches=BATCHES, limit_val_batches=0, callbacks=[Watch()], **quiet
    )
    trainer.fit(model, data)
    memory("end")


if __name__ == "__main__":
    main(Path(sys.argv[1]), "words" in sys.argv[2:])
