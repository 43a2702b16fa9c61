"""The steps of GAN-CLS and StackGAN++ as a first implementation writes them, for comparison in a benchmark.

Every pair is a whole pass of the discriminator, the optimizers are torch's defaults, averages are a loop over weights.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i_zoo.batch import Batch
from t2i_zoo.models.base import TextToImageGAN


def bce(logits: Tensor | None, target: float) -> Tensor:
    """Mean cross entropy of logits with one target."""
    assert logits is not None
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


class Plain:
    """Copies of a model's networks, with an Adam for the generator and for each discriminator.

    Args:
        model: of the networks, the noise and the learning rates; it does not change.
    """

    def __init__(self, model: TextToImageGAN) -> None:
        self.model = model
        self.generator, judges = copy.deepcopy(model.generator).train(), copy.deepcopy(model.discriminator).train()
        self.discriminators: list[Any] = [*judges] if isinstance(judges, nn.ModuleList) else [judges]
        rate, betas = model.hparams["learning_rate"], (model.hparams["beta1"], model.hparams["beta2"])
        self.adams = [
            torch.optim.Adam(network.parameters(), rate, betas) for network in (*self.discriminators, self.generator)
        ]

    def update(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """One step."""
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def step(self, batch: Batch) -> list[Tensor]:
        """One batch through all networks; returns the loss of each discriminator and the generator's."""
        raise NotImplementedError


class PlainGANCLS(Plain):
    """GAN-CLS with a forward of the generator for either step."""

    def fake(self, text: Tensor) -> Tensor:
        """Images of new noise."""
        images: Tensor = self.generator(self.model.noise(len(text), self.model.rng), text)
        return images

    def step(self, batch: Batch) -> list[Tensor]:
        """Real, mismatched and generated pairs, then the generator."""
        (judge,), images, text = self.discriminators, batch["images"][-1], batch["text"].sentence
        wrong = self.model.encode_wrong(batch).sentence
        real, mismatched = judge(images, text).matched, judge(images, wrong).matched
        generated = judge(self.fake(text).detach(), text).matched
        loss_d = bce(real, 1) + 0.5 * (bce(mismatched, 0) + bce(generated, 0))
        self.update(self.adams[0], loss_d)
        loss_g = bce(judge(self.fake(text), text).matched, 1)
        self.update(self.adams[1], loss_g)
        return [loss_d, loss_g]


class PlainStackGANPlusPlus(Plain):
    """StackGAN++ in the order of its authors, with a step of each discriminator in turn."""

    def __init__(self, model: TextToImageGAN) -> None:
        super().__init__(model)
        self.average = [p.detach().clone() for p in self.generator.parameters()]

    def step(self, batch: Batch) -> list[Tensor]:
        """Each discriminator on real, mismatched and generated images, then the generator and its average."""
        text = batch["text"]
        fakes = self.model.draw(self.generator, self.model.noise(len(text.sentence), self.model.rng), text)
        mu, losses = fakes.extras["mu"], []
        sizes = zip(self.discriminators, batch["images"], batch["wrong_images"], fakes.images, strict=True)
        for optimizer, (judge, images, others, generated) in zip(self.adams, sizes, strict=False):
            real, wrong, fake = (judge(x, mu.detach()) for x in (images, others, generated.detach()))
            loss = bce(real.matched, 1) + bce(wrong.matched, 0) + bce(fake.matched, 0)
            loss = loss + bce(real.unconditional, 1) + bce(wrong.unconditional, 1) + bce(fake.unconditional, 0)
            self.update(optimizer, loss)
            losses.append(loss)
        judged = [judge(x, mu) for judge, x in zip(self.discriminators, fakes.images, strict=True)]
        logvar = fakes.extras["logvar"]
        divergence = -0.5 * (1 + logvar - mu.square() - logvar.exp()).mean()
        total = sum((bce(one.matched, 1) + bce(one.unconditional, 1) for one in judged), torch.zeros_like(divergence))
        self.update(self.adams[-1], total + self.model.hparams["kl_weight"] * divergence)
        for mean, live in zip(self.average, self.generator.parameters(), strict=True):
            mean.mul_(0.999).add_(live.detach(), alpha=0.001)
        return [*losses, total]


PLAIN: dict[str, type[Plain]] = {"GANCLS": PlainGANCLS, "StackGANPlusPlus": PlainStackGANPlusPlus}
