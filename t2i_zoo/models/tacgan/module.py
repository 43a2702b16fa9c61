"""TAC-GAN.

Dash, Gamboa, Ahmed, Liwicki, Afzal: TAC-GAN - Text Conditioned Auxiliary Classifier Generative Adversarial Network,
2017, arXiv 1703.06412. Authors' code: dashayushman/TAC-GAN. Deviations, all in the card: mismatched images are always
of another class, the batch statistics of a sample come from 64 training captions alone, samples come from a moving
average of the weights, PyTorch's Adam, Pillow's resizing, all captions of an image, the last batch dropped.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from t2i_zoo.batch import Batch, BatchNeeds, Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.tacgan import losses, networks
from t2i_zoo.models.tacgan.drawing import CONTEXT, Half
from t2i_zoo.ranges import Count


class TACGAN(Half, TextToImageGAN):
    """GAN-CLS with a class head: the discriminator also predicts the class, and the generator learns to be recognised.

    Batch norm always takes the statistics of the batch, even in sampling. A caption alone would have other statistics
    than in training, and among others its image would depend on them. So, as the authors' script fills its batch with
    random training captions, ``draw`` in eval mode puts 64 of them (``context_sentence``) in front, and these alone
    decide the statistics. They are chosen when training starts and saved in the checkpoint.

    Args:
        num_classes: number C of classes, the same as in the data; Oxford-102 has 102.
        projection_dim: dimension of the projected sentence in both networks (``t_dim``; the README's command has 100).
        generator_width: channels before the generator's last layer (``gf_dim``).
        discriminator_width: unit of the discriminator's channels (``df_dim``).
        discriminator_widths: channels of the four convolutions and of the joint one, in that unit: a list of five,
            ``head`` (1, 2, 4, 8, 8), or ``paper_era`` (1, 8, 6, 6, 4), the code until after the paper.
        class_loss: C independent sigmoids, or one softmax over the classes.
        batch_stats: batch statistics ``always``, or running averages that are ``tracked`` in training and used for
            sampling.
        generator_steps: generator steps per batch, all with the same noise.
        options: options of every model; see ``TextToImageGAN``.
    """

    generator: networks.Generator
    needs = BatchNeeds(wrong_images=True, wrong_text=False)

    def __init__(
        self,
        *,
        num_classes: Count = 102,
        projection_dim: Count = 256,
        generator_width: Count = 64,
        discriminator_width: Count = 64,
        discriminator_widths: Literal["head", "paper_era"] | list[int] = "head",
        class_loss: losses.ClassLoss = "sigmoid",
        batch_stats: Literal["always", "tracked"] = "always",
        generator_steps: Count = 2,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        size, text_dim, tracked = self.hparams["image_size"], self.text_encoder.dim, batch_stats == "tracked"
        if size < 16 or size % 16:
            raise T2IError(f"found --model.image_size {size}, expected a multiple of 16, such as 128")
        multiples = discriminator_widths
        if isinstance(multiples, str):
            multiples = list(networks.DISCRIMINATOR_WIDTHS[multiples])
        if len(multiples) != 5 or min(multiples) < 1:
            raise T2IError(
                f"found --model.discriminator_widths {discriminator_widths}, expected head, paper_era, or "
                "five integers from 1, for four convolutions and the joint one"
            )
        self.generator_steps = generator_steps
        generator = self.build_generator()
        self.set_networks(
            generator,
            networks.Discriminator(
                text_dim, projection_dim, discriminator_width, multiples, num_classes, size, tracked
            ),
        )

    def on_fit_start(self) -> None:
        """Choose the training captions that decide the batch statistics of samples; a resumed run has its own."""
        super().on_fit_start()
        data = self.data_module
        if self.hparams["batch_stats"] == "always" and self._resumed_states is None and data is not None:
            captions = data.captions_of("train")
            chosen = torch.randint(len(captions), (CONTEXT,), generator=torch.Generator().manual_seed(0))
            self.context_sentence.copy_(self.encode([captions[i] for i in chosen.tolist()]).sentence)

    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Real, mismatched and fake pairs in three forwards, each normalised with its own batch statistics."""
        sentence = batch["text"].sentence
        (real,) = self.observe(batch["images"], real=True).judge(sentence)
        (wrong,) = self.observe(batch["wrong_images"], real=True).judge(sentence)
        (fake,) = self.observe(fakes.images, real=False).judge(sentence)
        labels, kind = (batch["labels"], batch["wrong_labels"]), self.hparams["class_loss"]
        return losses.discriminator_loss(real, wrong, fake, *labels, kind, self.adversarial)

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """How far the discriminator is from judging the images real, and of their caption's class."""
        sentence = fakes.text.sentence
        (fake,), (real,) = self.observe(fakes.images, real=False).judge(sentence), self.opponents(batch, sentence)
        kind = self.hparams["class_loss"]
        return losses.generator_loss(fake, batch["labels"], kind, real=real, loss=self.adversarial)
