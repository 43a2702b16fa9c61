"""AttnGAN and MirrorGAN on real, tiny networks of other runs: their losses, their guards, and attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from t2i_zoo import load_model
from t2i_zoo.commands.convert import convert_from
from t2i_zoo.commands.official_states import to_official
from t2i_zoo.errors import T2IError
from t2i_zoo.legacy import AttnGANCaptions
from t2i_zoo.legacy.captions import write_attngan_captions
from t2i_zoo.models import model_class
from t2i_zoo.models.attentive import AttentiveGAN
from t2i_zoo.models.attngan import AttnGAN
from t2i_zoo.models.damsm import DAMSM
from t2i_zoo.models.dmgan import DMGAN
from t2i_zoo.models.mirrorgan import MirrorGAN
from t2i_zoo.models.stream import STREAM
from t2i_zoo.nn import WordAttention, discriminator_loss
from t2i_zoo.nn.damsm import sentence_loss, words_loss
from t2i_zoo.text import TextFeatures
from t2i_zoo.text.rnn import RNNNetwork

SMALL: dict[str, Any] = {
    **{"image_size": 32, "noise_dim": 4, "condition_dim": 4, "generator_width": 4, "discriminator_width": 4},
    **{"residual_blocks": 1, "learning_rate": 1e-3},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_widths: Any, build_data: Any) -> dict[str, str]:
    """A DAMSM and a STREAM, each trained for two batches."""
    found = {}
    for name in ("damsm", "stream"):
        L.seed_everything(1, verbose=False)
        folder = tmp_path_factory.mktemp(name)
        options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = L.Trainer(
            default_root_dir=folder, max_steps=2, limit_val_batches=0, enable_checkpointing=False, **options
        )  # type: ignore[arg-type]
        trainer.fit(model_class(name)(**tiny_widths(name)), build_data(image_size=32))
        found[name] = str(folder / "last.ckpt")
        trainer.save_checkpoint(found[name])
    return found


def batch_of(model: AttentiveGAN, data: Any) -> dict[str, Any]:
    """One training batch of four, with the model's text."""
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())))
    batch["text"] = model.encode(batch["captions"])
    size = model.hparams["image_size"]
    images = batch["images"][-1]
    batch["images"] = [torch.nn.functional.interpolate(images, scale_factor=s / size) for s in model.needs.sizes]
    return batch


@pytest.fixture
def data(build_data: Any) -> Any:
    module = build_data(image_size=32, batch_size=4)
    module.prepare_data()
    module.setup("fit")
    return module


def test_attngan_adds_damsms_losses_of_its_last_image(runs: dict[str, str], data: Any) -> None:
    torch.manual_seed(0)
    model = AttnGAN(damsm=runs["damsm"], damsm_weight=3.0, **SMALL)
    model.take("damsm", "features", "")
    batch, damsm = batch_of(model, data), load_model(runs["damsm"])
    assert isinstance(damsm, DAMSM)
    rng = torch.Generator().manual_seed(2)
    fakes = model.draw(model.generator, model.noise(4, rng), batch["text"])
    terms = model.generator_loss(batch, fakes)
    regions, codes = damsm.features(fakes.images[-1])
    text = damsm.read(batch["captions"])
    assert torch.allclose(text.sentence, batch["text"].sentence, atol=1e-6)  # the GAN reads with DAMSM's text encoder
    words = words_loss(regions, text.words, text.mask, batch["labels"], 4.0, 5.0, 10.0)
    sentence = sentence_loss(codes, text.sentence, batch["labels"], 10.0)
    assert float(terms["words"]) == pytest.approx(float(sum(words)), rel=1e-5)
    assert float(terms["sentence"]) == pytest.approx(float(sum(sentence)), rel=1e-5)
    adversarial = sum(terms[f"at_{size}"] for size in (8, 16, 32)) + terms["kl"]
    assert float(terms["loss"]) == pytest.approx(float(adversarial + 3 * (sum(words) + sum(sentence))), rel=1e-5)
    terms["words"].backward()
    assert model.generator.pictures[-1][0].weight.grad.abs().sum() > 0  # through the frozen image encoder
    assert all(p.grad is None for p in model.frozen("damsm").parameters())


