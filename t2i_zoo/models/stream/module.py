"""STREAM: a network that writes captions, which MirrorGAN holds its pictures against.

Qiao, Zhang, Xu, Tao: MirrorGAN: Learning Text-to-image Generation by Redescription, 2019, arXiv 1903.05854, 3.3.
Authors' code: qiaott/MirrorGAN, which names yunjey/pytorch-tutorial for its training. Deviations, the card has the
reasons: captions are those of the GAN, without ``<start>``; their end is learned too, but not held against a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.text import BLEUScore

from t2i_zoo.batch import Batch, BatchNeeds
from t2i_zoo.errors import T2IError
from t2i_zoo.models import state
from t2i_zoo.models.serving import ServingModule
from t2i_zoo.models.stream import losses, networks
from t2i_zoo.paths import find_checkpoint
from t2i_zoo.text.vocabulary import Words, padded, plain_tokens
from t2i_zoo.vision import build_vision

_WRITTEN = 20  #: the most words of a caption that is written, as in the authors' code


class STREAM(ServingModule):
    """Trains a caption writer; ``--model.stream RUN`` gives it to a MirrorGAN.

    Args:
        backbone: what looks at pictures, as ``build_vision`` names it; MirrorGAN has ``torchvision:resnet152``.
        backbone_weights: of a torchvision network: ``pretrained`` fetches them once, ``random`` needs
            ``train_backbone``, anything else is the path of a state dict. A checkpoint holds them, and needs this no
            more.
        train_backbone: train the backbone too; the authors train what follows it alone.
        input_size: side in pixels that pictures are resized to; None takes the backbone's own, 224 of a ResNet.
        imagenet_norm: give the backbone ImageNet's mean and deviation, in the GAN too; the authors train with it and
            give it pictures in [-1, 1] in the GAN.
        batch_norm: of the backbone in training: ``train`` (the tutorial's) normalises by the batch and moves the
            running statistics even of a frozen one, ``eval`` leaves them alone.
        embed_dim: numbers of a word and of a picture's code.
        hidden_dim: units of the LSTM.
        max_words: the first words of a caption that are learned.
        vocabulary_size: the most frequent words that are kept, the end included; None keeps all.
        learn_end: also learn where captions end; without, a caption is always written to its limit.
        class_weight: of the cross-entropy of a linear classifier on the backbone's features, which teaches a random
            backbone to see; captions alone teach it little, and slowly. The authors have none.
        num_classes: of that classifier.
        learning_rate: of Adam.
        gradient_clip: largest norm of the gradient; None does not clip.
        weights: a run, a checkpoint or a converted file to start from, with its words.
    """

    use = "give its run to a MirrorGAN with --model.stream RUN"
    needs = BatchNeeds(references=True)
    parts = ("reader.", "writer.")
    starting_points = ("weights", "backbone_weights")

    def __init__(
        self,
        *,
        backbone: str = "torchvision:resnet152",
        backbone_weights: str | None = "pretrained",
        train_backbone: bool = False,
        input_size: int | None = None,
        imagenet_norm: bool = True,
        batch_norm: Literal["train", "eval"] = "train",
        embed_dim: int = 256,
        hidden_dim: int = 512,
        max_words: int = 18,
        vocabulary_size: int | None = None,
        learn_end: bool = True,
        class_weight: float = 0.0,
        num_classes: int | None = None,
        learning_rate: float = 1e-3,
        gradient_clip: float | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("max_words", max_words), ("embed_dim", embed_dim), ("hidden_dim", hidden_dim)):
            if value < 1:
                raise T2IError(f"found --model.{name} {value}, expected at least 1")
        if vocabulary_size is not None and vocabulary_size < 2:
            raise T2IError(f"found --model.vocabulary_size {vocabulary_size}, expected at least 2")
        if class_weight and num_classes is None:
            raise T2IError(
                "found --model.class_weight without --model.num_classes: set it to the data's number of classes"
            )
        if backbone_weights == "random" and not train_backbone and backbone.startswith("torchvision:"):
            raise T2IError(
                "found --model.backbone_weights random for a backbone that is not trained, and so would see nothing: "
                "set --model.train_backbone true, or give it weights"
            )
        self.save_hyperparameters()
        self.text_encoder = None
        if weights and backbone_weights == "pretrained":
            backbone_weights = None  # the file brings them
        network = build_vision(
            backbone,
            weights=None if backbone_weights == "pretrained" else backbone_weights or "random",
            input_size=input_size,
            normalize=imagenet_norm,
            align_corners=True,
            antialias=False,
            logits=False,
        )
        self.reader = networks.Reader(network, embed_dim, trained=train_backbone, still=batch_norm == "eval")
        self.writer = networks.Writer(vocabulary_size or 1, embed_dim, hidden_dim)
        self.class_head = nn.Linear(network.feature_dim, num_classes) if class_weight and num_classes else None
        self.known = Words()
        self._bleu: list[BLEUScore] = []  # in a list, so that it is no submodule
        self._scores: list[Tensor] = []
        if weights:
            self.know(state.read_words(weights))
            state.load_networks(self, find_checkpoint(weights), self.parts)

    def setup(self, stage: str) -> None:
        """Take the words of the training captions, unless a checkpoint brings its own."""
        super().setup(stage)
        data = self.data_module
        if stage == "fit" and not self.known.words:
            captions = data.captions_of("train") if data is not None else []
            if not captions:
                raise T2IError("found no training captions: give STREAM a CaptionDataModule whose source has some")
            self.know(Words.of_captions(captions, self.hparams["vocabulary_size"]).words)

    def know(self, words: Sequence[str]) -> None:
        """Take the words, and draw word table and output anew where their number changes."""
        self.known = Words(words)
        if len(self.known) != self.writer.embed.num_embeddings:
            self.writer.reset(len(self.known))

    def forward(self, images: Tensor, captions: Sequence[str], end: bool = True) -> tuple[Tensor, int, Tensor]:
        """Mean cross-entropy of the captions' words, the number of words, and the backbone's features (B, F).

        Args:
            images: (B, 3, S, S) in [-1, 1].
            captions: B texts; words that STREAM does not know are left out.
            end: whether the captions' ends count as words.
        """
        limit = self.hparams["max_words"]
        numbers, lengths = padded([self.known.numbers(caption)[:limit] for caption in captions])
        if end:
            numbers, lengths = F.pad(numbers, (0, 1)), lengths + 1
        features = self.reader.look(images)
        scores, words = self.writer(self.reader.code(features), numbers.to(self.device, non_blocking=True), lengths)
        return losses.caption_loss(scores, words), len(words), features

    def caption_loss(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """How unlikely captions are for pictures, as MirrorGAN's generator is taught: without the captions' ends."""
        loss: Tensor = self(images, captions, end=False)[0]
        return loss

    @torch.no_grad()
    def describe(self, images: Tensor, beam: int = 1, limit: int = _WRITTEN) -> list[str]:
        """Write a caption for each picture (B, 3, S, S) in [-1, 1].

        Args:
            images: any number of pictures.
            beam: captions kept at each word; 1 is greedy.
            limit: the most words.
        """
        training = self.training
        try:
            codes = self.eval().reader(images.to(self.device))
            rows = self.writer.write(codes, limit, min(beam, len(self.known)))
        finally:
            self.train(training)
        return [" ".join(self.known.words[number - 1] for number in row) for row in rows]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of the words and, where there is a classifier, of the classes."""
        loss: Tensor
        loss, count, features = self(batch["images"][-1], batch["captions"], self.hparams["learn_end"])
        self.log("train/loss", loss.detach(), batch_size=count)
        if self.class_head is not None:
            by_class = losses.class_loss(self.class_head(features), batch["labels"])
            self.log("train/class", by_class.detach(), batch_size=len(features))
            loss = loss + self.hparams["class_weight"] * by_class
        self.clock += 1
        return loss

    def evaluate(self, stage: str, batch: Batch) -> None:
        """Loss, and captions to compare with all captions of a picture."""
        loss, count, _ = self(batch["images"][-1], batch["captions"], self.hparams["learn_end"])
        self.log(f"{stage}/loss", loss, batch_size=count, sync_dist=True)
        self._scores.append(torch.stack([loss * count, torch.full_like(loss, count)]))
        if not self._bleu:
            self._bleu = [BLEUScore(n_gram=4).to(self.device)]
        references = [[" ".join(plain_tokens(caption)) for caption in row] for row in batch["references"]]
        self._bleu[0].update(self.describe(batch["images"][-1]), references)

    def summarise(self, stage: str) -> None:
        """Perplexity of a word, and BLEU-4 of greedy captions."""
        gathered: Any = self.all_gather(torch.stack(self._scores).sum(0))  # (2,), of several ranks (R, 2)
        total, count = gathered.reshape(-1, 2).sum(0)
        self.log(f"{stage}/perplexity", torch.exp(total / count))
        self.log(f"{stage}/bleu4", self._bleu[0].compute())  # sums over ranks itself
        self._scores.clear()
        self._bleu.clear()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One Adam for all that is trained."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.Adam(trained, self.hparams["learning_rate"])
