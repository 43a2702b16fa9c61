"""DAMSM: words and regions, sentences and images in one space; the STEM of MirrorGAN is its text encoder.

Xu, Zhang, Huang, Zhang, Gan, Huang, He: AttnGAN: Fine-Grained Text to Image Generation with Attentional Generative
Adversarial Networks, 2018, arXiv 1711.10485, section 3.2. Authors' code: taoxugit/AttnGAN, ``pretrain_DAMSM.py``, which
is what this follows; the paper has gamma 1 = 5 and batches of 50. Deviations are listed in the card.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from t2i_zoo.batch import Batch
from t2i_zoo.errors import T2IError
from t2i_zoo.models import state
from t2i_zoo.models.damsm import losses, networks
from t2i_zoo.models.serving import RetrievalModule, check_class_weight
from t2i_zoo.nn.retrieval import retrieval
from t2i_zoo.paths import find_weights
from t2i_zoo.ranges import Count, Fraction, Positive, Several, Weight, Whole
from t2i_zoo.text import TextFeatures
from t2i_zoo.text.rnn import Kind, RNNNetwork
from t2i_zoo.text.vocabulary import Words, padded, random_subset
from t2i_zoo.vision import build_vision, check_backbone
from t2i_zoo.vision.on_backbone import initial_weights


class DAMSM(RetrievalModule):
    """Trains both encoders; ``text_encoder: {kind: rnn, path: RUN}`` reads captions with it in a GAN.

    Args:
        backbone: image network: ``torchvision:NAME``, or one that stays frozen: ``efficientnet_lite0``, whose weights
            come with the extra ``projected``, or ``file:PATH``, which is needed again whenever the model is loaded.
        backbone_weights: of a torchvision network: ``pretrained`` downloads them once, ``random`` needs
            ``train_backbone``, anything else is the path of a state dict. A checkpoint contains them and no longer
            needs this option.
        train_backbone: train the backbone too; the authors train the projections alone.
        batch_norm: of the backbone in training; ``train`` (the authors') normalises by the batch and moves the running
            statistics even of a frozen backbone, ``eval`` leaves them alone.
        layer: of the backbone, whose output is the map of regions; None is ``Mixed_6e`` of Inception-v3, and the last
            map of any other network.
        input_size: side that images are resized to; None is the backbone's own (Inception-v3: 299), 0 does not resize.
        align_corners: of the resize, as in the PyTorch version that the published weights were trained with.
        dim: D, the dimension of words, sentences, regions and images.
        word_dim: dimension of a word in the word table.
        rnn: kind of the recurrent layer.
        text_dropout: on the rows of the word table, in training.
        vocabulary_size: the most rows of the word table, including that of ``<end>``; None keeps all words.
        vocabulary_of: ``all`` takes the words of all captions, including test captions (the authors'), whose own words
            keep their initial values; ``train`` leaves them out, as any unknown word.
        ascii_words: split captions as the authors do, and keep only the ASCII characters of a word; published
            vocabularies need it, and converted files have it on.
        max_words: words of one caption; of longer ones, training draws a random subset in each batch, and everything
            else reads the first words.
        gamma1, gamma2, gamma3: of the matching losses; see ``t2i_zoo.nn.damsm.words_loss``.
        caption_chunk: captions at a time in the loss, for large batches; see there.
        class_weight: of the cross-entropy of a linear classifier on the backbone's features, which teaches a random
            backbone the classes of the data; the authors have none.
        num_classes: of that classifier.
        learning_rate: of Adam with betas 0.5 and 0.999.
        lr_decay: factor on the learning rate after each epoch, while it is above ``min_learning_rate``.
        min_learning_rate: see ``lr_decay``; the authors' is a tenth of ``learning_rate``.
        persistent_optimizer: keep Adam's moments from epoch to epoch; the authors make a new optimizer in each epoch.
        rnn_clip: largest norm of the text encoder's gradient; None does not clip. Nothing else is clipped.
        weights: a run, a checkpoint or a converted file to start from, with its words.
    """

    use = "give its run to a GAN with --model.text_encoder '{kind: rnn, path: RUN}'"

    def __init__(
        self,
        *,
        backbone: str = networks.INCEPTION,
        backbone_weights: str | None = "pretrained",
        train_backbone: bool = False,
        batch_norm: Literal["train", "eval"] = "train",
        layer: str | None = None,
        input_size: Whole | None = None,
        align_corners: bool = True,
        dim: Count = 256,
        word_dim: Count = 300,
        rnn: Kind = "lstm",
        text_dropout: Fraction = 0.5,
        vocabulary_size: Several | None = None,
        vocabulary_of: Literal["all", "train"] = "all",
        ascii_words: bool = False,
        max_words: Count = 18,
        gamma1: Weight = 4.0,
        gamma2: Weight = 5.0,
        gamma3: Weight = 10.0,
        caption_chunk: Count | None = None,
        class_weight: Weight = 0.0,
        num_classes: Count | None = None,
        learning_rate: Weight = 2e-3,
        lr_decay: Positive = 0.98,
        min_learning_rate: Weight = 2e-4,
        persistent_optimizer: bool = False,
        rnn_clip: Positive | None = 0.25,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        _check(self.hparams)
        self.known = Words(ascii_only=ascii_words)
        self.text_network = RNNNetwork(vocabulary_size or 1, word_dim, dim, rnn, text_dropout)
        eyes = build_vision(
            backbone,
            weights=initial_weights(backbone_weights, bool(weights)),
            layer=networks.INCEPTION_REGIONS if layer is None and backbone == networks.INCEPTION else layer,
            input_size=input_size,
            align_corners=align_corners,
            antialias=False,
            logits=False,
        )
        self.image_network = networks.ImageEncoder(eyes, dim, trained=train_backbone, still=batch_norm == "eval")
        self.add_class_head(eyes.feature_dim)
        if weights:
            if words := state.read_words(weights):
                self.know(words)
            state.load_networks(self, find_weights(weights), self.parts)

    def know(self, words: Sequence[str]) -> None:
        """Take the words, and give the word table a row for each."""
        self.known = Words(words, self.hparams["ascii_words"])
        self.text_network.resize_words(len(self.known))

    def setup(self, stage: str) -> None:
        """Take the words of the captions, unless a checkpoint brought its own."""
        super().setup(stage)
        if stage == "fit" and not self.known.words:
            captions = self.training_captions()
            if self.hparams["vocabulary_of"] == "all" and self.data_module is not None:
                captions = captions + self.data_module.captions_of("val") + self.data_module.captions_of("test")
            limits = self.hparams["vocabulary_size"], self.hparams["ascii_words"]
            self.know(Words.of_captions(captions, *limits).words)

    # Encoding -------------------------------------------------------------------------------------------------------

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Regions (B, D, H, W) and codes (B, D) of images (B, 3, S, S) in [-1, 1]; gradients reach them."""
        regions, codes, _ = self.image_network(images)
        return regions, codes

    def read(self, captions: Sequence[str]) -> TextFeatures:
        """Sentences (B, D), words (B, T, D) and mask (B, T) of captions, with gradients.

        In training mode, captions that are longer than ``max_words`` lose words at random.
        """
        limit = self.hparams["max_words"]
        rows = [self.known.numbers(caption) for caption in captions]
        numbers, lengths = padded([random_subset(row, limit) if self.training else row[:limit] for row in rows])
        mask = torch.arange(numbers.shape[1]) < lengths[:, None]
        words, sentence = self.text_network(numbers.to(self.device, non_blocking=True), lengths)
        return TextFeatures(sentence, words, mask.to(self.device, non_blocking=True))

    def image_codes(self, images: Tensor) -> Tensor:
        """Codes (B, D) float32 of images (B, 3, S, S) in [-1, 1], in eval mode; compare them by their cosine."""
        with self.evaluating():
            return self.features(images.to(self.device))[1].float()

    def sentence_codes(self, captions: Sequence[str]) -> Tensor:
        """Sentence embeddings (B, D) float32 of captions, in eval mode; compare them by their cosine."""
        with self.evaluating():
            return self.read(captions).sentence.float()

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Losses of a batch with their sum ``"loss"``, codes (B, D), and sentence embeddings (B, D).

        Reads ``images``, ``captions`` and, if there are any, ``labels``. Words become numbers here, on the host.
        """
        regions, codes, features = self.image_network(batch["images"][-1])
        text, labels = self.read(batch["captions"]), batch.get("labels")
        gammas = (self.hparams["gamma1"], self.hparams["gamma2"], self.hparams["gamma3"])
        found = losses.matching_loss(regions, codes, text, labels, gammas, self.hparams["caption_chunk"])
        self.add_class_loss(found, features, labels)
        return found, codes, text.sentence

    # Training -------------------------------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Begin each epoch with a fresh Adam, as the authors do."""
        super().on_train_batch_start(batch, batch_idx)
        if batch_idx == 0 and not self.hparams["persistent_optimizer"]:
            self.trainer.optimizers[0].state.clear()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the text encoder alone, as the authors do."""
        if limit := self.hparams["rnn_clip"]:
            nn.utils.clip_grad_norm_(self.text_network.parameters(), limit)

    def configure_optimizers(self) -> Any:
        """Adam for all that is trained, with a learning rate that falls after each epoch."""
        rate, least, decay = (self.hparams[key] for key in ("learning_rate", "min_learning_rate", "lr_decay"))
        falls = None  # how many times; for ever without a least rate
        if least > 0 and decay < 1:
            falls = math.ceil(math.log(least / rate) / math.log(decay)) if rate > least else 0
        adam = torch.optim.Adam(self.trained_parameters(), rate, betas=(0.5, 0.999))
        falling = torch.optim.lr_scheduler.LambdaLR(
            adam, lambda epoch: decay ** (epoch if falls is None else min(epoch, falls))
        )
        return {"optimizer": adam, "lr_scheduler": {"scheduler": falling, "interval": "epoch"}}

    # Evaluation -----------------------------------------------------------------------------------------------------

    def retrieval(self, codes: Tensor, sentences: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Recall at one in both directions, and R-precision."""
        return retrieval(codes, sentences, labels)


def _check(options: Any) -> None:
    """Raise for options out of their range."""
    if options["dim"] < 2 or options["dim"] % 2:
        raise T2IError(f"found --model.dim {options['dim']}, expected an even number, half for each direction")
    if options["rnn"] not in ("lstm", "gru"):
        raise T2IError(f"found --model.rnn {options['rnn']}, expected lstm or gru")
    check_class_weight(options)
    backbone, weights = options["backbone"], options["backbone_weights"]
    if not backbone.startswith(("torchvision:", "file:")) and backbone != "efficientnet_lite0":
        raise T2IError(f"found --model.backbone {backbone}, expected torchvision:NAME, efficientnet_lite0 or file:PATH")
    check_backbone(backbone, weights, options["train_backbone"], bool(options["weights"]))
