"""Kernel distance and Inception Score: against torch-fidelity, by hand, and at their edges."""

from __future__ import annotations

import pytest
import torch

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.inception_score import InceptionScore
from t2i_zoo.metrics.kernel import KernelDistance, unbiased_mmd
from t2i_zoo.metrics.networks import INCEPTION, Network


def classifier(classes):
    network = Network("resnet18", "")
    network.vision = type("Vision", (), {"num_logits": classes, "feature_dim": 1})()
    return network


def test_the_kernel_distance_of_torch_fidelity(make_job, cloud, feed):
    fidelity = pytest.importorskip("torch_fidelity.metric_kid")
    real, fake = cloud(150, 12, 1), cloud(120, 12, 2, 1.1, 0.2)
    options = {"kid_subsets": 20, "kid_subset_size": 50, "rng_seed": 2020, "verbose": False}
    expected = fidelity.kid_features_to_metric(fake, real, **options)
    (found,) = feed(KernelDistance(make_job(120, real), subsets=20, subset_size=50), fake).compute()
    assert found.value == pytest.approx(expected["kernel_inception_distance_mean"], abs=1e-3)
    assert found.error == pytest.approx(expected["kernel_inception_distance_std"], abs=1e-3)


def test_the_kernel_by_hand():
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
    # k(a, b) = (a b + 1)^3: within x 1, within y 27, across 1 + 1 + 8 + 27
    assert float(unbiased_mmd(x, y)) == pytest.approx(1 + 27 - 2 * 37 / 4)


def test_small_sets_give_smaller_subsets_and_say_so(make_job, cloud, feed):
    metric = feed(KernelDistance(make_job(12, cloud(30, 4, 1)), subsets=2, subset_size=1000), cloud(12, 4, 2))
    (score,) = metric.compute()
    assert score.note == "subsets of 12 instead of 1000"
    assert score.label == "codes kernel distance"
    with pytest.raises(T2IError, match="found one image"):
        feed(KernelDistance(make_job(1, cloud(30, 4, 1))), cloud(1, 4, 2)).compute()


def test_the_inception_score_of_torch_fidelity(make_job, cloud, feed):
    fidelity = pytest.importorskip("torch_fidelity.metric_isc")
    logits = cloud(53, 9, 3, 3.0)
    expected = fidelity.isc_features_to_metric(logits, splits=4, shuffle=False)
    metric = feed(InceptionScore(make_job(53, network=classifier(9)), splits=4), logits)
    (found,) = metric.compute()
    assert found.value == pytest.approx(expected["inception_score_mean"], rel=1e-5)
    assert found.error == pytest.approx(expected["inception_score_std"], rel=1e-4)
    assert found.label == "resnet18 class score"


def test_the_inception_score_by_hand(make_job, feed):
    certain = torch.eye(5).repeat(4, 1) * 1000  # probabilities of exactly 0 and 1
    metric = feed(InceptionScore(make_job(20, network=classifier(5)), splits=2), certain)
    assert metric.compute()[0].value == pytest.approx(5)
    alike = feed(InceptionScore(make_job(20, network=classifier(5)), splits=2), torch.ones(20, 5))
    assert alike.compute()[0].value == pytest.approx(1)
    assert alike.compute()[0].error == pytest.approx(0, abs=1e-9)


def test_the_edges_of_the_inception_score(make_job, feed):
    (score,) = feed(InceptionScore(make_job(1, network=classifier(5)), splits=1), torch.rand(1, 5)).compute()
    assert score.value == pytest.approx(1)
    assert score.note == "1 images per split for 5 classes: biased downwards"
    with pytest.raises(T2IError, match="10 splits of inception_score for 5 images"):
        InceptionScore(make_job(5, network=classifier(5)))


def test_names(make_job, cloud):
    network = classifier(5)
    network.label = INCEPTION
    metric = InceptionScore(make_job(10, network=network), splits=1)
    metric.update(cloud(10, 5, 1), torch.arange(10))
    assert metric.compute()[0].label == "Inception score"
    metric = KernelDistance(make_job(10, cloud(9, 5, 1), network=network), subsets=1)
    metric.update(cloud(10, 5, 1), torch.arange(10))
    assert metric.compute()[0].label == "KID"
