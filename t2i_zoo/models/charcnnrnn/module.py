"""char-CNN-RNN: captions, character by character, in the space of image features: the encoder of GAN-CLS and StackGAN.

Reed, Akata, Schiele, Lee: Learning Deep Representations of Fine-grained Visual Descriptions, 2016, arXiv 1605.05395.
Authors' code: reedscot/cvpr2016, whose training this follows, and reedscot/icml2016, which has the second network.
Deviations are listed in the card.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from t2i_zoo.batch import Batch
from t2i_zoo.errors import T2IError
from t2i_zoo.models import state
from t2i_zoo.models.charcnnrnn import losses, networks
from t2i_zoo.models.serving import RetrievalModule, check_class_weight
from t2i_zoo.paths import find_weights
from t2i_zoo.ranges import Count, Positive, Weight, Whole
from t2i_zoo.text.char_cnn_rnn_network import CharCNNRNNNetwork, Variant, numbers_of
from t2i_zoo.vision import build_vision, check_backbone
from t2i_zoo.vision.on_backbone import initial_weights


class CharCNNRNN(RetrievalModule):
    """Trains the text encoder; ``text_encoder: {kind: char_cnn_rnn, path: RUN}`` reads captions with it in a GAN.

    Args:
        variant: ``rnn``, the authors' network for flowers, or ``gru``, theirs for COCO and, as its name says, birds.
        cnn_dim: units of the recurrent layer; None is the authors': 256 of ``rnn`` and 512 of ``gru``.
        dim: D, the dimension of captions and images.
        first_channels, second_channels: of the first two convolutions over characters.
        lowercase: read capital letters as small ones; the authors ignore capitals.
        backbone: image network: ``torchvision:NAME``, or one that stays frozen: ``efficientnet_lite0``, whose weights
            come with the extra ``projected``, or ``file:PATH``, which is needed again whenever the model is loaded.
        backbone_weights: of a torchvision network: ``pretrained`` downloads them once, ``random`` needs
            ``train_backbone``, anything else is the path of a state dict. A checkpoint contains them and no longer
            needs this option.
        train_backbone: train the backbone too; the authors' image features are fixed.
        input_size: side that images are resized to; None is the backbone's own (GoogLeNet: 224), 0 does not resize.
        image_projection: train a linear layer between features and captions; the authors have none, so that ``dim``
            has to be the number of features.
        margin: of the hinge, in units of the dot product.
        symmetric: also tell apart the images of a caption, not only the captions of an image.
        class_weight: of the cross-entropy of a linear classifier on the backbone's features, which teaches a random
            backbone the classes of the data; the authors have none.
        num_classes: of that classifier.
        learning_rate: of RMSprop.
        lr_decay: factor on the learning rate after each epoch.
        gradient_clip: largest norm of the gradient; None does not clip.
        weights: a run or a checkpoint to start from.
    """

    use = "give its run to a GAN with --model.text_encoder '{kind: char_cnn_rnn, path: RUN}'"

    def __init__(
        self,
        *,
        variant: Variant = "rnn",
        cnn_dim: Count | None = None,
        dim: Count = 1024,
        first_channels: Count = 384,
        second_channels: Count = 512,
        lowercase: bool = False,
        backbone: str = "torchvision:googlenet",
        backbone_weights: str | None = "pretrained",
        train_backbone: bool = False,
        input_size: Whole | None = None,
        image_projection: bool = False,
        margin: Positive = 1.0,
        symmetric: bool = True,
        class_weight: Weight = 0.0,
        num_classes: Count | None = None,
        learning_rate: Weight = 7e-4,
        lr_decay: Positive = 0.98,
        gradient_clip: Positive | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        _check(self.hparams)
        self.text_network = CharCNNRNNNetwork(variant, cnn_dim, dim, first_channels, second_channels)
        source = initial_weights(backbone_weights, bool(weights))
        eyes = build_vision(backbone, weights=source, input_size=input_size, logits=False)
        self.image_network = networks.ImageFeatures(eyes, dim, image_projection, train_backbone)
        self.add_class_head(eyes.feature_dim)
        if weights:
            state.load_networks(self, find_weights(weights), self.parts)

    def setup(self, stage: str) -> None:
        """Check that there are captions to learn from."""
        super().setup(stage)
        if stage == "fit" and self.data_module is not None:
            self.training_captions()

    # Encoding -------------------------------------------------------------------------------------------------------

    def read(self, captions: Sequence[str]) -> Tensor:
        """Vectors (B, D) of captions, with gradients."""
        numbers = numbers_of(captions, self.hparams["lowercase"])
        vectors: Tensor = self.text_network(numbers.to(self.device, non_blocking=True))[1]
        return vectors

    def image_codes(self, images: Tensor) -> Tensor:
        """Vectors (B, D) float32 of images (B, 3, S, S) in [-1, 1], in eval mode; compare by the dot product."""
        with self.evaluating():
            codes: Tensor = self.image_network(images.to(self.device))[0]
        return codes.float()

    @torch.no_grad()
    def sentence_codes(self, captions: Sequence[str]) -> Tensor:
        """Vectors (B, D) float32 of captions; compare by the dot product."""
        return self.read(captions).float()

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Losses of a batch with their sum ``"loss"``, and the vectors (B, D) of its images and of its captions.

        Reads ``images``, ``captions`` and, if there are any, ``labels``. Characters become numbers on the host.
        """
        codes, features = self.image_network(batch["images"][-1])
        sentences, labels = self.read(batch["captions"]), batch.get("labels")
        options = self.hparams
        found = losses.joint_embedding_loss(codes, sentences, labels, options["margin"], options["symmetric"])
        self.add_class_loss(found, features, labels)
        return found, codes, sentences

    # Training -------------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """RMSprop for all that is trained, with a learning rate that falls after each epoch."""
        optimizer = torch.optim.RMSprop(self.trained_parameters(), self.hparams["learning_rate"])
        falling = torch.optim.lr_scheduler.ExponentialLR(optimizer, self.hparams["lr_decay"])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": falling, "interval": "epoch"}}

    # Evaluation -----------------------------------------------------------------------------------------------------

    def retrieval(self, codes: Tensor, sentences: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """How often images and captions find their classes."""
        return losses.class_retrieval(codes, sentences, labels)


def _check(options: Any) -> None:
    """Raise for options out of their range."""
    if options["variant"] not in ("rnn", "gru"):
        raise T2IError(f"found --model.variant {options['variant']}, expected rnn or gru")
    check_class_weight(options)
    backbone, weights = options["backbone"], options["backbone_weights"]
    if not backbone.startswith(("torchvision:", "file:")) and backbone != "efficientnet_lite0":
        raise T2IError(f"found --model.backbone {backbone}, expected torchvision:NAME, efficientnet_lite0 or file:PATH")
    check_backbone(backbone, weights, options["train_backbone"], bool(options["weights"]))
