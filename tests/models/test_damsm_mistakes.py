"""What DAMSM refuses before it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from t2i_zoo.errors import T2IError
from t2i_zoo.models.companions import reader
from t2i_zoo.models.damsm import DAMSM


@pytest.fixture
def build(tiny_widths: Any) -> Any:
    """``build(max_words=4)``: a tiny model."""
    return lambda **changed: DAMSM(**{**tiny_widths("damsm"), **changed})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_words": 0}, r"found --model\.max_words 0, expected at least 1"),
        ({"vocabulary_size": 1}, r"found --model\.vocabulary_size 1, expected at least 2"),
        ({"dim": 7}, r"found --model\.dim 7, expected an even number"),
        ({"text_dropout": 1.0}, r"found --model\.text_dropout 1\.0, expected 0 or more, and less than 1"),
        ({"class_weight": 0.5}, r"found --model\.class_weight without --model\.num_classes"),
        ({"train_backbone": False}, r"found --model\.backbone_weights random with a frozen backbone"),
        ({"layer": "stage9"}, r"has no layer 'stage9': name one such as stage\d"),
        (
            {"backbone": "inception_v3_tf"},
            r"found --model\.backbone inception_v3_tf, expected torchvision:NAME, efficientnet_lite0 or file:PATH",
        ),
        (
            {"backbone": "efficientnet_lite0", "train_backbone": False},
            r"found --model\.backbone_weights random with a frozen backbone",
        ),
        ({"backbone": "file:net.pt"}, r"found --model\.train_backbone with file:net\.pt, which stays frozen"),
        ({"rnn": "elman"}, r"found --model\.rnn elman, expected lstm or gru"),
    ],
)
def test_wrong_options(build: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(T2IError, match=sentence):
        build(**options)


def test_data_that_do_not_fit(build: Any, build_trainer: Any, build_data: Any) -> None:
    with pytest.raises(T2IError, match="found no training captions: give DAMSM a CaptionDataModule"):
        build_trainer().fit(build(), torch.utils.data.DataLoader([0]))
    with pytest.raises(T2IError, match=r"found --data\.batch_size 1, expected at least 2 images"):
        build_trainer().fit(build(), build_data(batch_size=1))


def test_the_damsm_of_a_gan_is_the_one_that_reads_its_captions(tmp_path: Path) -> None:
    run, other = str(tmp_path), str(tmp_path / "other")
    assert reader(None, run) == {"kind": "rnn", "path": run}
    assert reader({"kind": "rnn", "max_words": 12}, run) == {"kind": "rnn", "max_words": 12, "path": run}
    with pytest.raises(T2IError, match=f"found --model.text_encoder of {other} beside --model.damsm {run}, whose"):
        reader({"kind": "rnn", "path": other}, run)
    with pytest.raises(
        T2IError, match=r"found --model.text_encoder hashing beside --model.damsm, .* --model.damsm null"
    ):
        reader("hashing", run)
