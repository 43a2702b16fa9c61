"""MS-SSIM and what is built on it, and the difference of pictures of one caption."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.diversity import CaptionDiversity, ClassDiversity, photograph_distance
from t2i_zoo.metrics.draws import Draws
from t2i_zoo.metrics.msssim import ms_ssim


def noisy_images(count, side, seed=0, noise=0.3):
    rng = torch.Generator().manual_seed(seed)
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 9, 9, generator=rng), (side, side), mode="bilinear")
    return (smooth + noise * torch.randn(count, 3, side, side, generator=rng)).clamp(0, 1)


def test_torchmetrics_agrees_where_it_can():
    first, second = noisy_images(3, 192, 0), noisy_images(3, 192, 1)
    expected = [
        multiscale_structural_similarity_index_measure(a[None], b[None], data_range=1.0)
        for a, b in zip(first, second, strict=True)
    ]
    assert torch.allclose(ms_ssim(first, second, 1.0), torch.stack(expected), atol=1e-4)
    assert torch.allclose(ms_ssim(first * 255, second * 255), ms_ssim(first, second, 1.0), atol=1e-4)


@pytest.mark.parametrize("side", [128, 64, 45, 16, 5])
def test_any_size(side):
    first, second = noisy_images(2, side, 0), noisy_images(2, side, 1)
    assert torch.allclose(ms_ssim(first, first, 1.0), torch.ones(2), atol=1e-5)
    values = ms_ssim(first, second, 1.0)
    assert ((values >= 0) & (values < 1)).all()
    assert (ms_ssim(first, 1 - first, 1.0) < 0.5).all()  # contrast below zero is no NaN


def draws_of(labels, rows=None):
    labels = torch.tensor(labels)
    rows = torch.zeros_like(labels) if rows is None else rows
    return Draws(rows, torch.zeros_like(labels), labels, torch.arange(2))


def test_the_mean_over_classes_by_hand(make_job, feed):
    labels = [0, 1, 0, 1, 2, 0, 0]  # the seventh is the fourth of its class, and 2 has no pair
    images = (noisy_images(7, 32) * 255).round() / 127.5 - 1
    metric = feed(ClassDiversity(make_job(7, draws=draws_of(labels)), images_per_class=3), images, size=3)
    pixels = (images + 1) * 127.5
    first = ms_ssim(pixels[[0, 0, 2]], pixels[[2, 5, 5]]).mean()
    second = ms_ssim(pixels[[1]], pixels[[3]]).mean()
    (score,) = metric.compute()
    assert score.value == pytest.approx(float(first + second) / 2, rel=1e-5)
    assert score.error == pytest.approx(abs(float(first - second)) / 2, rel=1e-4)


def test_identical_images_have_the_largest_similarity(make_job, feed):
    images = noisy_images(1, 16).expand(6, -1, -1, -1) * 2 - 1
    (score,) = feed(ClassDiversity(make_job(6, draws=draws_of([0, 0, 0, 1, 1, 1]))), images).compute()
    assert score.value == pytest.approx(1)


def test_the_bugs_of_the_published_script(make_job, feed):
    labels = [0] * 52 + [1] * 52
    images = (noisy_images(104, 16) * 255).round() / 127.5 - 1
    pixels = (images + 1) * 127.5
    for real, scale in ((False, 1.0), (True, 1 / 255)):
        job = make_job(104, draws=draws_of(labels), real=real)
        metric = feed(ClassDiversity(job, reference_bugs=True), images)
        # each fiftieth image of a class, the last class alone, photographs as 0 to 1 of a range of 255
        expected = ms_ssim(pixels[[52]] * scale, pixels[[102]] * scale)
        (score,) = metric.compute()
        assert score.value == pytest.approx(float(expected), rel=1e-5)
        assert "bugs included" in score.note
    assert score.value > 0.99  # which is what the bug does to photographs


def test_what_class_diversity_refuses(make_job):
    with pytest.raises(T2IError, match="without classes"):
        ClassDiversity(make_job(2, draws=draws_of([-1, -1])))
    with pytest.raises(T2IError, match="no class with two images"):
        ClassDiversity(make_job(2, draws=draws_of([0, 1])))


def test_images_of_one_caption_by_hand(make_job, feed):
    job = make_job(6, repeats=3)
    values = [-1.0, 1.0, 1.0, 0.2, 0.2, 0.2]  # distances 2, 2, 0 and none
    images = torch.tensor(values)[:, None, None, None].expand(-1, 3, 16, 16)
    metric = feed(CaptionDiversity(job), images, size=2)
    (score,) = metric.compute()
    assert score.value == pytest.approx(2 / 3 / photograph_distance(job))  # the mean of 4/3 and 0
    assert score.error == pytest.approx(score.value)
    assert score.note == ""


def test_a_collapse_is_said(make_job, feed):
    images = noisy_images(6, 16, noise=0.001) * 2 - 1
    (score,) = feed(CaptionDiversity(make_job(6, repeats=3)), images).compute()
    assert score.value < 0.1
    assert score.note.startswith("collapse")


def test_what_caption_diversity_refuses(make_job):
    with pytest.raises(T2IError, match="samples_per_caption 1"):
        CaptionDiversity(make_job(6))


def test_photographs_differ(make_job):
    assert 0.05 < photograph_distance(make_job(6)) < 1.5
