"""Shards: written from any source, read from anyone, on the disk and on the web, and by the commands."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from t2i_zoo.__main__ import main
from t2i_zoo.data import CaptionDataModule, Embedded, StreamDataModule, SyntheticFlowers, WebDataset, download
from t2i_zoo.data.shard_writer import write_shards
from t2i_zoo.data.shards import read_shard
from t2i_zoo.data.store import StoreSpec
from t2i_zoo.data.stream import Stream
from t2i_zoo.errors import T2IError


def build(root: Path | str, **options: Any) -> StreamDataModule:
    source = {name: options.pop(name) for name in ("buffer",) if name in options}
    module = CaptionDataModule(WebDataset(str(root), **source), **{"image_size": 16, "batch_size": 8, **options})
    assert isinstance(module, StreamDataModule)
    return module


def numbers(loader: Any) -> list[list[int]]:
    return [batch["index"].tolist() for batch in loader]


# Shards of others -----------------------------------------------------------------------------------------------------


def png(colour: tuple[int, int, int], size: int = 20) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(out, "png")
    return out.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """Two shards of eight and one to test, in the forms that people use."""
    root = tmp_path / "others"
    root.mkdir()
    for number, name in enumerate(("train-0", "train-1", "val-0")):
        files = {}
        for i in range(8 * number, 8 * number + 8):
            files[f"data/{i:04d}.png"] = png((i, 0, 0))
            if i % 2:
                files[f"data/{i:04d}.json"] = json.dumps({"caption": f"number {i}", "label": f"kind{i % 3}"}).encode()
            else:
                files[f"data/{i:04d}.txt"] = f"number {i}\nagain {i}\n".encode()
                files[f"data/{i:04d}.cls"] = f"kind{i % 3}".encode()
        write_tar(root / f"{name}.tar", files)
    return root


def test_shards_of_other_tools(others: Path, tmp_path: Path) -> None:
    module = build(others, batch_size=4, cache_dir=str(tmp_path / "cache"))
    assert module.num_classes == 3
    assert module.vocabulary() == {"number", "again", *map(str, range(16))}
    batches = [module.on_after_batch_transfer(batch) for batch in module.train_dataloader()]
    assert sorted(n for batch in batches for n in batch["index"].tolist()) == list(range(16))
    for batch in batches:
        for caption, label, image in zip(batch["captions"], batch["labels"], batch["images"][-1], strict=True):
            number = int(caption.split()[1])
            assert label == number % 3
            assert torch.allclose(image[0], torch.tensor(number / 127.5 - 1), atol=1e-6)
        assert (batch["labels"] != batch["wrong_labels"]).all()
    assert len(list((tmp_path / "cache/shards").iterdir())) == 1  # read once
    assert build(others, cache_dir=str(tmp_path / "cache")).index == module.index
    assert len(numbers(module.val_dataloader())) == 2


def test_shards_of_other_tools_are_packed(others: Path) -> None:
    write_tar(others / "train-2.tar", {"a.PNG": png((99, 0, 0)), "a.TXT": b"number 99", "a.CLS": b"kind0"})
    (others / "._train-2.tar").write_bytes(b"what a Mac leaves beside it")
    records = WebDataset(str(others), stream=False).records()
    assert len(records) == 25
    for record in records:
        number = int(record.captions[0].split()[1])
        assert record.class_id == number % 3
        assert isinstance(record.image, Embedded)
        assert record.image.read() == png((number, 0, 0))


def test_what_is_wrong_with_shards(others: Path, tmp_path: Path) -> None:
    def error(match: str, root: Path | str = others, **options: Any) -> None:
        module = build(root, cache_dir=str(tmp_path / "cache"), **options)
        with pytest.raises(T2IError, match=match):
            next(iter([module.setup(), *module.train_dataloader()]))

    error(r"there is no folder .*nowhere, expected one with \.tar files", tmp_path / "nowhere")
    error(r"no folder of shards is given", "")
    error(r"has no \.tar file, expected shards", tmp_path)
    error(r"holds 16 images, fewer than one batch of 17: set --data\.batch_size to 16", batch_size=17)
    cases: list[tuple[dict[str, bytes], str]] = [
        ({"a.png": png((0, 0, 0)), "a.json": b"{"}, r"train-2\.tar, a: broken JSON"),
        ({"a.png": png((0, 0, 0)), "a.json": b"[]"}, r"train-2\.tar, a: found list, expected a JSON object"),
        (
            {"a.png": png((0, 0, 0)), "a.json": b'{"caption": ""}', "a.cls": b"x"},
            r"1 image of .* has no caption \(.*train-2\.tar, a: the caption is blank\)",
        ),
        ({"a.png": png((0, 0, 0)), "a.txt": b"\x81"}, r"train-2\.tar, a is not text in UTF-8"),
        ({"a.txt": b"alone"}, r"1 image of .* is missing \(.*train-2\.tar, a: no image among txt\).*on_bad_image"),
        ({"a.png": png((0, 0, 0)), "a.txt": b"c"}, r"some images of .* have a class and others have none"),
        ({"a.png": png((0, 0, 0)), "a.cls": b"x"}, r"1 image of .* has no caption \(an image without a caption\)"),
        ({"a.png": png((0, 0, 0)), "a.cls": b"-2"}, r"the label is -2, expected 0 or more"),
    ]
    for files, match in cases:
        write_tar(others / "train-2.tar", files)
        error(match)
    (others / "train-2.tar").write_bytes((others / "train-1.tar").read_bytes()[:1000])
    error(r"the shard .*train-2\.tar cannot be read \(")
    (others / "train-2.tar").write_bytes(b"<html>" * 100)
    error(r"the shard .*train-2\.tar cannot be read \(")


def test_bad_pictures_in_a_shard(others: Path, tmp_path: Path, capsys: Any) -> None:
    files = {f"{i}.png": png((i, 0, 0)) if i else b"<html>" for i in range(4)} | {"z.png": png((9, 9, 9))}
    parts = {}
    for name, content in files.items():
        parts |= {name: content, name.replace("png", "txt"): b"c", name.replace("png", "cls"): b"kind0"}
    write_tar(others / "train-2.tar", parts)
    options = {"batch_size": 7, "cache_dir": str(tmp_path / "cache")}
    with pytest.raises(T2IError, match=r"train-2\.tar, 0 is not a readable image"):
        list(build(others, **options).train_dataloader())
    capsys.readouterr()
    found = [n for batch in numbers(build(others, on_bad_image="skip", **options).train_dataloader()) for n in batch]
    assert len(found) == 21  # three whole batches of 21 pictures, one of which is shown twice
    assert 16 not in found
    assert len(set(found)) == 20
    assert "1 image cannot be read and is left out, such as: " in capsys.readouterr().err


def test_batches_of_nothing_but_bad_images(others: Path, tmp_path: Path) -> None:
    (others / "val-0.tar").unlink()
    options = {"batch_size": 2, "cache_dir": str(tmp_path / "cache"), "on_bad_image": "skip"}
    for bad, expected in (((2, 3), [[0, 1], [0, 1], [4, 5]]), ((0, 1), None)):
        parts = {}
        for i in range(6):
            parts |= {f"{i}.png": b"<html>" if i in bad else png((i, 0, 0)), f"{i}.txt": b"c", f"{i}.cls": b"kind0"}
        write_tar(others / "test-0.tar", parts)
        if expected is not None:
            assert numbers(build(others, **options).test_dataloader()) == expected  # as many as on other processes
            continue
        with pytest.raises(T2IError, match=r"none of the first 2 images can be read, such as: .*test-0\.tar, 0"):
            list(build(others, **options).test_dataloader())


def test_an_index_and_shards_that_do_not_belong_together(shards: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in shards.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    index = json.loads((copy / "index.json").read_text())
    index["shards"][0]["pictures"] = 12
    (copy / "index.json").write_text(json.dumps(index))
    with pytest.raises(T2IError, match=r"train-000000\.tar holds 10 images and index\.json says 12"):
        list(build(copy, batch_size=2).train_dataloader())
    (copy / "train-000001.tar").unlink()
    with pytest.raises(T2IError, match=r"there is no shard .*train-000001\.tar, which index\.json lists"):
        build(copy).setup()
    (copy / "index.json").write_text(json.dumps({**index, "format": 99}))
    with pytest.raises(T2IError, match="written by a newer t2i-zoo"):
        build(copy).setup()
    for text in ("{", "[]", "{}", '{"format": 1, "shards": [1]}'):
        (copy / "index.json").write_text(text)
        with pytest.raises(T2IError, match=r"index\.json is no index of shards"):
            build(copy).setup()


@pytest.mark.parametrize(
    ("written", "options", "match"),
    [
        ("stretch", {"image_size": 16}, None),
        ("stretch", {"image_size": 17}, r"hold images of 19 px \(stretch\), expected at least 21 px \(stretch\)"),
        ("stretch", {"resize": "short_side"}, r"hold images of 19 px \(stretch\), .* 19 px \(short_side\): write"),
        ("short_side", {"resize": "center_crop"}, None),  # the whole picture is there
    ],
)
def test_shards_know_their_size(tmp_path: Path, written: Any, options: dict[str, Any], match: str | None) -> None:
    write_shards(StoreSpec(SyntheticFlowers(images=24, size=24), 19, written), tmp_path / "set")
    if match is None:
        build(tmp_path / "set", **options).setup()
        return
    with pytest.raises(T2IError, match=match):
        build(tmp_path / "set", **options).setup()
    index = json.loads((tmp_path / "set/index.json").read_text())
    del index["load_size"], index["resize"]  # as they were written before
    (tmp_path / "set/index.json").write_text(json.dumps(index))
    build(tmp_path / "set", **options).setup()


def test_two_runs_count_the_same_shards_at_once(others: Path, tmp_path: Path, monkeypatch: Any) -> None:
    real, cache = Path.replace, tmp_path / "cache"

    def replace(place: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", real)
        target.write_bytes(place.read_bytes())  # of a run that is quicker by a bit
        return real(place, target)

    monkeypatch.setattr(Path, "replace", replace)
    assert WebDataset(str(others)).index(cache).pictures("train") == 16
    assert len(list((cache / "shards").iterdir())) == 1


@pytest.mark.parametrize("place", ["", "cache"])
def test_a_cache_beside_the_shards_does_not_outdate_what_it_holds(others: Path, place: str) -> None:
    cache = others / place
    for name in ("text", "stores"):
        WebDataset(str(others)).index(cache)
        if place:
            (cache / name).mkdir()
            (cache / name / "file").touch()
    assert len(list((cache / "shards").iterdir())) == 1
    write_tar(others / "train-3.tar", {"a.png": png((0, 0, 0)), "a.txt": b"c", "a.cls": b"kind0"})
    assert WebDataset(str(others)).index(cache).pictures("train") == 17


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"order": "class_balanced"}, "which streamed shards cannot have"),
        ({"oversample": {"red": 2}}, "--data.oversample"),
        ({"buffer": 1}, "source.buffer 1, expected"),
    ],
)
def test_options_that_cannot_be(shards: Path, options: dict[str, Any], match: str) -> None:
    with pytest.raises(T2IError, match=match):
        build(shards, **options)


# The web --------------------------------------------------------------------------------------------------------------


def test_shards_on_the_web(shards: Path, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BLOCK", 1024)  # bytes that a break may cost; these shards are small
    server.files = {f"set/{path.name}": path.read_bytes() for path in shards.iterdir()}
    length = len(server.files["set/train-000001.tar"])
    server.breaks["set/train-000001.tar"] = [length // 3, 0, length // 3]  # it breaks off in the middle of a picture
    url = server.url("set/")
    batches = {
        root: [(batch["index"], batch["pixels"]) for batch in Stream(build(root), "train", True, 0, 1, lambda: 0)]
        for root in (shards, url)
    }
    for (ours, seen), (theirs, expected) in zip(batches[url], batches[shards], strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(seen, expected)
    assert [asked for name, asked in server.asked if name.endswith("000001.tar")].count(None) == 1
    assert not any("val" in name or "test" in name for name, _ in server.asked)


def test_shards_that_are_not_on_the_web(shards: Path, server: Any) -> None:
    with pytest.raises(T2IError, match=r"set/index\.json cannot be read \(.*t2i-zoo prepare --to webdataset"):
        build(server.url("set")).setup()
    server.files = {f"set/{path.name}": path.read_bytes() for path in shards.iterdir()}
    del server.files["set/train-000002.tar"]
    with pytest.raises(T2IError, match=r"set/train-000002\.tar cannot be read \(the server answers 404"):
        list(build(server.url("set")).train_dataloader())
    server.files["set/train-000002.tar"] = b""
    with pytest.raises(T2IError, match=r"set/train-000002\.tar cannot be read"):
        list(build(server.url("set")).train_dataloader())
    with pytest.raises(T2IError, match="is on the web and cannot be packed: leave out"):
        WebDataset(server.url("set"), stream=False).records()


# The commands ---------------------------------------------------------------------------------------------------------


def test_prepare_writes_shards_and_fit_streams_them(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    flowers = "--config gancls_synthetic --data.source.images 64 --data.source.size 24 --data.image_size 16"
    words = f"{flowers} --data.load_size 32 --to webdataset --out shards --per_shard 20".split()
    encoder = ["--model.text_encoder", "{kind: hashing, dim: 32}"]
    assert main(["prepare", *words, *encoder]) == 0
    said = capsys.readouterr().out.strip()
    assert said.startswith("64 images (")
    assert said.splitlines()[0].endswith(f"shards, {tmp_path / 'shards'}")
    assert main(["prepare", *words, *encoder]) == 2
    assert "is there and not empty: choose another --out" in capsys.readouterr().err
    source = ["--data.source", "WebDataset", "--data.source.root", "shards"]
    assert main(["prepare", *source, "--verify", "true"]) == 0
    assert capsys.readouterr().out.startswith("64 images (")
    tiny = [str(Path(__file__).parents[1] / "tiny.yaml")]
    run = ["--config", "gancls_synthetic", "--config", *tiny, "--trainer.max_epochs", "1"]
    config = tmp_path / "runs/gancls_synthetic/version_0/config.yaml"
    assert main(["fit", *run, *encoder, "--data.source", "WebDataset", "--data.source.root", "shards"]) == 0
    assert "WebDataset" in config.read_text()
    assert (config.parent / "checkpoints/last.ckpt").is_file()
    assert (config.parent / "samples/epoch_0001.png").is_file()
    with (tmp_path / "shards/train-000000.tar").open("r+b") as file:
        file.seek(700)
        file.write(b"\xee")
    assert main(["prepare", *source, "--verify", "true"]) == 2
    assert "train-000000.tar changed since it was written" in capsys.readouterr().err


def test_writing_leaves_nothing_half(tmp_path: Path, capsys: Any) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    for i in range(6):
        (root / f"{i}.png").write_bytes(png((i, 0, 0)) if i != 3 else b"<html>")
        (root / f"{i}.txt").write_text(f"number {i}")
    (root / "x.txt").write_text("of no image")
    words = ["prepare", "--data.source", "CaptionFolder", "--data.source.root", str(root), "--data.image_size", "16"]
    words += ["--to", "webdataset", "--out", str(tmp_path / "shards")]
    assert main(words) == 2
    assert "3.png is not a readable image" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if "shards" in path.name] == [".shards.lock"]
    (tmp_path / ".shards.unfinished").mkdir()
    assert main([*words, "--data.on_bad_image", "skip"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("5 images (")
    index = build(tmp_path / "shards").index
    assert index.understood["layout"] == "a text file for each image, beside it"
    assert index.remarks == [f"text files that no image belongs to are not read: {root / 'x.txt'}"]
    assert [line for line in out if line.startswith("skipped: ") and "3.png" in line]
    assert {path.name for path in tmp_path.iterdir() if "shards" in path.name} == {".shards.lock", "shards"}
    assert main(["prepare", *words[1:-2]]) == 2
    assert "found --to webdataset without --out" in capsys.readouterr().err
    assert main(["prepare", *words[1:-4], "--out", "x"]) == 2
    assert "found --out without --to webdataset" in capsys.readouterr().err
    assert main(["prepare", *words[1:-4], "--per_shard", "20"]) == 2
    assert "found --per_shard without --to webdataset" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "more"), "--verify", "true"]) == 2
    assert "found --verify true with --to webdataset" in capsys.readouterr().err
    assert main(["prepare", "--data.source", "WebDataset", "--text_encoder", "hashing"]) == 2
    assert "found --text_encoder with streamed shards" in capsys.readouterr().err


def test_shards_are_plain_tar_files(shards: Path) -> None:
    with tarfile.open(shards / "train-000000.tar") as archive:
        assert archive.getnames()[:3] == ["000000.json", "000000.png", "000000.text.npz"]
    with (shards / "train-000000.tar").open("rb") as file:
        sample = next(read_shard(file, "train-000000.tar", first=4))
    assert (sample.place, sample.file) == ("train-000000.tar, 000004", "000004.png")
    assert Image.open(io.BytesIO(sample.image)).size == (19, 19)
    assert os.path.getsize(shards / "index.json") > 100  # noqa: PTH202
