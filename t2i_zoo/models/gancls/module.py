"""GAN-CLS, GAN-INT and GAN-INT-CLS.

Reed, Akata, Yan, Logeswaran, Schiele, Lee: Generative Adversarial Text to Image Synthesis, 2016, arXiv 1605.05396.
Authors' code: reedscot/icml2016. PyTorch port: aelnouby/Text-to-Image-Synthesis. The card lists the deviations.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i_zoo.batch import Batch, Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.checks import check_image_size
from t2i_zoo.models.gancls import losses, networks
from t2i_zoo.models.gancls.drawing import Half
from t2i_zoo.nn import feature_matching
from t2i_zoo.ranges import Count, Fraction, Positive, Weight
from t2i_zoo.text import TextFeatures


class GANCLS(Half, TextToImageGAN):
    """GAN-CLS; with ``interpolation_weight`` GAN-INT-CLS, and with ``mismatch_weight=0`` as well GAN-INT.

    Defaults are those of ``main_cls.lua`` with the widths of the flowers and birds scripts, except the mismatched pair:
    it is the paper's (a real image with a caption of another class), not the code's (an image of another class).

    Args:
        architecture: the authors' residual networks, the plain DCGAN ones of the PyTorch port, or ``light``: a small
            generator of ours with noise and text at every size, beside the authors' discriminator.
        light_discriminator: a small discriminator of ours without batch norm, which also judges images alone, in place
            of the architecture's; made for training with ``r1``. ``projected`` takes its place.
        projection_dim: dimension of the projected sentence in both networks (``nt``).
        generator_width: channels before the generator's last layer (``ngf``).
        discriminator_width: channels after the discriminator's first layer (``ndf``), half of them in the light one.
        large: second residual blocks in the authors' generator, a residual block per size in the light one.
        third_activation: activate after the third convolution of the authors' discriminator, as ``main_cls.lua`` does
            and ``main_cls_int.lua`` does not.
        text_norm: batch norm on that discriminator's projected sentence, as ``main_cls_int.lua`` has and
            ``main_cls.lua`` has not.
        mismatch: pair a real image with a caption of another class (``text``, the paper), or a caption with an image
            of another class (``image``, the authors' code).
        mismatch_weight: weight w of the mismatched term; 0 leaves it out.
        fake_weight: weight of the fake term, 1 - w by default.
        interpolation_weight: GAN-INT's weight on sentences between two captions (1 in the authors' scripts).
        interpolation: their midpoint, or a random point from -0.5 to 1.5 along the line.
        redraw_noise: a second generator forward with fresh noise for the generator's step, as the authors do; otherwise
            both steps share one forward, which saves about a sixth of the step.
        label_smoothing: subtracted from the real target of the paper's own loss (0.1 in the port), the only one with
            targets.
        feature_matching_weight: weight of the squared distance between batch means of features (100 in the port).
        pixel_weight: weight of the mean absolute difference from the caption's own image (50 in the port).
        lr_decay: factor on the learning rate every ``lr_decay_every`` (100) epochs; the authors halve it.
        options: options of every model; see ``TextToImageGAN``.
    """

    generator: networks.Generator

    def __init__(
        self,
        *,
        architecture: Literal["residual", "dcgan", "light"] = "residual",
        light_discriminator: bool = False,
        projection_dim: Count = 128,
        generator_width: Count = 128,
        discriminator_width: Count = 64,
        large: bool = False,
        third_activation: bool = True,
        text_norm: bool = False,
        mismatch: Literal["text", "image"] = "text",
        mismatch_weight: Weight = 0.5,
        fake_weight: Weight | None = None,
        interpolation_weight: Weight = 0.0,
        interpolation: Literal["midpoint", "random"] = "midpoint",
        redraw_noise: bool = False,
        label_smoothing: Fraction = 0.0,
        feature_matching_weight: Weight = 0.0,
        pixel_weight: Weight = 0.0,
        lr_decay: Positive = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(lr_decay=lr_decay, **options)
        size = self.hparams["image_size"]
        check_image_size(size, 16)
        generator, dims = self.build_generator(), (self.text_encoder.dim, projection_dim, discriminator_width, size)
        if light_discriminator:
            self.set_networks(generator, networks.LightDiscriminator(*dims))
        elif architecture == "dcgan":
            self.set_networks(generator, networks.DCGANDiscriminator(*dims))
        else:
            self.set_networks(generator, networks.Discriminator(*dims, third_activation, text_norm))
        wrong = mismatch if mismatch_weight > 0 else None
        several = architecture == "dcgan" or text_norm or interpolation_weight > 0  # batch norm of vectors, or pairs
        least = 2 if several else self.needs.least
        self.needs = replace(self.needs, wrong_images=wrong == "image", wrong_text=wrong == "text", least=least)

    def check_training_options(self) -> None:
        """Raise where the discriminator would not learn from generated images; warn of options that do nothing."""
        super().check_training_options()
        options = self.hparams
        if options["fake_weight"] is None and options["mismatch_weight"] >= 1:
            raise T2IError(
                f"found --model.mismatch_weight {options['mismatch_weight']}, which leaves generated images no weight: "
                "give it below 1, or --model.fake_weight too, 1 in the PyTorch port"
            )
        own = options["architecture"] != "dcgan" and not (options["light_discriminator"] or options["projected"])
        idle = {
            "large": options["large"] and options["architecture"] == "dcgan",
            "third_activation": not (options["third_activation"] or own),
            "text_norm": options["text_norm"] and not own,
            "interpolation": options["interpolation"] == "random" and not options["interpolation_weight"],
        }
        if found := [f"--model.{name} {options[name]}" for name, nothing in idle.items() if nothing]:
            warnings.warn(f"{' and '.join(found)} does nothing with this model's other options", stacklevel=2)

    def fake(self, batch: Batch) -> Fakes:
        """One forward on the batch's sentences and, with GAN-INT, on B/2 between them: they share batch statistics."""
        text = batch["text"].sentence
        if self.hparams["interpolation_weight"] > 0:
            extrapolation = None
            if self.hparams["interpolation"] == "random":
                extrapolation = 2 * torch.rand(len(text) // 2, 1, generator=self.rng, device=text.device) - 1
            text = torch.cat([text, losses.interpolate(text, extrapolation)])
        return self.draw(self.generator, self.noise(len(text), self.rng), TextFeatures(text))

    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Real, mismatched and fake pairs, each normalised with its own batch statistics."""
        hparams, text = self.hparams, batch["text"].sentence
        images = self.observe(batch["images"], real=True)
        (real,), wrong = images.judge(text), None
        if hparams["mismatch_weight"] > 0 and hparams["mismatch"] == "text":
            (wrong,) = images.judge(self.encode_wrong(batch).sentence)
        elif hparams["mismatch_weight"] > 0:
            (wrong,) = self.observe(batch["wrong_images"], real=True).judge(text)
        drawn = [x[: len(text)] for x in fakes.images]  # the discriminator does not see GAN-INT's interpolated ones
        (fake,) = self.observe(drawn, real=False).judge(text)
        weights = {name: hparams[name] for name in ("mismatch_weight", "fake_weight", "label_smoothing")}
        return losses.discriminator_loss(real, wrong, fake, **weights, loss=self.adversarial)

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Adversarial loss on matched and interpolated sentences, and the port's two terms on request."""
        images, text, hparams = batch["images"][-1], batch["text"].sentence, self.hparams
        if hparams["redraw_noise"] and self.training:
            fakes = self.fake(batch)
        observed = self.observe(fakes.images, real=False)
        (fake,), (real,) = observed.judge(fakes.text.sentence), self.opponents(batch, text)
        weight = hparams["interpolation_weight"]
        terms = losses.generator_loss(fake, len(text), weight, real=real, loss=self.adversarial)
        if hparams["feature_matching_weight"] > 0:
            with torch.no_grad():
                seen = self.observe(batch["images"], real=True)
                target = seen.maps()
                if hparams["architecture"] == "dcgan":  # as the port: it moves the statistics of the text's batch norm
                    seen.judge(text)
            pairs = zip(target, observed.maps(), strict=True)
            terms["feature_matching"] = torch.stack([feature_matching(x, y[: len(text)]) for x, y in pairs]).mean()
            terms["loss"] = terms["loss"] + hparams["feature_matching_weight"] * terms["feature_matching"]
        if hparams["pixel_weight"] > 0:
            terms["pixel"] = F.l1_loss(fakes.images[-1][: len(text)].float(), images)
            terms["loss"] = terms["loss"] + hparams["pixel_weight"] * terms["pixel"]
        return terms
