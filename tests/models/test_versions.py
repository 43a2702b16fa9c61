"""Checkpoints of other versions, and files that could run code."""

from __future__ import annotations

from collections import deque

import pytest
import torch

from t2i_zoo import GANCLS, load_model
from t2i_zoo.errors import T2IError
from t2i_zoo.legacy import load_pickle, load_t7
from t2i_zoo.models.official import read_official
from t2i_zoo.text import build_text_encoder
from t2i_zoo.version import __version__
from t2i_zoo.vision import build_vision
from t2i_zoo.vision.backbones import read_state


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


def test_weights_that_do_not_fit_are_one_sentence(saved):
    content, write = saved
    state = dict(content["state_dict"])
    name = next(name for name in state if name.startswith("generator."))
    state[name] = torch.zeros(3, 5)
    with pytest.raises(T2IError, match=rf"of another GANCLS: {name} is \(3, 5\) there and \(.*--model\.weights"):
        load_model(write(state_dict=state))
    del state[name]
    with pytest.raises(T2IError, match=rf"{name} is missing there and \("):
        load_model(write(state_dict=state))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
READERS = {
    "a.ckpt": load_model,
    "a.safetensors": load_model,
    "b.pth": read_official,
    "c.pth": read_state,
    "d.safetensors": lambda path: build_vision(f"file:{path}"),
    "e.pt": lambda path: build_vision(f"file:{path}"),
    "f.ckpt": lambda path: build_text_encoder({"kind": "rnn", "path": str(path)}),
    "g.pth": lambda path: build_text_encoder({"kind": "char_cnn_rnn", "path": str(path)}),
    "h.npz": lambda path: build_text_encoder({"kind": "precomputed", "path": str(path)}),
    "i.pickle": load_pickle,
    "j.t7": load_t7,
    "k.ckpt": lambda path: build_text_encoder({"kind": "skip_thought", "path": str(path)}),
}


@pytest.mark.parametrize("name", READERS)
def test_a_git_lfs_pointer_is_named_as_such(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(POINTER)
    with pytest.raises(T2IError, match=rf"{name} is a Git LFS pointer, expected the file itself: run git lfs pull"):
        READERS[name](path)


@pytest.mark.parametrize("name", ["a.ckpt", "b.pth", "c.pth", "f.ckpt", "g.pth", "k.ckpt"])
def test_code_is_named_in_every_file_of_weights(name, tmp_path, recwarn):
    torch.save({"weights": deque([1])}, path := tmp_path / name)
    with pytest.raises(T2IError, match=rf"{name} holds collections\.deque, which could run code, and is not read"):
        READERS[name](path)
    assert not recwarn.list
