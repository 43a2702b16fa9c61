"""``t2i-zoo prepare`` in-process."""

import os

import pytest
import yaml
from PIL import Image

from t2i_zoo.__main__ import main


@pytest.fixture
def pictures(tmp_path):
    root = tmp_path / "pictures"
    root.mkdir()
    for i in range(6):
        Image.new("RGB", (30, 20), (40 * i, 0, 0)).save(root / f"{i}.jpg")
        (root / f"{i}.txt").write_text(f"picture {i}\nanother {i}", "utf-8")
    return root


@pytest.fixture
def run(pictures, tmp_path, capsys):
    """Run with the folder as source and a cache of its own; returns exit code, output, errors."""

    def run(*words, root=pictures):
        source = ["--data.source", "CaptionFolder", "--data.source.root", str(root)]
        code = main(["prepare", *source, "--data.image_size", "16", "--data.cache_dir", str(tmp_path / "c"), *words])
        caught = capsys.readouterr()
        return code, caught.out, caught.err

    return run


def test_packs_encodes_and_says_so(run, tmp_path):
    code, out, _ = run()
    assert code == 0
    assert out.startswith("6 images (5 train, 0 val, 1 test), 12 captions, ")
    layout, splits, captions, _, preview = out.splitlines()[1:]
    assert layout == "layout: a text file for each image, beside it"
    assert splits == "random split: 1 drawn for test (--data.source.val_fraction 0.1)"
    assert captions == "captions: 2 for each image, in Latin letters"
    with Image.open(preview.removeprefix("preview: ")) as page:
        assert page.width > 4 * 64  # four images in a row
    assert len(list((tmp_path / "c/stores").glob("captionfolder-19px-*/manifest.json"))) == 1
    assert len(list((tmp_path / "c/text").glob("*/seg-*"))) == 1
    assert run()[1] == out


def test_the_config_that_a_run_has_written(tmp_path, capsys, monkeypatch):
    """``fit`` writes all of its options there, those of callbacks and loggers among them."""
    monkeypatch.setenv("T2I_ZOO_CACHE", str(tmp_path))
    words = ["--data.source.images", "24", "--data.source.size", "16"]
    with pytest.raises(SystemExit):
        main(["fit", "--config", "gancls_synthetic", *words, "--print_config"])
    (tmp_path / "config.yaml").write_text(capsys.readouterr().out)
    assert main(["prepare", "--config", str(tmp_path / "config.yaml")]) == 0
    assert capsys.readouterr().out.startswith("24 images (")