def test_mirrorgan_adds_streams_loss_of_its_last_image(runs: dict[str, str], data: Any) -> None:
    torch.manual_seed(0)
    model = MirrorGAN(damsm=runs["damsm"], stream=runs["stream"], stream_weight=7.0, damsm_weight=2.0, **SMALL)
    for name, method in (("damsm", "features"), ("stream", "caption_loss")):
        model.take(name, method, "")
    batch, stream = batch_of(model, data), load_model(runs["stream"])
    assert isinstance(stream, STREAM)
    fakes = model.draw(model.generator, model.noise(4, torch.Generator().manual_seed(2)), batch["text"])
    terms = model.generator_loss(batch, fakes)
    with torch.no_grad():
        caption = stream.caption_loss(fakes.images[-1], batch["captions"])
    assert float(terms["caption"]) == pytest.approx(float(caption), rel=1e-5)
    rest = sum(terms[f"at_{size}"] for size in (8, 16, 32)) + terms["kl"] + 2 * (terms["words"] + terms["sentence"])
    assert float(terms["loss"]) == pytest.approx(float(rest + 7 * caption), rel=1e-5)
    terms["caption"].backward()
    assert model.generator.pictures[-1][0].weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.frozen("stream").parameters())


def test_mismatched_pairs_follow_the_lengths_of_the_captions(data: Any) -> None:
    model = AttnGAN(text_encoder={"kind": "hashing", "dim": 32}, damsm_weight=0.0, branches=1, **SMALL).eval()
    batch = batch_of(model, data)
    sentence, words = batch["text"].sentence, batch["text"].words
    lengths = torch.tensor([2, 5, 3, 5])  # longest first, ties in their order: 1, 3, 2, 0
    mask = torch.arange(words.shape[1]) < lengths[:, None]
    fakes = model.draw(model.generator, model.noise(4), TextFeatures(sentence, words, mask))
    found = model.discriminator_loss(batch, fakes)
    judge: Any = model.discriminator[0]
    real, order = judge.features(batch["images"][0]), [1, 3, 2, 0]
    expected = discriminator_loss(
        judge(batch["images"][0], sentence),
        judge.judge(real[order[:-1]], sentence[order[1:]]),
        judge(fakes.images[0], sentence),
    )
    assert float(found["wrong"]) == pytest.approx(float(expected["wrong"]), rel=1e-5)
    assert float(found["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-5)


def test_pairs_of_one_class_can_be_left_out(data: Any) -> None:
    options = {**SMALL, "text_encoder": {"kind": "hashing", "dim": 32}, "damsm_weight": 0.0, "branches": 1}
    model = AttnGAN(exclude_same_class=True, **options).eval()
    batch = batch_of(model, data)
    fakes = model.draw(model.generator, model.noise(4), batch["text"])
    batch["labels"] = torch.tensor([1, 1, 1, 1])
    assert float(model.discriminator_loss(batch, fakes)["wrong"]) == 0.0
    batch["labels"] = torch.tensor([-1, -1, -1, -1])
    assert float(model.discriminator_loss(batch, fakes)["wrong"]) > 0.0
    with pytest.raises(T2IError, match=r"exclude_same_class with --model\.mismatch class"):
        AttnGAN(exclude_same_class=True, mismatch="class", **options)


def test_attention_by_hand() -> None:
    attention = WordAttention(2, 2)
    with torch.no_grad():
        attention.project.weight.copy_(torch.eye(2)[:, :, None, None])
    words = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])  # the third is padding
    features = torch.tensor([2.0, 1.0]).view(1, 2, 1, 1)
    context, weights = attention(features, words, torch.tensor([[True, True, False]]))
    expected = torch.tensor([2.0, 1.0]).softmax(0)
    assert torch.allclose(weights.flatten(), torch.cat([expected, torch.zeros(1)]))
    assert torch.allclose(context.flatten(), expected)


