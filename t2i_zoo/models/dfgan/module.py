"""DF-GAN.

Tao, Tang, Wu, Jing, Bao, Xu: DF-GAN: A Simple and Effective Baseline for Text-to-Image Synthesis, 2022, arXiv
2008.05865. Authors' code: tobran/DF-GAN. Deviations, all in the card: the gradient penalty has a forward pass of its
own, a moving average of the generator, the text encoder's cached embeddings.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from t2i_zoo.batch import Batch, BatchNeeds, Fakes
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.checks import check_image_size
from t2i_zoo.models.dfgan import losses, networks
from t2i_zoo.models.dfgan.drawing import Half
from t2i_zoo.nn import discriminator_loss, generator_loss, of_other_classes
from t2i_zoo.ranges import Count, Fraction, Weight


class DFGAN(Half, TextToImageGAN):
    """DF-GAN; defaults are those of the authors' ``bird.yml``, except the moving average.

    The matching-aware penalty (``matching_penalty`` 2, ``matching_power`` 6) is on by default, in the discriminator's
    own step or, in the preprint's code, in a step after it.

    Args:
        variant: ``cvpr`` is the paper as published and the released weights, ``preprint`` the authors' code of 2020.
        image_size: side S of the images, a power of two of at least 16.
        generator_width: channels of the generator at the largest size (``nf``).
        discriminator_width: channels of the discriminator at the largest size (``nf``).
        exclude_same_class: leave those mismatched pairs out of the mean whose image and sentence are of one class.
        learning_rate: of the generator's Adam.
        discriminator_learning_rate: of the discriminator's Adam.
        beta1: Adam's first-moment decay.
        beta2: Adam's second-moment decay.
        options: what every model takes; see ``TextToImageGAN``.
    """

    generator: networks.Generator
    own_loss = "hinge"
    own_matching_penalty = 2.0
    needs = BatchNeeds(wrong_text=False)

    def __init__(
        self,
        *,
        variant: networks.Variant = "cvpr",
        image_size: Count = 256,
        generator_width: Count = 32,
        discriminator_width: Count = 32,
        exclude_same_class: bool = False,
        learning_rate: Weight = 1e-4,
        discriminator_learning_rate: Weight | None = 4e-4,
        beta1: Fraction = 0.0,
        beta2: Fraction = 0.9,
        **options: Any,
    ) -> None:
        self.own_penalty_step = "separate" if variant == "preprint" else "joint"
        super().__init__(
            image_size=image_size,
            learning_rate=learning_rate,
            discriminator_learning_rate=discriminator_learning_rate,
            beta1=beta1,
            beta2=beta2,
            **options,
        )
        check_image_size(image_size, 16)
        generator = self.build_generator()
        self.set_networks(
            generator, networks.Discriminator(self.text_encoder.dim, discriminator_width, image_size, variant)
        )

    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Real, mismatched and fake pairs with the weights 1, 1/2 and 1/2."""
        sentence, options = batch["text"].sentence, self.hparams
        images = self.observe(batch["images"], real=True)
        (real,) = images.judge(sentence)
        wraps = options["variant"] == "cvpr"
        rows, others = losses.mismatched_pairs(len(sentence), wraps=wraps, device=sentence.device)
        (wrong,) = images.judge(sentence[others], rows)
        keep = of_other_classes(batch["labels"], rows, others) if options["exclude_same_class"] else None
        (fake,) = self.observe(fakes.images, real=False).judge(sentence)
        return discriminator_loss(real, wrong, fake, keep=keep, against=real.rows(rows), loss=self.adversarial)

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Minus the mean logit of the generated images with their sentences."""
        sentence = fakes.text.sentence
        (fake,), (real,) = self.observe(fakes.images, real=False).judge(sentence), self.opponents(batch, sentence)
        return {"loss": generator_loss(fake, real, self.adversarial)}
