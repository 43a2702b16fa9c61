"""Checkpoints of other versions, and files that could run code."""

from __future__ import annotations

from collections import deque

import pytest
import torch

from t2i_zoo import GANCLS, load_model
from t2i_zoo.errors import T2IError
from t2i_zoo.version import __version__


@pytest.fixture
def saved(tiny_options, tiny_widths, build_trainer, tmp_path):
    """A checkpoint, and a function that writes it with changes."""
    trainer = build_trainer()
    trainer.strategy.connect(GANCLS(**tiny_options, **tiny_widths("gancls")))
    trainer.save_checkpoint(path := tmp_path / "model.ckpt")
    content = torch.load(path, weights_only=True)

    def write(**changes):
        torch.save({**content, **changes}, path)
        return path

    return content, write


def test_a_checkpoint_names_its_version_and_one_without_loads(saved):
    content, write = saved
    about = content["t2i_zoo"]
    assert (about["version"], about["format"]) == (__version__, 1)
    load_model(write(t2i_zoo={k: v for k, v in about.items() if k not in ("version", "format")}))


def test_a_later_format_and_an_unknown_option_are_one_sentence(saved):
    content, write = saved
    later = {**content["t2i_zoo"], "version": "9.4", "format": 99}
    with pytest.raises(T2IError, match=r"was written by t2i-zoo 9\.4 and this is .*: pip install --upgrade t2i-zoo"):
        load_model(write(t2i_zoo=later))
    with pytest.raises(T2IError, match=r"holds the option 'magic', which GANCLS does not have: .*--upgrade t2i-zoo"):
        load_model(write(hyper_parameters={**content["hyper_parameters"], "magic": 1}))


def test_code_is_named_and_not_read(tmp_path, recwarn):
    torch.save({"t2i_zoo": deque([1])}, path := tmp_path / "x.ckpt")
    with pytest.raises(T2IError, match=r"x\.ckpt holds collections\.deque, which could run code, and is not read"):
        load_model(path)
    assert not recwarn.list