def test_images_do_not_depend_on_the_other_captions_of_a_batch() -> None:
    model = AttnGAN(text_encoder={"kind": "hashing", "dim": 32}, damsm_weight=0.0, **SMALL).eval()
    captions, noise = ["a red flower", "a much longer caption about a blue flower"], model.noise(2)
    together = model.generate(captions, noise=noise)
    alone = torch.cat([model.generate([c], noise=noise[i : i + 1]) for i, c in enumerate(captions)])
    assert torch.allclose(together, alone, atol=1e-5)
    for module in model.generator_ema.modules():
        if isinstance(module, WordAttention):
            module.legacy_mask = True
    assert not torch.allclose(model.generate(captions, noise=noise), alone, atol=1e-4)  # the authors' mix-up


def test_generate_returns_attention_on_request() -> None:
    model = AttnGAN(text_encoder={"kind": "hashing", "dim": 32}, damsm_weight=0.0, **SMALL)
    noise = model.noise(2)
    fakes = model.sampled(["a red flower", "blue"], noise=noise)
    images, maps = fakes.images[-1], fakes.attention
    assert torch.equal(images, model.generate(["a red flower", "blue"], noise=noise))
    assert [tuple(one.shape) for one in maps] == [(2, 3, 8, 8), (2, 3, 16, 16)]
    assert model.text_encoder.tokens("a red flower") == ["a", "red", "flower"]
    assert not maps[0][1, 1:].any()
    assert torch.allclose(maps[1].sum(1), torch.ones(2, 16, 16), atol=1e-5)


def test_a_checkpoint_draws_and_reads_without_the_runs_it_was_built_on(
    runs: dict[str, str], tmp_path: Path, build_trainer: Any, build_data: Any
) -> None:
    moved = {}
    for name, path in runs.items():
        moved[name] = tmp_path / f"{name}.ckpt"
        moved[name].write_bytes(Path(path).read_bytes())
    L.seed_everything(0, verbose=False)
    model = MirrorGAN(damsm=str(moved["damsm"]), stream=str(moved["stream"]), damsm_weight=1.0, **SMALL)
    trainer = build_trainer(max_epochs=1, limit_train_batches=2)
    trainer.fit(model, build_data(image_size=32, batch_size=4))
    trainer.save_checkpoint(tmp_path / "gan.ckpt")
    assert not any("damsm" in key or "stream" in key for key in torch.load(tmp_path / "gan.ckpt")["state_dict"])
    for path in moved.values():
        path.unlink()
    again = load_model(tmp_path / "gan.ckpt")
    assert isinstance(again, MirrorGAN)
    noise = model.noise(1)
    assert torch.equal(again.generate(["a red flower"], noise=noise), model.generate(["a red flower"], noise=noise))
    with pytest.raises(
        T2IError, match=r"found no --model\.stream: train one, as `t2i-zoo fit --config stream_flowers`"
    ):
        again.take("stream", "caption_loss", "")


