"""R-precision and the CLIP score, with encoders whose codes are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.base import View
from t2i_zoo.metrics.draws import Draws
from t2i_zoo.metrics.networks import Network
from t2i_zoo.metrics.retrieval import RPrecision, Similarity


class Table:
    """Sentence codes: one random direction for each different caption."""

    def __init__(self) -> None:
        self.codes: dict[str, Tensor] = {}

    def sentence_codes(self, captions):
        for caption in captions:
            seed = len(self.codes)
            self.codes.setdefault(caption, torch.randn(64, generator=torch.Generator().manual_seed(seed)))
        return torch.stack([self.codes[caption] for caption in captions])

    def image_codes(self, images):
        return images.flatten(1)


@pytest.fixture
def job(make_job):
    return make_job(60, network=Network("table", "", dual=Table()))


def true_codes(job):
    return job.network.read(job.photographs.sentences(job.draws.captions))


def test_a_perfect_encoder_finds_every_caption(job, feed):
    first, second, third = feed(RPrecision(job), true_codes(job)).compute()
    assert first.label == "R-precision (table) k=1"
    assert first.value == second.value == third.value == 1.0
    assert (first.error, first.chance, third.chance) == (0.0, 0.01, 0.03)


def test_images_of_nothing_reach_chance(job, feed):
    scores = feed(RPrecision(job, candidates=4, top=(1, 2)), torch.randn(60, 64)).compute()
    for k, score in enumerate(scores, start=1):
        assert score.value == pytest.approx(k / 4, abs=0.25)
        assert score.chance == k / 4


def test_ranks_by_hand(job):
    metric = RPrecision(job, candidates=6, top=(1, 2, 3), folds=1)
    wrong = torch.from_numpy(metric.mismatches(0))
    sentences = [job.photographs.sentences(numbers) for numbers in (job.draws.captions[:1], wrong)]
    true, others = (job.network.read(each) for each in sentences)
    code = true[0] / true[0].norm() + 3 * others[0] / others[0].norm()  # nearer to one wrong caption
    better = int(
        (
            torch.nn.functional.cosine_similarity(others, code[None]) > code @ true[0] / code.norm() / true[0].norm()
        ).sum()
    )
    metric.update(code[None], torch.tensor([0]))
    assert [score.value for score in metric.compute()] == [float(better < k) for k in (1, 2, 3)]
    assert better >= 1


def test_ties_favour_the_truth(job, feed):
    assert [score.value for score in feed(RPrecision(job), torch.zeros(60, 64)).compute()] == [1.0, 1.0, 1.0]


def test_mismatches_are_of_other_classes_and_the_same_each_time(job):
    metric, again = RPrecision(job), RPrecision(job)
    offsets, labels = job.photographs.offsets, job.photographs.labels
    seen = set()
    for i in range(10):
        numbers = metric.mismatches(i)
        assert len(numbers) == 99
        assert (numbers == again.mismatches(i)).all()
        rows = offsets.searchsorted(numbers, side="right") - 1
        assert (labels[rows] != job.draws.labels[i].item()).all()
        seen |= set(numbers.tolist())
    assert len(seen) > 150  # from all of the split and all captions of an image


def test_folds_hold_every_picture_once(job, feed):
    metric = feed(RPrecision(job, folds=7), true_codes(job))
    assert sorted(metric.count.tolist()) == [8, 8, 8, 9, 9, 9, 9]


def test_refusals(job, make_job, flowers):
    with pytest.raises(T2IError, match="100 folds"):
        RPrecision(job, folds=100)
    with pytest.raises(T2IError, match="k \\(100,\\)"):
        RPrecision(job, top=(100,))
    row = torch.tensor([0])
    alone = Draws(row, torch.from_numpy(flowers.offsets[:1]), torch.from_numpy(flowers.labels[:1]), row)
    with pytest.raises(T2IError, match="captions of one class"):
        RPrecision(make_job(1, draws=alone), folds=1)


def test_the_clip_score_by_hand(job):
    metric = Similarity(job)
    images = torch.tensor([[1.0, 0.0], [1.0, 1.0], [-1.0, 0.0]])
    metric.update(images, torch.tensor([[2.0, 0.0], [3.0, 0.0], [1.0, 0.0]]))
    (score,) = metric.compute()
    values = torch.tensor([100.0, 50 * 2**0.5, 0.0])  # the cosine below zero counts as zero
    assert score.value == pytest.approx(float(values.mean()))
    assert score.error == pytest.approx(float(values.std() / 3**0.5), rel=1e-6)
    assert score.label == "caption similarity (table)"


def test_one_picture_has_a_clip_score_without_an_error(job):
    metric = Similarity(job)
    metric.update(torch.ones(1, 2), torch.ones(1, 2))
    (score,) = metric.compute()
    assert (round(score.value, 6), score.error) == (100.0, None)


def test_the_clip_score_reads_the_captions_of_what_it_sees(job):
    metric, captions = Similarity(job), ["a red flower", "a blue flower"]
    codes = job.network.read(captions)
    metric.see(View(torch.arange(2), torch.zeros(2, 3, 1, 1), captions, features=codes))
    metric.see(View(torch.arange(2), torch.zeros(2, 3, 1, 1), captions, features=-codes))  # below zero: nothing
    assert metric.compute()[0].value == pytest.approx(50)
