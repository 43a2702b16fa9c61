"""char-CNN-RNN: captions, character by character, in the space of picture features; GAN-CLS and StackGAN read with it.

Reed, Akata, Schiele, Lee: Learning Deep Representations of Fine-grained Visual Descriptions, 2016, arXiv 1605.05395.
Authors' code: reedscot/cvpr2016, whose training this follows, and reedscot/icml2016, which has the second network.
Deviations are listed in the card.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from t2i_zoo.batch import Batch
from t2i_zoo.errors import T2IError
from t2i_zoo.models import state
from t2i_zoo.models.charcnnrnn import losses, networks
from t2i_zoo.models.serving import RetrievalModule
from t2i_zoo.paths import find_checkpoint
from t2i_zoo.text.char_cnn_rnn_network import CharCNNRNNNetwork, Variant, numbers_of


class CharCNNRNN(RetrievalModule):
    """Trains the text encoder; ``text_encoder: {kind: char_cnn_rnn, path: RUN}`` reads captions with it in a GAN.

    Args:
        variant: ``rnn``, the authors' network for flowers, or ``gru``, theirs for COCO and, as its name says, birds.
        cnn_dim: units of the recurrent layer; None is the authors', 256 of ``rnn`` and 512 of ``gru``.
        dim: D, numbers of a caption, and of a picture.
        first_channels, second_channels: of the first two convolutions over characters.
        lowercase: take capital letters for small ones; the authors see nothing in their place.
        backbone: picture network: ``torchvision:NAME``, or ``file:PATH``, which stays frozen and must stay where it is.
        backbone_weights: of a torchvision network: ``pretrained`` fetches them once, ``random`` needs
            ``train_backbone``, anything else is the path of a state dict. A checkpoint holds them, and needs this no
            more.
        train_backbone: train the backbone too; the authors' picture features are fixed.
        input_size: side that pictures are resized to; None is the backbone's own (GoogLeNet: 224), 0 leaves them.
        image_projection: train a linear layer between features and captions; the authors have none, so ``dim`` has to
            be the number of features without it.
        margin: of the hinge, in units of the dot product.
        symmetric: also tell apart the pictures of a caption, not only the captions of a picture.
        class_weight: of the cross-entropy of a linear classifier on the backbone's features, which teaches a random
            backbone the classes of the data; the authors have none.
        num_classes: of that classifier.
        learning_rate: of RMSprop.
        lr_decay: factor on the learning rate after each epoch.
        gradient_clip: largest norm of the gradient; None does not clip.
        weights: a run or a checkpoint to start from.
    """

    use = "give its run to a GAN with --model.text_encoder '{kind: char_cnn_rnn, path: RUN}'"
    parts = ("text_network.", "image_network.")
    starting_points = ("weights", "backbone_weights")

    def __init__(
        self,
        *,
        variant: Variant = "rnn",
        cnn_dim: int | None = None,
        dim: int = 1024,
        first_channels: int = 384,
        second_channels: int = 512,
        lowercase: bool = False,
        backbone: str = "torchvision:googlenet",
        backbone_weights: str | None = "pretrained",
        train_backbone: bool = False,
        input_size: int | None = None,
        image_projection: bool = False,
        margin: float = 1.0,
        symmetric: bool = True,
        class_weight: float = 0.0,
        num_classes: int | None = None,
        learning_rate: float = 7e-4,
        lr_decay: float = 0.98,
        gradient_clip: float | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        _check(self.hparams)
        self.text_encoder = None
        self.text_network = CharCNNRNNNetwork(variant, cnn_dim, dim, first_channels, second_channels)
        if weights and backbone_weights == "pretrained":
            backbone_weights = None  # the file brings them
        self.image_network = networks.ImageFeatures(
            backbone, backbone_weights, dim, image_projection, input_size, train_backbone
        )
        features = self.image_network.backbone.feature_dim
        self.class_head = nn.Linear(features, num_classes) if class_weight and num_classes else None
        if weights:
            state.load_networks(self, find_checkpoint(weights), self.parts)

    def setup(self, stage: str) -> None:
        """Check that there is something to learn from."""
        super().setup(stage)
        if stage != "fit":
            return
        if (data := self.data_module) is None:
            return
        if data.batch_size < 2:
            raise T2IError(f"found --data.batch_size {data.batch_size}, expected at least 2 images to tell apart")
        if not data.captions_of("train"):
            raise T2IError("found no training captions: give CharCNNRNN a source whose pictures have some")

    # Encoding -------------------------------------------------------------------------------------------------------

    def read(self, captions: Sequence[str]) -> Tensor:
        """Vectors (B, D) of captions, with gradients."""
        numbers = numbers_of(captions, self.hparams["lowercase"])
        vectors: Tensor = self.text_network(numbers.to(self.device, non_blocking=True))[1]
        return vectors

    @torch.no_grad()
    def image_codes(self, images: Tensor) -> Tensor:
        """Vectors (B, D) float32 of pictures (B, 3, S, S) in [-1, 1], in eval mode; compare by the dot product."""
        mode = self.training
        try:
            codes: Tensor = self.eval().image_network(images.to(self.device))[0]
            return codes.float()
        finally:
            self.train(mode)

    @torch.no_grad()
    def sentence_codes(self, captions: Sequence[str]) -> Tensor:
        """Vectors (B, D) float32 of captions; compare by the dot product."""
        return self.read(captions).float()

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Losses of a batch with their sum ``"loss"``, and the vectors (B, D) of its pictures and of its captions.

        Reads ``images``, ``captions`` and, where there are any, ``labels``. Characters become numbers on the host.
        """
        codes, features = self.image_network(batch["images"][-1])
        sentences, labels = self.read(batch["captions"]), batch.get("labels")
        options = self.hparams
        found = losses.joint_embedding_loss(codes, sentences, labels, options["margin"], options["symmetric"])
        if self.class_head is not None and labels is not None:
            found["class"] = losses.class_loss(self.class_head(features), labels)
            found["loss"] = found["loss"] + options["class_weight"] * found["class"]
        return found, codes, sentences

    # Training -------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The joint embedding loss, and the class loss where there is one."""
        found, codes, _ = self(batch)
        loss: Tensor = found["loss"]
        self.log_dict({f"train/{key}": value.detach() for key, value in found.items()}, batch_size=len(codes))
        self.clock += 1
        return loss

    def configure_optimizers(self) -> Any:
        """RMSprop for all that is trained, and a rate that falls after each epoch."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.RMSprop(trained, self.hparams["learning_rate"])
        falling = torch.optim.lr_scheduler.ExponentialLR(optimizer, self.hparams["lr_decay"])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": falling, "interval": "epoch"}}

    # Evaluation -----------------------------------------------------------------------------------------------------

    def retrieval(self, codes: Tensor, sentences: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """How often pictures and captions find their classes."""
        return losses.class_retrieval(codes, sentences, labels)


def _check(options: Any) -> None:
    """Raise for options out of their range."""
    if options["variant"] not in ("rnn", "gru"):
        raise T2IError(f"found --model.variant {options['variant']}, expected rnn or gru")
    for name in ("cnn_dim", "dim", "first_channels", "second_channels", "num_classes"):
        if options[name] is not None and options[name] < 1:
            raise T2IError(f"found --model.{name} {options[name]}, expected at least 1")
    if options["margin"] <= 0:
        raise T2IError(f"found --model.margin {options['margin']}, expected more than 0")
    if options["class_weight"] and options["num_classes"] is None:
        raise T2IError("found --model.class_weight without --model.num_classes: set it to the data's number of classes")
    random = options["backbone_weights"] == "random" and options["backbone"].startswith("torchvision:")
    if random and not options["train_backbone"] and not options["weights"]:
        raise T2IError(
            "found --model.backbone_weights random for a backbone that is not trained, and so would see nothing: set "
            "--model.train_backbone true, or give it weights"
        )
