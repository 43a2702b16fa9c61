"""What a trained text-to-image model does: encode captions, draw noise and generate images.

This needs torch alone: an exported generator is drawn without Lightning, whose import takes longer than the images.
Each model's half of it is in its own ``drawing`` module, its training in ``module``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from t2i_zoo.batch import Batch, BatchNeeds, Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.nn import PyramidGenerator, split_noise
from t2i_zoo.pictures import interpolate_noise, to_pil
from t2i_zoo.text import TextEncoder, TextFeatures, words_of
from t2i_zoo.text.tokens import split_formerly


class CaptionReader:
    """What every model knows about words: those that its text encoder reads, and those of its training captions.

    Attributes:
        text_encoder: the frozen encoder whose features the data module caches, or None.
        needs: what the model reads of a batch; a model whose options decide it replaces it in ``__init__``.
        clock: batches that this model was trained on.
        vocabulary: every word of its training captions.
    """

    text_encoder: TextEncoder | None
    needs: BatchNeeds = BatchNeeds()
    clock: int
    vocabulary: frozenset[str]

    def unknown_words(self, caption: str) -> list[str]:
        """Words of a caption that the encoder does not know or that no training caption contains."""
        unknown = self.text_encoder.unknown_words(caption) if self.text_encoder is not None else []
        return list(dict.fromkeys([*unknown, *self.unseen_words(caption)]))

    def unseen_words(self, caption: str) -> list[str]:
        """Words of a caption that no training caption contains; none where the training captions are not known."""
        words = words_of(caption, split_formerly(self.vocabulary))
        return [word for word in dict.fromkeys(words) if self.vocabulary and word not in self.vocabulary]

    def remember(self, vocabulary: Iterable[str]) -> None:
        """Take over the words of a file's training captions; they tell how the text encoder split captions."""
        self.vocabulary = frozenset(vocabulary)
        if self.text_encoder is not None:
            self.text_encoder.former_words = split_formerly(self.vocabulary)


class Drawing(CaptionReader):
    """The drawing half of a GAN; a subclass builds its generator, and overrides what differs in its paper.

    It is mixed into an ``nn.Module`` that has hyperparameters and a device.
    """

    text_encoder: TextEncoder
    generator: nn.Module
    generator_ema: nn.Module
    hparams: Any  #: the options of the model by name
    device: Any
    attends = False  #: whether ``sampled`` returns attention over words
    text_is_optional = False  #: whether the model can sample from noise alone, with ``text_encoder: none``
    noise_is_normal = True  #: whether the noise is standard normal, so that it can be truncated

    def build_generator(self) -> nn.Module:
        """The generator that the options describe, with initial weights."""
        raise NotImplementedError

    def chosen(self, *names: str) -> list[Any]:
        """The values of options, in this order."""
        return [self.hparams[name] for name in names]

    def prepare_drawing(self) -> None:
        """Register the buffers that ``draw`` reads beside the generator's, if there are any."""

    @property
    def total_noise_dim(self) -> int:
        """Dimension of all noise of a sample: z and, after it, that of conditioning augmentation."""
        found: int = self.hparams["noise_dim"]
        return found

    def draw(self, network: nn.Module, noise: Tensor, text: TextFeatures) -> Fakes:
        """Run a generator; papers with other inputs than noise and sentence, or several images, override it."""
        return Fakes([network(noise, text.sentence)], text, {}, noise)

    @property
    def conditional(self) -> bool:
        """Whether images follow captions: not with ``text_encoder: none``."""
        return self.text_encoder.dim > 0

    def encode(self, captions: Sequence[str] | Batch) -> TextFeatures:
        """Features of captions, or of a batch, whose cached features are used if there are any."""
        if isinstance(captions, dict):
            cached: TextFeatures | None = captions.get("text")
            return cached if cached is not None else self.encode(captions["captions"])
        if isinstance(captions, str):
            raise T2IError('found one string, expected a list of captions: write ["a red flower"]')
        return self.text_encoder.encode(list(captions), words=self.needs.words)

    def encode_wrong(self, batch: Batch) -> TextFeatures:
        """Features of the mismatched captions of a batch."""
        cached = batch.get("wrong_text")
        return cached if cached is not None else self.encode(batch["wrong_captions"])

    def noise(self, count: int, rng: torch.Generator | None = None, move: bool = True) -> Tensor:
        """Standard normal noise (count, ``total_noise_dim``) on the model's device; training passes its ``rng``.

        Everything random in a sample is drawn here, so that it can be repeated: the noise vector z and, in papers with
        conditioning augmentation, the noise of that after it. Without ``move`` it stays on the device of ``rng``.
        """
        source = rng.device if rng is not None else self.device
        noise = torch.randn(count, self.total_noise_dim, generator=rng, device=source)
        return noise.to(self.device) if move else noise

    def noise_path(self, steps: int, rng: torch.Generator | None = None) -> Tensor:
        """Noise (steps, ``total_noise_dim``) on the CPU on a path between two draws, both ends included."""
        first, second = self.noise(2, rng).cpu()
        return interpolate_noise(first, second, steps)

    def generate(
        self,
        captions: Sequence[str] | TextFeatures,
        *,
        noise: Tensor | None = None,
        rng: torch.Generator | None = None,
        ema: bool = True,
    ) -> Tensor:
        """Generate one image per caption: (B, 3, S, S) in [-1, 1], float32, on the model's device.

        Args:
            captions: B sentences, or their features.
            noise: (B, ``total_noise_dim``) as ``noise`` returns it; drawn by default.
            rng: source of the noise; a CPU generator gives the same noise on every device.
            ema: use the moving average of the weights; False uses the live generator (in eval mode).
        """
        return self.sampled(captions, noise=noise, rng=rng, ema=ema).images[-1].float()

    def forward(self, captions: str | Sequence[str], n: int = 1, seed: int | None = None) -> Any:
        """Draw: ``model("a pink flower", n=4, seed=0)``. For tensors, and with noise of your own, see ``generate``.

        Args:
            captions: one caption, or several.
            n: images for each.
            seed: of the noise, which all captions share; the same seed draws the same images as ``t2i-zoo sample``.

        Returns:
            ``n`` PIL images, or for several captions a list of such lists.

        Raises:
            T2IError: if ``n`` is not positive.
        """
        if n < 1:
            raise T2IError(f"found n={n}, expected an integer from 1")
        noise = self.noise(n, None if seed is None else torch.Generator().manual_seed(seed))
        several = [captions] if isinstance(captions, str) else captions
        rows = [to_pil(self.generate([caption] * n, noise=noise)) for caption in several]
        return rows[0] if isinstance(captions, str) else rows

    @torch.no_grad()
    def sampled(
        self,
        captions: Sequence[str] | TextFeatures,
        *,
        noise: Tensor | None = None,
        rng: torch.Generator | None = None,
        ema: bool = True,
    ) -> Fakes:
        """All outputs of a generator in eval mode, such as images of every size and attention; see ``generate``."""
        text = captions if isinstance(captions, TextFeatures) else self.encode(captions)
        text = TextFeatures(*(None if part is None else part.to(self.device) for part in text))  # type: ignore[arg-type]
        wanted = (len(text.sentence), self.total_noise_dim)
        if noise is not None and noise.shape != wanted:
            raise T2IError(
                f"found noise of shape {tuple(noise.shape)}, expected {wanted}: draw it with "
                f"model.noise({len(text.sentence)})"
            )
        noise = self.noise(len(text.sentence), rng) if noise is None else noise.to(self.device)
        network = self.generator_ema if ema else self.generator
        kind = next((p.dtype for p in network.parameters()), torch.float32)  # half precision after ``half()``
        noise = noise.to(kind)
        text = TextFeatures(*(x.to(kind) if x is not None and x.is_floating_point() else x for x in text))  # type: ignore[arg-type]
        was_training = network.training
        try:
            return self.draw(network.eval(), noise, text)
        finally:
            network.train(was_training)