def test_a_packaged_config(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("T2I_ZOO_CACHE", str(tmp_path))
    words = ["--data.source.images", "24", "--data.source.size", "16"]
    assert main(["prepare", "--config", "gancls_synthetic", *words]) == 0
    assert capsys.readouterr().out.startswith("24 images (")
    (keys,) = (tmp_path / "text").glob("*/seg-*")
    import numpy as np

    assert np.load(keys / "sentence.npy").shape[1] == 512  # of the config's encoder


def test_the_encoder_can_be_chosen(run, tmp_path):
    import numpy as np

    assert run("--text_encoder", "{kind: hashing, dim: 24}")[0] == 0
    assert run("--text_encoder", "hashing")[0] == 0
    widths = {np.load(p / "sentence.npy").shape[1] for p in (tmp_path / "c/text").glob("*/seg-*")}
    assert 24 in widths
    assert len(widths) == 2


def test_the_encoder_of_a_config_can_be_overridden(pictures, tmp_path, capsys):
    config = tmp_path / "own.yaml"
    source = {"class_path": "CaptionFolder", "init_args": {"root": str(pictures)}}
    model = {"class_path": "GANCLS", "init_args": {"text_encoder": {"kind": "hashing", "dim": 40}}}
    content = {"model": model, "data": {"source": source, "cache_dir": str(tmp_path / "c")}}
    config.write_text(yaml.safe_dump(content), "utf-8")
    import numpy as np

    assert main(["prepare", "-c", str(config)]) == 0
    assert main(["prepare", "-c", str(config), "--model.text_encoder", "{kind: hashing, dim: 48}"]) == 0
    widths = {np.load(p / "sentence.npy").shape[1] for p in (tmp_path / "c/text").glob("*/seg-*")}
    assert widths == {40, 48}
    capsys.readouterr()


def test_verify_finds_a_flipped_byte(run, tmp_path):
    assert run("--verify", "true")[0] == 0
    (images,) = (tmp_path / "c/stores").glob("*/images.npy")
    with images.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xee")
    assert run()[0] == 0  # sizes and times are as they were: only --verify reads it all
    code, _, error = run("--verify", "true")
    assert code == 2
    assert error.startswith("error: images.npy in ")
    assert "move that folder away and prepare again" in error


def test_bad_pictures(run, pictures):
    (pictures / "3.jpg").write_bytes((pictures / "3.jpg").read_bytes()[:200])
    code, _, error = run()
    assert code == 2
    assert "3.jpg is not a readable image" in error
    code, out, _ = run("--data.on_bad_image", "skip")
    assert code == 0
    first, *_, count, emptied, skipped, _ = out.splitlines()
    assert first.startswith("5 images (5 train, 0 val, 0 test)")
    assert count == "1 of 6 images cannot be read and is left out"
    assert emptied == "nothing is left of the test split: repair its images or add others"
    assert skipped.startswith("skipped: ")
    assert "3.jpg" in skipped


def test_lonely_files(run, pictures):
    (pictures / "9.txt").write_text("alone", "utf-8")
    code, out, _ = run()
    assert code == 0
    assert f"text files that no image belongs to are not read: {pictures / '9.txt'}\n" in out
    (pictures / "9.txt").rename(pictures / "8.txt")
    Image.new("RGB", (5, 5), "white").save(pictures / "9.png")
    code, _, error = run()
    assert code == 2
    assert f"1 of the 7 images of {pictures} has no caption ({pictures / '9.png'}: there is no file" in error
    code, out, _ = run("--data.on_bad_caption", "skip")
    assert code == 0
    assert "\n1 of 7 images has no caption and is left out\n" in out
    assert f"\nskipped: {pictures / '9.png'}: there is no file" in out


def test_missing_folder(run, tmp_path):
    code, out, error = run(root=tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert f"there is no folder {tmp_path / 'nowhere'}" in error
    assert len(error.splitlines()) == 1


def test_a_cache_folder_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("", "utf-8")
    code, _, error = run("--data.cache_dir", str(tmp_path / "file"))
    assert code == 2
    assert "cannot be written" in error
    assert "--data.cache_dir" in error


def test_a_typo_is_one_sentence(run):
    code, _, error = run("--data.bach_size", "3")
    assert code == 2
    assert "did you mean --data.batch_size?" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("model", "note"),
    [
        ({"class_path": "DAMSM"}, ""),
        ({"class_path": "AttnGAN", "init_args": {"damsm": "runs/none"}}, "--model.damsm runs/none is not there yet"),
        ({"class_path": "StackGANPlusPlus", "init_args": {"text_encoder": "none"}}, ""),
    ],
)
def test_features_that_nobody_would_read(model, note, run, tmp_path, capsys):
    config = tmp_path / "own.yaml"
    config.write_text(yaml.safe_dump({"model": model}), "utf-8")
    code, out, error = run("-c", str(config))
    assert (code, out.count("preview: ")) == (0, 1)
    assert not (tmp_path / "c/text").exists()
    assert ("the captions are not encoded" in error) == bool(note)
    assert note in error
    assert run("-c", str(config), "--to", "webdataset", "--out", str(tmp_path / "shards"))[0] == 0
    assert yaml.safe_load((tmp_path / "shards/index.json").read_text("utf-8"))["text"] is None
    assert run("-c", str(config), "--text_encoder", "hashing")[0] == 0  # what is asked for is done
    assert (tmp_path / "c/text").exists()


def test_every_mistake_of_a_folder_is_listed(run, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (24, 24)).save(folder / name)
    rows = ['{"file_name": "a.png", "caption": "a"}', '{"file_name": "gone.png", "caption": "x"}',
            '{"file_name": "b.png", "caption": " "}', '{"file_name": "c.png", "caption": "c"}']  # fmt: skip
    (folder / "metadata.jsonl").write_text("\n".join(rows), "utf-8")
    code, out, error = run(root=folder)
    lines = error.splitlines()
    assert (code, out, len(lines)) == (2, "", 3)
    wrong = [(2, "no image"), (3, "the caption is blank")]
    for line, (number, said) in zip(lines, wrong, strict=False):
        assert f"metadata.jsonl, line {number}: " in line
        assert said in line
    assert lines[2] == "error: found 2 mistakes in the data: mend them and prepare again"


def test_every_image_that_cannot_be_read_is_listed(run, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i}.txt").write_text("a", "utf-8")
        Image.new("RGB", (24, 24)).save(folder / f"{i}.png")
    for i in (3, 11, 17):
        (folder / f"{i}.png").write_bytes(b"no image")
    code, _, error = run(root=folder)
    bad = [line for line in error.splitlines() if "is not a readable image" in line]
    assert code == 2
    assert [line.split(" is ")[0].rpartition("/")[2] for line in bad] == ["11.png", "17.png", "3.png"]
    code, out, _ = run("--data.on_bad_image", "skip", root=folder)
    assert code == 0
    skipped = [line for line in out.splitlines() if line.startswith("skipped: ")]
    assert len(skipped) == 3
    assert not any("on_bad_image" in line for line in skipped)  # that advice has been followed


def test_the_sizes_are_those_of_training(tmp_path, capsys, monkeypatch):
    """``fit`` would otherwise pack again."""
    monkeypatch.setenv("T2I_ZOO_CACHE", str(tmp_path))
    words = ["--data.source.images", "24", "--data.source.size", "16", "--model.image_size", "16"]
    assert main(["prepare", "--config", "gancls_synthetic", *words]) == 0
    assert len(list(tmp_path.glob("stores/syntheticflowers-16px-*/manifest.json"))) == 1
