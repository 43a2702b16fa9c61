"""A classifier of the data's own classes: a network whose class scores measure generated images of such data.

StackGAN (Zhang et al. 2017, arXiv 1612.03242) fine-tuned an Inception-v3 for the Inception Score of its
birds and flowers. This is no copy of that network; the card says what differs and what its number may be called.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i_zoo.batch import Batch, BatchNeeds
from t2i_zoo.errors import T2IError
from t2i_zoo.models import state
from t2i_zoo.models.classifier import losses, networks
from t2i_zoo.models.classifier.classes import check_held_out, find_classes
from t2i_zoo.models.serving import ServingModule, first_of_each
from t2i_zoo.paths import find_weights
from t2i_zoo.ranges import Fraction, Several, Share, Weight, Whole
from t2i_zoo.vision import Seen, build_vision, check_backbone
from t2i_zoo.vision.on_backbone import initial_weights


class Classifier(ServingModule):
    """Trains a linear layer on an image network, or both; ``--network classifier:RUN`` gives it to a metric.

    Args:
        backbone: image network, as ``build_vision`` names it: ``torchvision:NAME``; or one that stays frozen:
            ``efficientnet_lite0``, ``inception_v3_tf``, or ``file:PATH``, which is needed whenever the model is loaded.
        backbone_weights: of a torchvision network: ``pretrained`` downloads them once, ``random`` needs
            ``train_backbone``, anything else is the path of a state dict. A checkpoint contains them and no longer
            needs this option.
        train_backbone: fine-tune the backbone; otherwise only the linear layer is trained.
        batch_norm: of the backbone in training: ``train`` normalises by the batch and moves the running statistics,
            ``eval`` uses and keeps them. None is ``train`` for a trained backbone and ``eval`` for a frozen one.
        input_size: side in pixels that images are resized to; None is the backbone's own, 0 does not resize.
        classes: ``all`` of the data; ``test`` learns those that the source's class-disjoint split holds out, as
            StackGAN's network of flowers, and ignores images of the others.
        num_classes: of the data; None counts them.
        label_smoothing: share of the target that is spread evenly over all classes.
        colour: brightness, contrast and saturation change by up to this share in training.
        scale: in training a square of at least this share of the side is enlarged to the whole image; 1 does not crop.
        learning_rate: of AdamW.
        weight_decay: of AdamW, on all that is trained.
        cosine_decay: lower the learning rate by a half cosine over the epochs, to nearly 0 in the last.
        weights: a run or checkpoint of a classifier to start from, with its classes.

    Attributes:
        network: the image network, whose logits are the classes that are learned.
        label: what tables call it, such as "Flowers102 classifier".
        held_out: measures of the last validation on a whole split: ``accuracy``, its chance, and so on; and
            ``clock``, the batches that it had been trained on.
    """

    use = "give its run to t2i-zoo evaluate with --network classifier:RUN"
    needs = BatchNeeds(wrong_text=False, least=2)
    parts = ("network.",)
    starting_points = ("weights", "backbone_weights")
    row_of: Tensor

    def __init__(
        self,
        *,
        backbone: str = "torchvision:inception_v3",
        backbone_weights: str | None = "pretrained",
        train_backbone: bool = False,
        batch_norm: Literal["train", "eval"] | None = None,
        input_size: Whole | None = None,
        classes: Literal["all", "test"] = "all",
        num_classes: Several | None = None,
        label_smoothing: Fraction = 0.0,
        colour: Fraction = 0.0,
        scale: Share = 1.0,
        learning_rate: Weight = 1e-3,
        weight_decay: Weight = 1e-4,
        cosine_decay: bool = True,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        _check(self.hparams)
        own = backbone.startswith(("torchvision:", "efficientnet_lite0"))
        named = initial_weights(backbone_weights, bool(weights)) if own else None
        if backbone == "inception_v3_tf" and backbone_weights != "pretrained":
            named = backbone_weights  # a path, or None
        still = not train_backbone if batch_norm is None else batch_norm == "eval"
        eyes = build_vision(backbone, weights=named, input_size=input_size, logits=False)
        self.network = networks.ClassNetwork(eyes, 1, train_backbone, still)
        self.table: list[int] = []
        self.trained_on = ""
        self.held_out: dict[str, float] = {}
        self._pool: list[tuple[Tensor, ...]] = []
        self._take(list(range(num_classes)) if num_classes and classes == "all" else [])
        if weights:
            self._start_from(weights)

    def _start_from(self, weights: str) -> None:
        place = find_weights(weights)
        if place.suffix == ".safetensors":
            raise T2IError(f"found --model.weights {weights}, expected a run or a .ckpt file of a classifier")
        about = state.read_checkpoint(place)["t2i_zoo"]
        self._take(about.get("classes", []))
        self.trained_on = about.get("data", "")
        state.load_networks(self, place, self.parts)

    def _take(self, table: list[int]) -> None:
        """Take the row of each class of the data, and give the head as many rows."""
        self.table = list(table)
        # the last entry is met by the label -1, no class
        self.register_buffer("row_of", torch.tensor([*table, -1], device=self.device), persistent=False)
        if (count := max(table, default=0) + 1) != self.network.num_logits:
            self.network.reset(count)

    def setup(self, stage: str) -> None:
        """Take the classes of the data, unless a checkpoint brought its own."""
        super().setup(stage)
        if stage != "fit":
            return
        data = self.data_module
        if not self.table:
            self._take(find_classes(data, self.hparams["classes"]))
        if data is None:
            return
        self.trained_on = type(data.source).__name__
        self._check_classes()
        check_held_out(data, self.table)

    def _check_classes(self) -> None:
        """Raise if the data have other classes than this classifier."""
        data = self.data_module
        if data is not None and data.num_classes != len(self.table):
            raise T2IError(
                f"the classifier was made for data of {len(self.table)} classes and these have {data.num_classes}: "
                "give the data that it was trained on, or train another"
            )

    # Looking --------------------------------------------------------------------------------------------------------

    @property
    def label(self) -> str:
        """What tables call it."""
        part = "test-class " if self.hparams["classes"] == "test" else ""
        return f"{self.trained_on} {part}classifier".strip()

    @property
    def class_numbers(self) -> list[int]:
        """The data's number of the class of each logit."""
        return [label for label, row in enumerate(self.table) if row >= 0]

    @property
    def fingerprint(self) -> str:
        """Hash of all weights and of how images are resized."""
        return self.network.fingerprint

    def see(self, images: Tensor) -> Seen:
        """Features (B, D), regions if any, and logits (B, K), float32, of images (B, 3, S, S) in [-1, 1] of any size,
        in eval mode; logit k is the class ``class_numbers[k]`` of the data."""
        with self.evaluating():
            found: Seen = self.network(images.to(self.device))
        return Seen(*(None if part is None else part.float() for part in found))  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, 3, S, S) in [-1, 1], in the current mode."""
        logits: Tensor = self.network(images).logits
        return logits

    # Training -------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy of one batch, ``images`` and ``labels``."""
        images = networks.augment(batch["images"][-1], self.hparams["colour"], self.hparams["scale"], self.rng)
        logits, rows = self(images), self.row_of[batch["labels"]]
        loss = losses.class_loss(logits, rows, self.hparams["label_smoothing"])
        known = rows >= 0
        right = ((losses.ranks(logits.detach(), rows) < 1) & known).sum() / known.sum().clamp_min(1)
        return self.log_training({"loss": loss, "accuracy": right}, len(rows))

    def configure_optimizers(self) -> Any:
        """AdamW for all that is trained, with a learning rate that may fall after each epoch."""
        rate, decay = self.hparams["learning_rate"], self.hparams["weight_decay"]
        adam = torch.optim.AdamW(self.trained_parameters(), rate, weight_decay=decay)
        if not self.hparams["cosine_decay"]:
            return adam
        epochs = self.trainer.max_epochs or 0
        if epochs < 1:
            raise T2IError(
                "found no --trainer.max_epochs, over which the learning rate falls: set it, or --model.cosine_decay "
                "false"
            )
        falling = torch.optim.lr_scheduler.LambdaLR(
            adam, lambda epoch: 0.5 + 0.5 * math.cos(math.pi * min(epoch, epochs) / epochs)
        )
        return {"optimizer": adam, "lr_scheduler": {"scheduler": falling, "interval": "epoch"}}

    # Evaluation -----------------------------------------------------------------------------------------------------

    def on_validation_start(self) -> None:
        """Compare the classes with those of the data, once a checkpoint has brought them."""
        self._check_classes()

    on_test_start = on_validation_start

    def evaluate(self, stage: str, batch: Batch) -> None:
        """Judge held-out images; the measures of all come at the end."""
        logits, rows = self(batch["images"][-1]), self.row_of[batch["labels"]]
        loss = F.cross_entropy(logits, rows, ignore_index=-1, reduction="none")
        self._pool.append((batch["index"], rows, losses.ranks(logits, rows), loss))

    def summarise(self, stage: str) -> None:
        """Log loss, accuracies and their chances on the whole split; keep those of validation for the checkpoint."""
        gathered: Any = self.all_gather([torch.cat(part) for part in zip(*self._pool, strict=True)])
        self._pool.clear()
        index, rows, rank, loss = (part.reshape(-1) for part in gathered)
        if not bool((rows >= 0).any()):
            if self.trainer.sanity_checking:  # a few images, by chance all of other classes
                return
            raise T2IError(
                "found no held-out image of the classes of this classifier: raise --trainer.limit_val_batches, or "
                "give data with such images"
            )
        once = first_of_each(index)
        found = losses.summary(rows[once], rank[once], loss[once], self.network.num_logits)
        self.log_dict({f"{stage}/{key}": value for key, value in found.items() if key != "pictures"})
        if stage == "val" and not self.trainer.sanity_checking:
            self.held_out = {**{key: float(value) for key, value in found.items()}, "clock": float(self.clock)}

    # Checkpoints ----------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the classes, where they come from, and the held-out accuracy."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["t2i_zoo"] |= {"classes": self.table, "data": self.trained_on, "held_out": self.held_out}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them back, before the weights come."""
        super().on_load_checkpoint(checkpoint)
        extra = checkpoint.get("t2i_zoo", {})
        self._take(extra.get("classes", []))
        self.trained_on, self.held_out = extra.get("data", ""), dict(extra.get("held_out", {}))


def _check(options: Any) -> None:
    """Raise for options out of their range."""
    check_backbone(
        options["backbone"], options["backbone_weights"], options["train_backbone"], bool(options["weights"])
    )
    for name, choices in (("classes", ("all", "test")), ("batch_norm", ("train", "eval", None))):
        if options[name] not in choices:
            raise T2IError(f"found --model.{name} {options[name]}, expected one of {', '.join(map(str, choices))}")
