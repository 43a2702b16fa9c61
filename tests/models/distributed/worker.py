"""One of two processes: ``worker.py FOLDER`` with the usual environment of a rank writes ``FOLDER/rank_N.pt``.

Every scenario runs in one pair of processes, because starting them takes longer than all the training.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
from torch import Tensor, nn

from t2i_zoo.batch import Batch, Fakes
from t2i_zoo.callbacks import SampleGrid
from t2i_zoo.errors import T2IError
from t2i_zoo.models import list_models, model_class
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.ddp import GANDDPStrategy, Reducer
from t2i_zoo.models.gancls import GANCLS
from t2i_zoo.text import TextFeatures

# by its path, since other folders have modules of this name
_CONFTEST = runpy.run_path(str(Path(__file__).parents[2] / "conftest.py"))
build_data, build_trainer = _CONFTEST["build_data"], _CONFTEST["build_trainer"]
_WIDTHS, AIDS = _CONFTEST["TINY"], _CONFTEST["AIDS"]

TINY = {"image_size": 16, "noise_dim": 4, "text_encoder": {"kind": "hashing", "dim": 32}, "learning_rate": 1e-3}
WIDTHS = {"projection_dim": 8, "generator_width": 4, "discriminator_width": 4}
TWO = {"devices": 2, "strategy": "gan_ddp"}


class Witness(L.Callback):
    """Which pictures each batch held, by epoch, and the noise of the generator's forwards."""

    def __init__(self) -> None:
        self.pictures: list[list[int]] = []
        self.noise: list[Tensor] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        pl_module.generator.register_forward_pre_hook(lambda _, inputs: self.noise.append(inputs[0].clone()))

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.pictures.append([])

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.pictures[-1] += batch["index"].tolist()


class Paint(nn.Module):
    """Noise and sentence to a picture, without batch norm, whose statistics would differ between ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4 + 32, 16), nn.Tanh(), nn.Linear(16, 3 * 16 * 16), nn.Tanh())

    def forward(self, noise: Tensor, sentence: Tensor) -> Tensor:
        return self.layers(torch.cat([noise, sentence], 1)).unflatten(1, (3, 16, 16))


class Plain(TextToImageGAN):
    """A GAN whose noise comes with the batch, so that two ranks and one process may see the same."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.set_networks(Paint(), nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 16), nn.Tanh(), nn.Linear(16, 1)))

    def fake(self, batch: Any) -> Fakes:
        return self.draw(self.generator, batch["noise"], batch["text"])

    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        real, fake = self.discriminator(batch["images"][-1]), self.discriminator(fakes.images[-1])
        return {"loss": nn.functional.softplus(-real).mean() + nn.functional.softplus(fake).mean()}

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        return {"loss": nn.functional.softplus(-self.discriminator(fakes.images[-1])).mean()}


class Gradients(L.Callback):
    """The gradients of both steps."""

    def __init__(self) -> None:
        self.seen: list[list[Tensor]] = []

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        self.seen.append([p.grad.clone() for group in optimizer.param_groups for p in group["params"]])


class Wire:
    """Counts the numbers that leave this process while it is patched in."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sizes: dict[str, list[int]] = {"all_reduce": [], "broadcast": []}
        for name, sizes in self.sizes.items():
            patch.setattr(torch.distributed, name, self._counted(getattr(torch.distributed, name), sizes))

    def _counted(self, call: Any, sizes: list[int]) -> Any:
        def counted(tensor: Tensor, *given: Any, **options: Any) -> Any:
            sizes.append(tensor.numel())
            return call(tensor, *given, **options)

        return counted


class One:
    """A loader of one batch; Lightning would take a list apart."""

    def __init__(self, batch: dict[str, Any]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield self.batch


def plain_gradients(rows: slice, accumulate: int = 1, **options: Any) -> list[list[Tensor]]:
    """Both networks' gradients on these rows of one fixed batch of eight."""
    rng = torch.Generator().manual_seed(1)
    images, noise, sentences = (torch.randn(8, *shape, generator=rng) for shape in ((3, 16, 16), (4,), (32,)))
    batch = {
        "images": [images[rows].tanh()],
        "noise": noise[rows],
        "text": TextFeatures(sentences[rows]),
        "captions": ["a flower"] * len(noise[rows]),
    }
    L.seed_everything(2, verbose=False)
    model, gradients = Plain(**TINY, accumulate=accumulate), Gradients()
    build_trainer(Path(), callbacks=[gradients], **options).fit(model, train_dataloaders=One(batch))
    return gradients.seen


