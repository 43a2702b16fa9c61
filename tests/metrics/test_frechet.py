"""Frechet distance: against torch-fidelity, by hand, and where there is too little to measure."""

from __future__ import annotations

import math

import pytest
import torch

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.frechet import FrechetDistance, frechet_distance
from t2i_zoo.metrics.networks import INCEPTION, Network


def score_of(metric):
    """The one score of a metric."""
    (score,) = metric.compute()
    return score


def test_the_value_of_torch_fidelity(make_job, cloud, feed):
    fidelity = pytest.importorskip("torch_fidelity.metric_fid")
    real, fake = cloud(300, 24, 1), cloud(200, 24, 2, 1.2, 0.1)
    first, second = (fidelity.fid_features_to_statistics(x) for x in (fake, real))
    expected = fidelity.fid_statistics_to_metric(first, second, False)["frechet_inception_distance"]
    found = score_of(feed(FrechetDistance(make_job(200, real)), fake)).value
    assert found == pytest.approx(expected, abs=1e-3, rel=1e-6)
    assert found == pytest.approx(frechet_distance(fake, real), rel=1e-9)


def test_one_dimension_by_hand(make_job, feed):
    real, fake = torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [5.0], [9.0], [9.0]])
    # means 1 and 7, variances 2 and 16/3: 36 + (sqrt 2 - sqrt 16/3)^2
    expected = 36 + (math.sqrt(2) - math.sqrt(16 / 3)) ** 2
    assert score_of(feed(FrechetDistance(make_job(4, real)), fake)).value == pytest.approx(expected, rel=1e-9)


def test_the_same_features_are_no_distance_apart(make_job, cloud, feed):
    real = cloud(50, 8, 1)
    assert abs(score_of(feed(FrechetDistance(make_job(50, real)), real)).value) < 1e-9


def test_the_error_is_the_jackknife(make_job, cloud, feed):
    real, fake = cloud(90, 5, 1), cloud(40, 5, 2)
    found = score_of(feed(FrechetDistance(make_job(40, real), groups=4), fake))
    index = torch.arange(40)
    without = torch.tensor([frechet_distance(fake[index % 4 != group], real) for group in range(4)])
    expected = (3 / 4 * (without - without.mean()).square().sum()).sqrt()
    assert found.error == pytest.approx(float(expected), rel=1e-6)
    assert score_of(feed(FrechetDistance(make_job(40, real), groups=0), fake)).error is None


def test_the_least_that_has_an_error(make_job, cloud, feed):
    real, fake = cloud(30, 2, 1), cloud(4, 2, 2)
    without = torch.tensor([frechet_distance(fake[group::2], real) for group in (0, 1)])  # two images are left
    expected = float((without - without.mean()).square().sum().div(2).sqrt())
    assert score_of(feed(FrechetDistance(make_job(4, real), groups=2), fake)).error == pytest.approx(expected, rel=1e-6)
    assert score_of(feed(FrechetDistance(make_job(3, real), groups=3), fake[:3])).error is not None
    assert score_of(feed(FrechetDistance(make_job(2, real), groups=2), fake[:2])).error is None


def test_the_name_belongs_to_the_network(make_job, cloud, feed):
    real = cloud(30, 4, 1)
    for label, name in ((INCEPTION, "FID"), ("mobilenet_v2", "mobilenet_v2 Frechet distance")):
        metric = FrechetDistance(make_job(20, real, network=Network(label, "")))
        (score,) = feed(metric, cloud(20, 4, 2)).compute()
        assert (score.label, score.note) == (name, "")


def test_fewer_images_than_features_are_said(make_job, cloud, feed):
    (score,) = feed(FrechetDistance(make_job(10, cloud(90, 16, 1))), cloud(10, 16, 2)).compute()
    assert score.note == "10 images for 16 features: biased upwards"
    assert math.isfinite(score.value)


def test_identical_images(make_job, cloud, feed):
    real = cloud(50, 8, 1)
    value = score_of(feed(FrechetDistance(make_job(20, real)), real[:1].expand(20, -1))).value
    expected = (real[0].double() - real.double().mean(0)).square().sum() + real.double().var(0).sum()
    assert value == pytest.approx(float(expected), rel=1e-6)


def test_refusals(make_job, cloud, feed):
    with pytest.raises(T2IError, match="found one image"):
        feed(FrechetDistance(make_job(1, cloud(9, 4, 1))), torch.ones(1, 4)).compute()
    with pytest.raises(T2IError, match="one reference image"):
        FrechetDistance(make_job(3, cloud(1, 4, 1)))
