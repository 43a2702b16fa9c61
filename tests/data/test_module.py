"""The data module: what is in a batch, that it belongs together, and that a resumed run meets the same batches."""

import warnings

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from t2i_zoo.batch import BatchNeeds
from t2i_zoo.data import CaptionDataModule, CaptionFolder, SyntheticFlowers
from t2i_zoo.data.synthetic import read_attributes
from t2i_zoo.errors import T2IError
from t2i_zoo.models.base import TextToImageGAN

FLOWERS = {"images": 64, "size": 24}


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(4, 3 * 16 * 16)

    def forward(self, noise, sentence):
        return torch.tanh(self.line(noise)).view(-1, 3, 16, 16)


class Tiny(TextToImageGAN):
    """Reads words and wrong pictures, and keeps the batches that it is given."""

    needs = BatchNeeds(words=True, wrong_images=True)

    def __init__(self, **options):
        super().__init__(image_size=16, noise_dim=4, text_encoder={"kind": "hashing", "dim": 32}, **options)
        self.set_networks(Generator(), nn.Linear(3 * 16 * 16, 1))
        self.seen = []

    def discriminator_loss(self, batch, fakes):
        self.seen.append(batch)
        return {"loss": self.discriminator(fakes.images[-1].flatten(1)).mean()}

    def generator_loss(self, batch, fakes):
        return {"loss": -self.discriminator(fakes.images[-1].flatten(1)).mean()}


def build(**options):
    return CaptionDataModule(SyntheticFlowers(**FLOWERS), **{"image_size": 16, "batch_size": 8, **options})


def batches_of(module, loader):
    """What Lightning does with each gathered part, without a device to go to."""
    return [module.on_after_batch_transfer(part) for part in loader]


