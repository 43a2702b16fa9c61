"""One of two processes, or the only one: ``metrics_worker.py FOLDER`` writes every metric's numbers to a file."""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from t2i_zoo.text.features import TextFeatures
from t2i_zoo.text.vocabulary import Words, padded

_HERE = Path(__file__).parent
_CONFTEST = runpy.run_path(str(_HERE / "conftest.py"), run_name="metrics_conftest")
IMAGES = 26  # 14 and 12: batches of four are ragged on both


class Looker:
    """A dual encoder with words and regions: each word a direction of its own, four regions by their mean colour."""

    def __init__(self, captions: Sequence[str]) -> None:
        self.known, self.hparams = Words.of_captions(captions), {"max_words": 18, "gamma1": 4.0}
        self.directions = torch.randn(len(self.known), 3, generator=torch.Generator().manual_seed(0))

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        regions = torch.einsum("dc,bchw->bdhw", self.directions, F.adaptive_avg_pool2d(images, 2))
        return 9 * regions, images.mean((2, 3))

    def read(self, captions: Sequence[str]) -> TextFeatures:
        rows, lengths = padded([self.known.numbers(caption) for caption in captions])
        words = F.one_hot(rows, len(self.known)).float()
        return TextFeatures(words.sum(1), words, torch.arange(rows.shape[1]) < lengths[:, None])

    def image_codes(self, images: Tensor) -> Tensor:
        return self.features(images)[1]

    def sentence_codes(self, captions: Sequence[str]) -> Tensor:
        return self.read(captions).sentence[:, :3]


class Scribe:
    """A caption writer that says red, yellow or blue, whichever channel is the brightest."""

    def reader(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))

    def describe(self, images: Tensor) -> list[str]:
        colours = ("red", "yellow", "blue")
        return [f"a single {colours[i]} flower with six petals" for i in self.reader(images).argmax(1).tolist()]