def train(folder: Path, epochs: int, resumed: Path | None = None) -> dict[str, Any]:
    L.seed_everything(4, verbose=False)
    model, witness = GANCLS(**TINY, **WIDTHS), Witness()
    if resumed is not None:
        L.seed_everything(99, verbose=False)  # a new process is in another random state
    keeper = ModelCheckpoint(folder, save_last=True, save_top_k=0, save_on_train_epoch_end=True)
    callbacks = [witness, keeper, SampleGrid(1, rows=1, columns=1)]
    trainer = build_trainer(folder, max_epochs=epochs, callbacks=callbacks, **TWO)
    trainer.fit(model, build_data(), ckpt_path=resumed)
    return {
        "weights": weights(model),
        "optimizers": [optimizer.state_dict()["state"] for optimizer in trainer.optimizers],
        "pictures": witness.pictures,
        "noise": witness.noise,
        "world": trainer.world_size,
    }


def refused(folder: Path, strategy: str) -> str:
    try:
        build_trainer(folder, devices=2, strategy=strategy).fit(GANCLS(**TINY, **WIDTHS), build_data())
    except T2IError as error:
        return str(error)
    return "trained"


def every_model() -> list[str]:
    """The models of the zoo and, behind a colon, their variants in ``TINY`` of the tests."""
    return [key for name in list_models() for key in [name, *(k for k in _WIDTHS if k.startswith(f"{name}:"))]]


def aided_models() -> list[tuple[str, str]]:
    """Every GAN with every group of training aids."""
    return [(name, group) for name in list_models("gan") for group in AIDS]


def two_batches(folder: Path, variant: str, **aids: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters of one model before and after two batches."""
    L.seed_everything(4, verbose=False)
    name, widths = variant.partition(":")[0], _WIDTHS[variant]
    draws = name in list_models("gan")
    model = model_class(name)(**{**TINY, **widths, **aids} if draws else widths)
    data = build_data(split="random", image_size=model.hparams["image_size"] if draws else 32, batch_size=4)
    seen: list[dict[str, Tensor]] = []
    note = LambdaCallback(on_train_start=lambda _, module: seen.append(weights(module)))
    build_trainer(folder, max_epochs=1, limit_train_batches=2, callbacks=[note], **TWO).fit(model, data)
    return seen[0], weights(model)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("text_encoder.")}


def uneven(rank: int, compiled: bool = False) -> list[Tensor | None]:
    """Gradients of three weights: one that both ranks use, one that rank 1 alone does, and one that neither does."""
    net = nn.ParameterList(torch.ones(5) for _ in range(3))
    reducer = Reducer([*net.parameters()], [], bucket_mib=1e-6)  # a bucket each
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(1)
    if compiled:
        layer.compile(backend="aot_eager")
    for _ in range(2):
        for parameter in net.parameters():
            parameter.grad = None
        x = layer(torch.tensor([rank + 1.0]))
        (x * net[0].sum() + (net[1].sum() if rank else 0)).sum().backward()
        reducer.finish()
    reducer.remove()
    return [parameter.grad for parameter in net.parameters()]


def main(folder: Path) -> None:
    found: dict[str, Any] = {"whole": train(folder / "whole", 2)}
    train(folder / "half", 1)
    found["resumed"] = train(folder / "rest", 2, folder / "half" / "last.ckpt")
    rank = torch.distributed.get_rank()
    own, five = slice(4 * rank, 4 * rank + 4), slice(5) if rank == 0 else slice(5, None)
    with pytest.MonkeyPatch.context() as patch:
        wire = Wire(patch)
        found["gradients"] = {"whole": plain_gradients(own, **TWO)}
        found["sent"] = {name: list(sizes) for name, sizes in wire.sizes.items()}
        wire.sizes["all_reduce"].clear()
        found["gradients"]["micro-batches"] = plain_gradients(own, accumulate=3, **TWO)
        found["sent_of_micro_batches"] = wire.sizes["all_reduce"]
    found["gradients"]["ragged"] = plain_gradients(five, **TWO)
    small = GANDDPStrategy(bucket_mib=0.001)
    found["gradients"]["buckets"] = plain_gradients(own, devices=2, strategy=small)
    found["gradients"]["stock"] = plain_gradients(own, devices=2, strategy="ddp_find_unused_parameters_true")
    found["uneven"] = [uneven(rank), uneven(rank, compiled=True)]
    found["refused"] = refused(folder, "ddp")
    found["models"] = {variant: two_batches(folder, variant) for variant in every_model()}
    found["aided"] = {(name, group): two_batches(folder, name, **AIDS[group]) for name, group in aided_models()}
    torch.save(found, folder / f"rank_{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
