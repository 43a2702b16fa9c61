"""STREAM: a network that writes captions, by which MirrorGAN judges its images.

Qiao, Zhang, Xu, Tao: MirrorGAN: Learning Text-to-image Generation by Redescription, 2019, arXiv 1903.05854, 3.3.
Authors' code: qiaott/MirrorGAN, which names yunjey/pytorch-tutorial for its training. Deviations, the card has the
reasons: captions are those of the GAN, without ``<start>``; their end is learned too, but does not count in the GAN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.text import BLEUScore

from t2i_zoo.batch import Batch, BatchNeeds
from t2i_zoo.models import state
from t2i_zoo.models.serving import ServingModule, check_class_weight
from t2i_zoo.models.stream import losses, networks
from t2i_zoo.paths import find_weights
from t2i_zoo.ranges import Count, Positive, Several, Weight, Whole
from t2i_zoo.text.vocabulary import Words, padded
from t2i_zoo.vision import build_vision, check_backbone
from t2i_zoo.vision.on_backbone import initial_weights

_WRITTEN = 20  #: the most words of a caption that is written, as in the authors' code


class STREAM(ServingModule):
    """Trains a caption writer; ``--model.stream RUN`` gives it to a MirrorGAN.

    Args:
        backbone: image network, as ``build_vision`` names it; MirrorGAN has ``torchvision:resnet152``, and
            ``efficientnet_lite0``, which stays frozen, has its weights from the extra ``projected``.
        backbone_weights: of a torchvision network: ``pretrained`` downloads them once, ``random`` needs
            ``train_backbone``, anything else is the path of a state dict. A checkpoint contains them and no longer
            needs this option.
        train_backbone: train the backbone too; the authors train only the layers on it.
        input_size: side in pixels that images are resized to; None is the backbone's own, 224 of a ResNet.
        imagenet_norm: normalise the backbone's input by ImageNet's mean and deviation, in the GAN too; the authors
            train with it and give the backbone images in [-1, 1] in the GAN.
        batch_norm: of the backbone in training: ``train`` (the tutorial's) normalises by the batch and moves the
            running statistics even of a frozen backbone, ``eval`` leaves them alone.
        embed_dim: dimension of a word and of an image's code.
        hidden_dim: units of the LSTM.
        max_words: the first words of a caption that are learned.
        vocabulary_size: the most frequent words that are kept, the end included; None keeps all.
        ascii_words: split captions as the authors do, and keep only the ASCII characters of a word; published
            vocabularies need it, and converted files have it on.
        learn_end: also learn where captions end; otherwise a caption is always written to its limit.
        class_weight: of the cross-entropy of a linear classifier on the backbone's features, which teaches a random
            backbone to see; captions alone teach it little, and slowly. The authors have none.
        num_classes: of that classifier.
        learning_rate: of Adam.
        gradient_clip: largest norm of the gradient; None does not clip.
        weights: a run, a checkpoint or a converted file to start from, with its words.
    """

    use = "give its run to a MirrorGAN with --model.stream RUN"
    needs = BatchNeeds(references=True, wrong_text=False, least=2)
    parts = ("reader.", "writer.")
    starting_points = ("weights", "backbone_weights")

    def __init__(
        self,
        *,
        backbone: str = "torchvision:resnet152",
        backbone_weights: str | None = "pretrained",
        train_backbone: bool = False,
        input_size: Whole | None = None,
        imagenet_norm: bool = True,
        batch_norm: Literal["train", "eval"] = "train",
        embed_dim: Count = 256,
        hidden_dim: Count = 512,
        max_words: Count = 18,
        vocabulary_size: Several | None = None,
        ascii_words: bool = False,
        learn_end: bool = True,
        class_weight: Weight = 0.0,
        num_classes: Count | None = None,
        learning_rate: Weight = 1e-3,
        gradient_clip: Positive | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_class_weight(self.hparams)
        check_backbone(backbone, backbone_weights, train_backbone, bool(weights))
        network = build_vision(
            backbone,
            weights=initial_weights(backbone_weights, bool(weights)),
            input_size=input_size,
            normalize=imagenet_norm,
            align_corners=True,
            antialias=False,
            logits=False,
        )
        self.reader = networks.Reader(network, embed_dim, trained=train_backbone, still=batch_norm == "eval")
        self.writer = networks.Writer(vocabulary_size or 1, embed_dim, hidden_dim)
        self.add_class_head(network.feature_dim)
        self.known = Words(ascii_only=ascii_words)
        self._loss, self._bleu = MeanMetric(), BLEUScore(n_gram=4)
        if weights:
            self.know(state.read_words(weights))
            state.load_networks(self, find_weights(weights), self.parts)

    def setup(self, stage: str) -> None:
        """Take the words of the training captions, unless a checkpoint brings its own."""
        super().setup(stage)
        if stage == "fit" and not self.known.words:
            limits = self.hparams["vocabulary_size"], self.hparams["ascii_words"]
            self.know(Words.of_captions(self.training_captions(), *limits).words)

    def know(self, words: Sequence[str]) -> None:
        """Take the words; if their number changes, word table and output begin with new initial values."""
        self.known = Words(words, self.hparams["ascii_words"])
        if len(self.known) != self.writer.embed.num_embeddings:
            self.writer.reset(len(self.known))

    def forward(self, images: Tensor, captions: Sequence[str], end: bool = True) -> tuple[Tensor, int, Tensor]:
        """Mean cross-entropy of the captions' words, the number of words, and the backbone's features (B, F).

        Args:
            images: (B, 3, S, S) in [-1, 1].
            captions: B texts; words that STREAM does not know are left out.
            end: whether the captions' ends count as words; those that ``max_words`` cuts off do not.
        """
        limit = self.hparams["max_words"]
        every = [self.known.numbers(caption) for caption in captions]
        numbers, lengths = padded([each[:limit] for each in every])
        if end:  # of a caption that was not cut
            whole = torch.tensor([len(each) <= limit for each in every])
            numbers, lengths = F.pad(numbers, (0, 1)), lengths + whole
        features = self.reader.see(images).features
        scores, words = self.writer(self.reader.code(features), numbers.to(self.device, non_blocking=True), lengths)
        return losses.caption_loss(scores, words), len(words), features

    def caption_loss(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """How unlikely captions are for images, as MirrorGAN's generator learns it: without the captions' ends."""
        loss: Tensor = self(images, captions, end=False)[0]
        return loss

    def describe(self, images: Tensor, beam: int = 1, limit: int = _WRITTEN) -> list[str]:
        """Write a caption for each image (B, 3, S, S) in [-1, 1], in eval mode.

        Args:
            images: any number of images.
            beam: captions kept at each word; 1 is greedy.
            limit: the most words.
        """
        with self.evaluating():
            codes = self.reader(images.to(self.device))
            rows = self.writer.write(codes, limit, min(beam, len(self.known)))
        return [" ".join(self.known.words[number - 1] for number in row) for row in rows]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of the words and, if there is a classifier, of the classes."""
        loss: Tensor
        loss, count, features = self(batch["images"][-1], batch["captions"], self.hparams["learn_end"])
        self.log("train/loss", loss.detach(), batch_size=count)
        if self.class_head is not None:
            by_class = losses.class_loss(self.class_head(features), batch["labels"])
            self.log("train/class", by_class.detach(), batch_size=len(features))
            loss = loss + self.hparams["class_weight"] * by_class
        return self.count_batch(loss)

    def evaluate(self, stage: str, batch: Batch) -> None:
        """Log the loss, and compare written captions with all captions of an image."""
        loss, count, _ = self(batch["images"][-1], batch["captions"], self.hparams["learn_end"])
        self.log(f"{stage}/loss", loss, batch_size=count, sync_dist=True)
        self._loss.update(loss, count)
        references = [[" ".join(self.known.tokens(caption)) for caption in row] for row in batch["references"]]
        self._bleu.update(self.describe(batch["images"][-1]), references)

    def summarise(self, stage: str) -> None:
        """Log the perplexity of a word, and BLEU-4 of greedy captions; both sum over ranks themselves."""
        self.log(f"{stage}/perplexity", self._loss.compute().exp())
        self.log(f"{stage}/bleu4", self._bleu.compute())
        self._loss.reset()
        self._bleu.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One Adam for all that is trained."""
        return torch.optim.Adam(self.trained_parameters(), self.hparams["learning_rate"])