def test_a_resumed_run_notices_other_networks(runs: dict[str, str], tmp_path: Path) -> None:
    model = AttnGAN(damsm=runs["damsm"], **SMALL)
    model.take("damsm", "features", "")
    checkpoint: dict[str, Any] = {"hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(checkpoint)
    model.on_load_checkpoint(checkpoint)
    checkpoint["t2i_zoo"]["companions"]["damsm"] = "0" * 16
    with pytest.raises(T2IError, match="holds other weights than this run began with"):
        model.on_load_checkpoint(checkpoint)


def test_what_is_missing_or_wrong_is_said_before_training(
    runs: dict[str, str], build_trainer: Any, build_data: Any, tmp_path: Path
) -> None:
    with pytest.raises(T2IError, match=r"--model\.damsm runs/damsm_x is not there: train one, as .*damsm_flowers"):
        AttnGAN(damsm="runs/damsm_x", **SMALL)
    with pytest.raises(T2IError, match=r"text_encoder hashing beside --model\.damsm"):
        AttnGAN(damsm=runs["damsm"], text_encoder="hashing", **SMALL)
    with pytest.raises(T2IError, match=r"image_size 24 with 3 branches, expected a power of two of at least 32"):
        AttnGAN(**{**SMALL, "image_size": 24})
    np.savez(tmp_path / "f.npz", sentence=np.ones((1, 6), np.float32), captions=np.array(["a flower"]))
    known = {"kind": "precomputed", "path": str(tmp_path / "f.npz")}
    for kind in (AttnGAN, MirrorGAN, DMGAN):
        with pytest.raises(T2IError, match=rf"precomputed, which has no word vectors, but {kind.__name__} reads words"):
            kind(text_encoder=known, **SMALL)
    trainer, data = build_trainer(), build_data(image_size=32)
    with pytest.raises(T2IError, match=r"found no --model\.damsm: .* or set --model\.damsm_weight 0"):
        trainer.fit(AttnGAN(text_encoder={"kind": "hashing", "dim": 32}, **SMALL), data)
    with pytest.raises(T2IError, match=r"--model\.stream .* holds a DAMSM"):
        trainer.fit(MirrorGAN(damsm=runs["damsm"], stream=runs["damsm"], **SMALL), data)


def test_checkpointing_changes_no_result() -> None:
    pictures, gradients = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        options = {**SMALL, "text_encoder": {"kind": "hashing", "dim": 32}, "damsm_weight": 0.0}
        model = AttnGAN(gradient_checkpointing=checkpointing, **options)
        noise = model.noise(3, torch.Generator().manual_seed(1))
        fakes = model.draw(model.generator, noise, model.encode(["a red flower", "blue", "two words"]))
        sum(image.square().mean() for image in fakes.images).backward()
        pictures.append(fakes.images[-1].detach())
        gradients.append(model.generator.first.fc[0].weight.grad)
    assert torch.equal(*pictures)
    assert torch.allclose(*gradients)


def test_published_files_draw_a_new_sentence(tmp_path: Path) -> None:
    """As the page on official weights has it: the text encoder, its words and the generator, converted one by one."""
    words, network = ["a", "red", "flower", "blue"], RNNNetwork(5, 6, 16)
    torch.save(network.state_dict(), tmp_path / "text_encoder200.pth")
    numbers = dict(enumerate(["<end>", *words]))
    table = AttnGANCaptions([], [], numbers, {word: number for number, word in numbers.items()})
    write_attngan_captions(tmp_path / "captions.pickle", table)
    options = {**SMALL, "image_size": 128, "branches": 2, "damsm_weight": 0.0}
    files = [tmp_path / name for name in ("text_encoder200.pth", "captions.pickle")]
    damsm = str(convert_from("attngan_damsm", files, tmp_path / "damsm.safetensors"))
    theirs = AttnGAN(damsm=damsm, **options)
    torch.save(to_official("attngan", theirs.hparams, theirs.state_dict())["netG_epoch_0.pth"], tmp_path / "gan.pth")
    weights = str(convert_from("attngan", [tmp_path / "gan.pth"], tmp_path / "gan.safetensors"))
    torch.manual_seed(1)
    model = AttnGAN(damsm=damsm, weights=weights, **options)
    noise, sentence = model.noise(1), ["a red flower"]
    assert torch.equal(model.generate(sentence, noise=noise), theirs.generate(sentence, noise=noise))
    expected = network.eval()(torch.tensor([[1, 2, 3]]), torch.tensor([3]))[1]
    assert torch.allclose(model.encode(sentence).sentence, expected, atol=1e-6)