class PyramidDrawing(Drawing):
    """The drawing half of models with a ``PyramidGenerator``; a subclass describes its stages.

    Attributes:
        generator: live.
        generator_ema: averaged.
    """

    generator: PyramidGenerator
    generator_ema: PyramidGenerator

    @property
    def condition_dim(self) -> int:
        """C of the augmented condition; 0 without text."""
        return self.hparams["condition_dim"] if self.conditional else 0

    @property
    def total_noise_dim(self) -> int:
        """Dimension of z and, after it, of conditioning augmentation's noise."""
        found: int = self.hparams["noise_dim"] + self.condition_dim
        return found

    @property
    def branch_sizes(self) -> list[int]:
        """Sides of the maps of all branches, smallest first."""
        return [self.hparams["image_size"] >> i for i in reversed(range(self.hparams["branches"]))]

    def widths(self) -> list[int]:
        """Channels of the generator's features at each size."""
        return [self.hparams["generator_width"]] * self.hparams["branches"]

    def stages(self) -> list[nn.Module]:
        """The generator's further stages, as ``PyramidGenerator`` describes them."""
        raise NotImplementedError

    def build_generator(self) -> nn.Module:
        """A ``PyramidGenerator`` with these stages."""
        options = self.hparams
        dims = (self.text_encoder.dim, options["noise_dim"], options["condition_dim"])
        only, checkpointing = options.get("last_only", False), options["gradient_checkpointing"]
        stages = self.stages()
        return PyramidGenerator(
            *dims, self.widths(), self.branch_sizes[0], stages, last_only=only, checkpointing=checkpointing
        )

    def draw(self, network: nn.Module, noise: Tensor, text: TextFeatures) -> Fakes:
        """Images of every size; the last ``condition_dim`` columns of the noise are conditioning augmentation's."""
        augment = network.training or self.hparams["sampling_noise"]
        z, augmentation = split_noise(noise, [self.hparams["noise_dim"], self.condition_dim], augment=augment)
        words = (text.words, text.mask) if self.needs.words else ()
        images, extras = network(z, text.sentence, augmentation, *words)
        return Fakes(images, text, extras, noise)


class AttentiveDrawing(PyramidDrawing):
    """The drawing half of AttnGAN, MirrorGAN and DM-GAN, whose stages differ.

    Attributes:
        stage: class of a further stage, made from the dimension of the words and the options ``stage_options``.
    """

    needs = BatchNeeds(words=True, wrong_words=False, least=2)
    attends = True
    stage: type[nn.Module]
    stage_options: tuple[str, ...] = ("generator_width", "residual_blocks", "legacy_mask")

    def stages(self) -> list[nn.Module]:
        """One of the same kind for each size after the first."""
        options = self.chosen(*self.stage_options)
        return [self.stage(self.text_encoder.word_dim, *options) for _ in self.branch_sizes[1:]]