def train(folder, model, module, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "limit_val_batches": 0}
    quiet |= {"enable_checkpointing": False, "accelerator": "cpu", "devices": 1, "default_root_dir": folder}
    trainer = L.Trainer(**{**quiet, "max_epochs": 1, **options})
    trainer.fit(model, module)
    return trainer


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A model with words and wrong pictures after an epoch, and its data module."""
    model, module = Tiny(), build(pyramid=[4, 8])
    train(tmp_path_factory.mktemp("run"), model, module)
    return model, module


def colours(module):
    truth = read_attributes(module.source.path)
    return [row["petal_colour"] for row in truth]


def test_a_batch_without_trainer_or_model():
    module = build()
    module.prepare_data()
    module.setup()
    for batch in batches_of(module, module.train_dataloader()):
        assert sorted(batch) == ["captions", "images", "index", "labels", "wrong_captions", "wrong_labels"]
        (images,) = batch["images"]
        assert images.shape == (8, 3, 16, 16)
        assert images.dtype == torch.float32
        assert -1 <= images.min() < images.max() <= 1
        assert len(batch["captions"]) == len(batch["wrong_captions"]) == 8
        assert batch["labels"].dtype == batch["index"].dtype == torch.int64


def test_a_batch_in_training(fitted):
    model, module = fitted
    assert len(model.seen) == len(module.train_dataloader()) > 3
    for batch in model.seen:
        keys = {"captions", "images", "index", "labels", "text"}
        assert set(batch) == keys | {"wrong_captions", "wrong_images", "wrong_labels", "wrong_text"}
        for pyramid in (batch["images"], batch["wrong_images"]):
            assert [image.shape for image in pyramid] == [(8, 3, s, s) for s in (4, 8, 16)]
        encoder = model.text_encoder
        for text, captions in ((batch["text"], batch["captions"]), (batch["wrong_text"], batch["wrong_captions"])):
            expected = encoder.encode(captions, words=True)
            assert torch.allclose(text.sentence, expected.sentence, atol=1e-6)
            assert torch.equal(text.mask, expected.mask)
            assert torch.allclose(text.words, expected.words, atol=1e-6)
            assert (text.words[~text.mask] == 0).all()


def test_captions_belong_to_pictures_and_wrong_ones_to_other_classes(fitted):
    model, module = fitted
    names, rows = colours(module), module.store.rows("train")
    labels = module.store.labels
    own = {caption: set() for caption in module.store.captions}
    for row in range(len(labels)):
        for number in range(module.store.offsets[row], module.store.offsets[row + 1]):
            own[module.store.captions[number]].add(int(labels[row]))
    for batch in model.seen:
        for caption, wrong, index, label in zip(
            batch["captions"], batch["wrong_captions"], batch["index"], batch["labels"], strict=True
        ):
            assert names[rows[index]] in caption.split()
            assert labels[rows[index]] == label
            assert own[wrong] - {int(label)}


def test_pictures_are_crops_of_their_own_files(fitted):
    model, module = fitted
    rows, side = module.store.rows("train"), module.spec.load_size
    for batch in model.seen[:2]:
        for image, index in zip(batch["images"][-1], batch["index"], strict=True):
            pixels = torch.from_numpy(np.array(module.store.image(rows[index]))).permute(2, 0, 1) / 127.5 - 1
            cuts = [
                (pixels[:, t : t + 16, x : x + 16], flip)
                for t in range(side - 15) for x in range(side - 15) for flip in (False, True)
            ]  # fmt: skip
            assert any(torch.allclose(image.flip(-1) if flip else image, cut, atol=1e-5) for cut, flip in cuts)


def test_wrong_pictures_are_of_other_classes(fitted):
    model, module = fitted
    store, planner = module.store, module.planner("train", True)
    order = planner.epoch_order(0)
    for number, batch in enumerate(model.seen):
        plan = planner.plan(0, number, order)
        assert torch.equal(torch.from_numpy(store.labels)[plan.wrong_rows], batch["wrong_labels"])
        assert (batch["wrong_labels"] != batch["labels"]).all()
        wrong_crops = zip(*plan.wrong_crops, strict=True)
        for row, image, crops in zip(plan.wrong_rows, batch["wrong_images"][-1], wrong_crops, strict=True):
            top, left, flip = crops
            cut = torch.from_numpy(np.array(store.image(row)[top : top + 16, left : left + 16])).permute(2, 0, 1)
            assert torch.allclose(image, (cut.flip(-1) if flip else cut) / 127.5 - 1, atol=1e-5)


def test_averaged_captions_are_the_mean_of_their_features(tmp_path):
    model, module = Tiny(), build(captions_averaged=4)
    train(tmp_path, model, module, limit_train_batches=2)
    planner = module.planner("train", True)
    order = planner.epoch_order(0)
    for number, batch in enumerate(model.seen):
        plan = planner.plan(0, number, order)
        for text, captions in ((batch["text"], plan.captions), (batch["wrong_text"], plan.wrong_captions)):
            strings = [module.store.captions[i] for i in captions.flatten()]
            expected = model.text_encoder.encode(strings).sentence.view(8, 4, -1).mean(1)
            assert torch.allclose(text.sentence, expected, atol=1e-6)


def test_evaluation_is_the_same_in_every_epoch(tmp_path):
    model, module = Tiny(), build()
    model.on_validation_epoch_start = lambda: model.seen.append("begin")
    train(tmp_path, model, module, max_epochs=2, limit_val_batches=1.0, num_sanity_val_steps=0, limit_train_batches=1)
    marks = [i for i, batch in enumerate(model.seen) if batch == "begin"]
    per = len(module.val_dataloader())
    first, second = (model.seen[mark + 1 : mark + 1 + per] for mark in marks)
    assert len(first) == per > 0
    for a, b in zip(first, second, strict=True):
        assert a["captions"] == b["captions"]
        assert torch.equal(a["images"][-1], b["images"][-1])
        assert torch.equal(a["wrong_images"][-1], b["wrong_images"][-1])


def test_a_run_stopped_in_the_middle_of_an_epoch_meets_the_rest_of_it(tmp_path):
    whole = Tiny()
    train(tmp_path, whole, build(), max_epochs=2)
    part = Tiny()
    part.on_train_batch_end = lambda *_: part.trainer.save_checkpoint(tmp_path / f"{len(part.seen)}.ckpt")
    train(tmp_path, part, build(), max_epochs=2, max_steps=2 * 3)  # two optimizers: three batches
    rest = Tiny()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "limit_val_batches": 0}
    again = L.Trainer(max_epochs=2, accelerator="cpu", devices=1, enable_checkpointing=False, **quiet)
    again.fit(rest, build(), ckpt_path=tmp_path / "3.ckpt", weights_only=True)
    together = [*part.seen, *rest.seen]
    assert len(together) == len(whole.seen)
    for a, b in zip(together, whole.seen, strict=True):
        assert a["captions"] == b["captions"]
        assert a["wrong_captions"] == b["wrong_captions"]
        assert torch.equal(a["images"][-1], b["images"][-1])


def test_asking_first_and_setting_up_later(tmp_path):
    module = build()
    assert module.num_classes > 1  # opens the store
    assert "petals" in module.vocabulary()
    assert len(set(module.example_captions(4))) == 4
    module.setup()
    assert len(batches_of(module, module.test_dataloader())) == len(module.test_dataloader())
    model = Tiny()
    train(tmp_path, model, module, limit_train_batches=1)  # the same module under a model gets its features
    assert model.seen[0]["text"].words is not None


def test_no_warnings_are_shown(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(tmp_path, Tiny(), build(cache_dir=str(tmp_path / "cache")), limit_train_batches=1)
    assert not [w for w in caught if "not writ" in str(w.message)]


def folder_of(root, count, classes=0):
    for i in range(count):
        path = root / (f"c{i % classes}" if classes else ".") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (i * 9, 0, 0)).save(path)
        path.with_suffix(".txt").write_text(f"number {i}", "utf-8")
    return CaptionFolder(str(root), val_fraction=0.0)


@pytest.mark.parametrize("classes", [0, 1])
def test_without_classes_the_mismatch_is_by_picture(tmp_path, classes):
    module = CaptionDataModule(folder_of(tmp_path / "own", 6, classes), image_size=8, batch_size=3)
    module.setup()
    assert module.num_classes == 0
    for batch in batches_of(module, module.train_dataloader()):
        assert (batch["labels"] == -1).all()
        assert all(a != b for a, b in zip(batch["captions"], batch["wrong_captions"], strict=True))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"batch_size": 500},
            r"holds \d+ images, fewer than one batch of 500: set --data\.batch_size to \d+ or less",
        ),
        ({"batch_size": 0}, r"found --data\.batch_size 0, expected at least 1"),
        ({"image_size": 0}, r"found --data\.image_size 0, expected at least 1"),
        ({"captions_averaged": 0}, r"found --data\.captions_averaged 0, expected at least 1"),
        ({"pyramid": [8, 32]}, r"found 32 in --data\.pyramid, expected sizes from 1 to the image size 16"),
        ({"load_size": 8}, r"found --data\.load_size 8, expected at least the image size 16"),
        ({"load_size": 0}, r"found --data\.load_size 0, expected at least the image size 16"),
    ],
)
def test_options_that_cannot_be(options, sentence):
    with pytest.raises(T2IError, match=sentence):
        build(**options).setup()


def test_one_picture_is_not_enough(tmp_path):
    module = CaptionDataModule(folder_of(tmp_path / "one", 1), image_size=8, batch_size=1)
    with pytest.raises(T2IError, match="holds one image, expected a second to mismatch"):
        module.setup()


def test_one_picture_is_not_enough_for_any_batch_size(tmp_path):
    module = CaptionDataModule(folder_of(tmp_path / "one", 1), image_size=8)
    with pytest.raises(T2IError, match="holds one image, expected a second to mismatch: add images"):
        module.setup()


def test_splits_without_training_images(tmp_path):
    rows = [f"{i}.png,number {i},test" for i in range(3)]
    source = folder_of(tmp_path / "all", 3)
    (tmp_path / "all" / "metadata.csv").write_text("\n".join(["file_name,caption,split", *rows]), "utf-8")
    module = CaptionDataModule(source, image_size=8)
    with pytest.raises(
        T2IError, match=r"none of the 3 images of .*all is in the split train \(0 train, 0 val, 3 test\)"
    ):
        module.setup("fit")
    module.setup("test")
    assert module.opened.remarks() == ["no image is in the split train, so nothing can be trained: correct the splits"]


def test_a_run_that_goes_on_with_other_data_says_so(tmp_path, capsys):
    first, second = (CaptionDataModule(folder_of(tmp_path / name, n), image_size=8) for name, n in (("a", 3), ("b", 4)))
    state = first.state_dict()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    second.trainer = first.trainer = L.Trainer(accelerator="cpu", enable_checkpointing=False, **quiet)
    second.trainer.state.fn = "fit"
    first.load_state_dict(state)
    second.load_state_dict({name: state[name] for name in ("batch_size", "processes")})  # as earlier versions wrote it
    assert not capsys.readouterr().err
    second.load_state_dict(state)
    assert capsys.readouterr().err == f"note: the run goes on with {tmp_path / 'b'} instead of {tmp_path / 'a'}\n"
    first.load_state_dict({**second.state_dict(), "source": str(tmp_path / "a")})
    assert capsys.readouterr().err == f"note: the run goes on with other images or captions in {tmp_path / 'a'}\n"


def test_pictures_that_are_enlarged_by_much_are_remarked(tmp_path):
    source = folder_of(tmp_path / "own", 3)
    Image.new("RGB", (9, 2), (200, 0, 0)).save(tmp_path / "own" / "1.png")
    store = CaptionDataModule(source, image_size=8, load_size=9).opened
    (said,) = (line for line in store.manifest["remarks"] if "enlarged" in line)
    assert said == f"images with a side below 2.25 pixels, enlarged: {tmp_path / 'own' / '1.png'}"


def test_the_load_size_is_76_for_64():
    assert [build(image_size=s).spec.load_size for s in (64, 128, 256, 16)] == [76, 152, 304, 19]


def test_host_and_device_paths_agree():
    """On a device the store is gathered after the transfer; both ways give the pictures of a direct computation."""
    module = build()
    module.setup()
    part = next(iter(module.train_dataloader()))
    plan = part["plan"]
    host = module.on_after_batch_transfer(part)["images"][-1]
    for image, row, top, left, flip in zip(host, plan.rows, *plan.crops, strict=True):
        cut = module.store.image(row)[top : top + 16, left : left + 16]
        cut = np.flip(cut, 1) if flip else cut
        assert np.allclose(image.permute(1, 2, 0).numpy(), cut / 127.5 - 1, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_store_on_the_gpu_gives_the_same_batches(tmp_path):
    seen = []
    for where in ("yes", "no"):
        model = Tiny()
        train(tmp_path, model, build(device_resident=where), accelerator="gpu")
        seen.append(model.seen)
    for a, b in zip(*seen, strict=True):
        assert torch.equal(a["images"][-1], b["images"][-1])
        assert torch.equal(a["wrong_images"][-1], b["wrong_images"][-1])
        assert torch.equal(a["text"].sentence, b["text"].sentence)
        assert torch.equal(a["wrong_text"].words, b["wrong_text"].words)


def test_a_part_of_the_data_for_a_first_try(tmp_path):
    source = SyntheticFlowers(images=96, size=24)
    whole = CaptionDataModule(source, image_size=16, batch_size=4, cache_dir=str(tmp_path))
    part = CaptionDataModule(source, image_size=16, batch_size=4, cache_dir=str(tmp_path), limit=24)
    for module in (whole, part):
        module.prepare_data()
        module.setup("fit")
    sizes = [[len(module.opened.rows(split)) for split in ("train", "val", "test")] for module in (whole, part)]
    assert sum(sizes[0]) == 96
    assert abs(sum(sizes[1]) - 24) <= 2
    assert [bool(count) for count in sizes[1]] == [bool(count) for count in sizes[0]]  # no split is lost
    assert len({*part.opened.labels.tolist()}) > 10  # nor are those of the first classes taken
    assert whole.opened.folder != part.opened.folder
    assert CaptionDataModule(source, image_size=16, limit=5000).spec.records() == source.records()