def numbers() -> dict[str, Any]:
    """Numbers of made-up features, exactly, and of a whole evaluation."""
    from t2i_zoo.data import CaptionDataModule, SyntheticFlowers
    from t2i_zoo.data.store import open_store
    from t2i_zoo.metrics.base import Job, View
    from t2i_zoo.metrics.diversity import CaptionDiversity, ClassDiversity
    from t2i_zoo.metrics.draws import draw_captions
    from t2i_zoo.metrics.evaluation import evaluate
    from t2i_zoo.metrics.flowers.colour_agreement import ColourAgreement
    from t2i_zoo.metrics.flowers.pointing import Pointing
    from t2i_zoo.metrics.flowers.redescription import Redescription
    from t2i_zoo.metrics.frechet import FrechetDistance
    from t2i_zoo.metrics.inception_score import InceptionScore
    from t2i_zoo.metrics.kernel import KernelDistance
    from t2i_zoo.metrics.neighbours import PRDC, NearestTraining
    from t2i_zoo.metrics.networks import Network, build_network
    from t2i_zoo.metrics.photographs import Photographs
    from t2i_zoo.metrics.protocol import load_protocol
    from t2i_zoo.metrics.references import ranks
    from t2i_zoo.metrics.retrieval import RPrecision, Similarity
    from t2i_zoo.models.gancls import GANCLS

    module = CaptionDataModule(SyntheticFlowers(images=72, size=24), image_size=16)
    flowers = Photographs(open_store(module.spec, module.cache / "stores"), 16)
    cloud = _CONFTEST["cloud"]
    features, reference, train = cloud(IMAGES, 6, 1), cloud(40, 6, 2), cloud(30, 6, 3)
    images = torch.rand(IMAGES, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    draws = draw_captions(flowers, flowers.split("train")[1], IMAGES, 0, repeats=2)
    network = Network("codes", "", dual=_CONFTEST["Codes"]())
    network.vision = type("Vision", (), {"num_logits": 6, "feature_dim": 6})()
    job = Job(draws, flowers, network, {"reference": reference, "train": train}.__getitem__)
    metrics: list[tuple[Any, tuple[Any, ...]]] = [
        (FrechetDistance(job, groups=3), (features,)),
        (KernelDistance(job, subsets=4, subset_size=10), (features,)),
        (InceptionScore(job, splits=3), (features,)),
        (PRDC(job, k=2), (features,)),
        (NearestTraining(job, percentile=40.0), (features,)),
        (RPrecision(job, candidates=5, folds=2), (network.look(images)[0],)),
        (ClassDiversity(job, images_per_class=2), (images,)),
        (CaptionDiversity(job), (images,)),
    ]
    rank, world = ranks()
    own = torch.arange(rank, IMAGES, world)
    found: dict[str, Any] = {}

    def values(metric: Any) -> dict[str, Tensor]:
        rows = {score.metric: (score.value, score.error or 0.0, score.chance or 0.0) for score in metric.compute()}
        return {name: torch.tensor(row, dtype=torch.float64) for name, row in rows.items()}

    for metric, rows in metrics:
        for start in range(0, len(own), 4):
            index = own[start : start + 4]
            metric.update(*(row[index] for row in rows), index)
        found[type(metric).__name__] = values(metric)
    similarity = Similarity(job)
    similarity.update(features[own], reference[:IMAGES][own])
    found["Similarity"] = values(similarity)
    colours = ColourAgreement(job)
    for part in own.split(4):
        colours.update(images[part], flowers.sentences(draws.captions[part]))
    found["ColourAgreement"] = values(colours)
    pointing = Pointing(replace(job, network=Network("looker", "", dual=Looker(flowers.captions)), real=True))
    written = Redescription(replace(job, network=Network("scribe", "", captioner=Scribe())))
    for part in own.split(4):
        view = View(part, images[part], flowers.sentences(draws.captions[part]))
        pointing.see(view)
        written.see(view)
    found["Pointing"] = values(pointing)
    found["Redescription"] = values(written)

    hashing = {"kind": "hashing", "dim": 32}
    torch.manual_seed(0)
    widths = {"projection_dim": 8, "generator_width": 4, "discriminator_width": 4}
    model = GANCLS(image_size=16, noise_dim=4, text_encoder=hashing, **widths).eval()  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        small = build_network(f"file:{_CONFTEST['small_file'](Path(folder))}")
    protocol = load_protocol("tiny").change(images=IMAGES)
    report = evaluate(protocol, flowers, model, small, batch_size=4)
    found["evaluation"] = {score.metric: torch.tensor(score.value) for score in report.scores}
    return found


def train(folder: Path) -> None:
    """A training with the callback, its run in ``folder``."""
    from t2i_zoo.callbacks.evaluation import Evaluation
    from t2i_zoo.models.gancls import GANCLS
    from t2i_zoo.run_files import RunLogger

    tests = runpy.run_path(str(_HERE.parent / "conftest.py"))
    widths = {"projection_dim": 8, "generator_width": 4, "discriminator_width": 4}
    model = GANCLS(image_size=16, noise_dim=4, text_encoder={"kind": "hashing", "dim": 32}, **widths)  # type: ignore[arg-type]
    callback = Evaluation("agreement_synthetic", every_n_epochs=1, images=9, batch_size=2)
    options = {"devices": 2, "strategy": "ddp_find_unused_parameters_true", "logger": RunLogger(folder)}
    trainer = tests["build_trainer"](folder, callbacks=[callback], max_epochs=2, limit_train_batches=2, **options)
    trainer.fit(model, tests["build_data"]())


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=int(os.environ["LOCAL_RANK"]), world_size=2)
    torch.save(numbers(), Path(sys.argv[1]) / f"rank_{dist.get_rank()}.pt")
    train(Path(sys.argv[1]))
    if dist.is_initialized():
        dist.destroy_process_group()
