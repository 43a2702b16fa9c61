"""Warnings about a run that goes wrong, as measured on its grid."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from t2i_zoo.callbacks import Watch
from t2i_zoo.callbacks.watch import measures


def grid(noise: float, text: float, rough: float = 0.0) -> torch.Tensor:
    """Four captions, eight images each: a smooth slope, to which noise and text add a plain colour."""
    rng = torch.Generator().manual_seed(0)
    slope = torch.linspace(-0.5, 0.5, 32).expand(4, 8, 3, 32, 32)
    shift = noise * torch.randn(1, 8, 3, 1, 1, generator=rng) + text * torch.randn(4, 1, 3, 1, 1, generator=rng)
    return slope + shift + rough * torch.randn(1, 1, 3, 32, 32, generator=rng)


@pytest.mark.parametrize(
    ("images", "loss", "expected"),
    [
        (grid(0.3, 0.3), 0.005, []),
        (grid(4, 4, rough=9), 0.9, []),  # as at the start of any run
        (grid(4, 4, rough=9), 0.005, ["the discriminator wins: its loss is 0.005"]),
        (grid(0.01, 0.3), 0.9, ["the noise has little effect"]),
        (grid(0.3, 0.01), 0.9, ["the text has little effect"]),
    ],
)
def test_what_is_said(images, loss, expected, capsys):
    logged = []
    logger = SimpleNamespace(log_metrics=lambda values, step: logged.append((values, step)))
    trainer = SimpleNamespace(loggers=[logger])
    model = SimpleNamespace(conditional=True, clock=7, recent_losses=lambda: {"discriminator_loss": loss})
    lines = Watch().look(trainer, model, list(images))
    assert [line[: len(text)] for line, text in zip(lines, expected, strict=True)] == expected
    assert capsys.readouterr().out.count("watch: ") == len(lines)
    assert set(logged[0][0]) == {"watch/contrast", "watch/roughness", "watch/noise_effect", "watch/text_effect"}
    assert logged[0][1] == 6  # the last batch, as Lightning counts


def test_measures():
    white = torch.randn(2, 4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert measures(white)["roughness"] == pytest.approx(2 / torch.pi**0.5, abs=0.01)
    assert set(measures(white[:1, :1])) == {"contrast", "roughness"}
    assert "text_effect" not in measures(white, conditional=False)
