"""What a model needs of a batch is stated in one place, and only there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from t2i_zoo.batch import BatchNeeds, CaptionedData
from t2i_zoo.errors import T2IError
from t2i_zoo.models.zoo import ZooModule


class Plain(ZooModule):
    """The least that can be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.line.weight.sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


class ByClass(Plain):
    needs_words = True


class ByInstance(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.sizes = [8, 16]


@pytest.mark.parametrize(("kind", "name"), [(ByClass, "needs_words"), (ByInstance, "sizes")])
def test_the_former_attributes_are_not_ignored_in_silence(
    kind: type[Plain], name: str, build_trainer: Any, tiny_data: Any
) -> None:
    with pytest.raises(T2IError, match=f"{kind.__name__} sets {name}, which is no longer read: set needs to a Batch"):
        build_trainer(limit_train_batches=1).fit(kind(), tiny_data)


def test_the_data_module_reads_the_model_in_training(build_trainer: Any, tiny_data: Any) -> None:
    model = Plain()
    assert isinstance(tiny_data, CaptionedData)
    model.needs = BatchNeeds(sizes=(4, 16), wrong_images=True)
    assert tiny_data.needs == BatchNeeds()
    assert tiny_data.sizes == [16]
    build_trainer(limit_train_batches=1).fit(model, tiny_data)
    assert tiny_data.needs is model.needs
    assert tiny_data.sizes == [4, 16]
    assert tiny_data.encoder is None


def test_a_plain_loader_is_no_data_module(build_trainer: Any) -> None:
    model = Plain()
    build_trainer().fit(model, [torch.zeros(1)])
    assert model.data_module is None
    assert model.vocabulary == frozenset()
