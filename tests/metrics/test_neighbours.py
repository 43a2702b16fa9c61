"""Precision, recall, density, coverage, and the memorisation check."""

from __future__ import annotations

import pytest
import torch

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics import neighbours
from t2i_zoo.metrics.neighbours import PRDC, NearestTraining


def test_precision_and_recall_of_torch_fidelity(make_job, cloud, feed, monkeypatch):
    fidelity = pytest.importorskip("torch_fidelity.metric_prc")
    monkeypatch.setattr(neighbours, "_CHUNK", 17)  # so that blocks are ragged
    real, fake = cloud(60, 6, 1), cloud(45, 6, 2, 0.8, 0.4)
    expected = fidelity.prc_features_to_metric(fake, real, prc_neighborhood=3, prc_batch_size=1000, verbose=False)
    found = {s.metric: s.value for s in feed(PRDC(make_job(45, real), k=3), fake).compute()}
    assert found["prdc.precision"] == pytest.approx(expected["precision"])
    assert found["prdc.recall"] == pytest.approx(expected["recall"])
    assert 0 < found["prdc.recall"] < 1


def test_all_four_by_hand(make_job, feed):
    real = torch.tensor([[0.0], [1.0], [10.0]])  # balls of the nearest other one: 1, 1, 9
    fake = torch.tensor([[0.5], [0.6], [30.0]])  # 0.1, 0.1, 29.4
    scores = {s.metric: s for s in feed(PRDC(make_job(3, real), k=1), fake).compute()}
    # 0.5 is in two balls (10 - 0.5 > 9), 0.6 in two and 10's (9.4 > 9: no), 30 in none
    assert scores["prdc.precision"].value == pytest.approx(2 / 3)
    assert scores["prdc.density"].value == pytest.approx((2 + 2 + 0) / 3)
    assert scores["prdc.coverage"].value == pytest.approx(2 / 3)  # 10 has no image within 9
    assert scores["prdc.recall"].value == pytest.approx(2 / 3)  # within 29.4 of 30: 1 (29) and 10 (20), not 0 (30)
    assert scores["prdc.precision"].error == pytest.approx((2 / 9 * 3 / 2 / 3) ** 0.5)


def test_the_photographs_themselves(make_job, cloud, feed):
    real = cloud(30, 5, 1)
    found = {s.metric: s.value for s in feed(PRDC(make_job(30, real), k=2), real).compute()}
    assert found["prdc.precision"] == found["prdc.recall"] == found["prdc.coverage"] == 1


def test_too_few_images(make_job, cloud):
    with pytest.raises(T2IError, match="--images 5, expected more than the 5 neighbours"):
        PRDC(make_job(5, cloud(30, 5, 1)))
    with pytest.raises(T2IError, match="reference images 3"):
        PRDC(make_job(9, cloud(3, 5, 1)))


def test_copies_of_training_images_are_found(make_job, cloud, feed):
    train, held_out = cloud(80, 6, 1), cloud(200, 6, 2)
    new, copied = cloud(400, 6, 3), train[torch.arange(400) % 80] + 1e-4
    for rows, least, most in ((new, 0.0, 0.2), (copied, 1.0, 1.0)):
        share, ratio = feed(NearestTraining(make_job(400, held_out, train), percentile=10.0), rows).compute()
        assert least <= share.value <= most
        assert share.chance == 0.1
    assert ratio.value < 0.01
    for wide in (train, cloud(300, 1280, 1)):  # rounding leaves equal rows some 1e-6 apart
        with pytest.raises(T2IError, match="training images among the reference"):
            NearestTraining(make_job(4, wide, wide))
    with pytest.raises(T2IError, match="percentile"):
        NearestTraining(make_job(4, held_out, train), percentile=100.0)


def test_the_share_by_hand(make_job):
    train = torch.tensor([[0.0], [100.0]])
    held_out = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])  # distances 1 to 5, the median 3
    metric = NearestTraining(make_job(4, held_out, train), percentile=50.0)
    metric.update(torch.tensor([[2.0], [98.5], [50.0], [4.0]]), torch.arange(4))  # 2, 1.5, 50, 4
    share, ratio = metric.compute()
    assert share.value == 0.5
    assert ratio.value == pytest.approx(2 / 3)  # torch's median is the lower of the middle two
