"""Synthetic flowers: the layout, the truth of pictures, masks and captions, and the safety of the folder."""

import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import label

from t2i_zoo.data import synthetic
from t2i_zoo.data.drawing import (
    BACKGROUNDS,
    CENTRE_COLOURS,
    PETAL_COLOURS,
    PETAL_COUNTS,
    PETAL_SHAPES,
    Flower,
    draw_flower,
)
from t2i_zoo.data.flowers import Flowers102
from t2i_zoo.data.synthetic import (
    CLASSES,
    COUNT_WORDS,
    HELD_OUT,
    PHRASINGS,
    SyntheticFlowers,
    read_attributes,
    write_captions,
)
from t2i_zoo.errors import T2IError

IMAGES = 72


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SyntheticFlowers:
    source = SyntheticFlowers(root=str(tmp_path_factory.mktemp("cache") / "flowers"), images=IMAGES)
    source.records()
    return source


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image)


def files(root: Path) -> dict[str, bytes]:
    paths = sorted(path for path in root.rglob("*") if path.suffix in (".jpg", ".png", ".txt", ".jsonl"))
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def distance(colour: Any, name: str, table: dict[str, tuple[int, int, int]]) -> float:
    return float(np.linalg.norm(np.asarray(colour) - table[name]))


def test_layout_is_read_by_the_real_loader(source: SyntheticFlowers) -> None:
    records = Flowers102(source.root).records()
    assert records == source.records()
    assert len(records) == IMAGES
    assert {record.class_id for record in records} == set(range(len(CLASSES)))
    assert all(6 <= len(set(record.captions)) <= 10 for record in records)
    names = {
        "jpg",
        "masks",
        "text_c10",
        "imagelabels.mat",
        "setid.mat",
        "cat_to_name.json",
        "attributes.jsonl",
    }
    assert names <= {path.name for path in source.path.iterdir()}
    assert {r.split for r in Flowers102(source.root, "official").records()} == {"train", "val", "test"}
    assert pixels(records[0].image).shape == (96, 96, 3)


def test_every_colour_and_shape_is_seen_in_training(source: SyntheticFlowers) -> None:
    records = source.records()
    assert {CLASSES[r.class_id or 0] for r in records if r.split == "test"} == set(HELD_OUT)
    training = [CLASSES[r.class_id or 0] for r in records if r.split == "train"]
    assert {colour for colour, _ in training} == set(PETAL_COLOURS)
    assert {shape for _, shape in training} == set(PETAL_SHAPES)


def test_attributes_agree_with_the_classes(source: SyntheticFlowers) -> None:
    for record, truth in zip(source.records(), read_attributes(source.path), strict=True):
        assert record.image.name == truth["file_name"]
        assert CLASSES[record.class_id or 0] == (truth["petal_colour"], truth["petal_shape"])
        assert truth["petal_count"] in PETAL_COUNTS
        assert truth["centre_colour"] in CENTRE_COLOURS
        assert truth["background"] in BACKGROUNDS


def test_pictures_show_the_named_colours_inside_the_masks(source: SyntheticFlowers) -> None:
    for truth in read_attributes(source.path):
        image = pixels(source.path / "jpg" / truth["file_name"]).astype(float)
        mask = pixels(source.path / "masks" / truth["file_name"].replace(".jpg", ".png"))
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 1, 2}
        petals = image[mask == 1].mean(axis=0)
        assert distance(petals, truth["petal_colour"], PETAL_COLOURS) < 60
        assert min(PETAL_COLOURS, key=lambda n: distance(petals, n, PETAL_COLOURS)) == truth["petal_colour"]
        centre = image[mask == 2].mean(axis=0)
        assert min(CENTRE_COLOURS, key=lambda n: distance(centre, n, CENTRE_COLOURS)) == truth["centre_colour"]
        tones = {name: tuple(np.mean(pair, axis=0)) for name, pair in BACKGROUNDS.items()}
        ground = np.median(image[mask == 0], axis=0)
        assert min(tones, key=lambda n: distance(ground, n, tones)) == truth["background"]


@pytest.mark.parametrize("shape", PETAL_SHAPES)
@pytest.mark.parametrize("count", PETAL_COUNTS)
def test_petals_can_be_counted_in_the_mask(shape: str, count: int) -> None:
    for seed in range(3):
        _, mask = draw_flower(Flower("red", count, shape, "black", "sand"), 192, np.random.default_rng(seed))
        middle = np.argwhere(mask == 2).mean(axis=0)
        reach = np.linalg.norm(np.indices(mask.shape) - middle[:, None, None], axis=0)
        outer = (mask > 0) & (reach > (0.84 if shape == "round" else 0.6) * reach[mask > 0].max())
        sizes = np.bincount(label(outer)[0].ravel())[1:]
        assert (sizes > 12).sum() == count  # a few pixels at a seam are no petal


def test_flower_fills_the_picture() -> None:
    for seed in range(20):
        _, mask = draw_flower(Flower("red", 8, "round", "black", "sand"), 96, np.random.default_rng(seed))
        rows = np.nonzero(mask.any(axis=1))[0]
        assert 0.62 * 96 <= rows[-1] - rows[0] + 1 <= 0.91 * 96


def test_petal_colours_are_well_apart() -> None:
    for first, second in combinations(PETAL_COLOURS, 2):
        assert distance(PETAL_COLOURS[first], second, PETAL_COLOURS) >= 100


def test_captions_tell_the_truth(source: SyntheticFlowers) -> None:
    for record, truth in zip(source.records(), read_attributes(source.path), strict=True):
        own = {truth["petal_colour"], truth["centre_colour"], truth["petal_shape"], truth["background"]}
        own.add(COUNT_WORDS[truth["petal_count"]])
        known = {*PETAL_COLOURS, *CENTRE_COLOURS, *PETAL_SHAPES, *BACKGROUNDS, *COUNT_WORDS.values()}
        for caption in record.captions:
            words = caption.split()
            assert caption == " ".join(words)
            assert caption.replace(" ", "").isalpha()
            assert caption.islower()
            assert truth["petal_colour"] in words
            assert set(words) & known <= own
            assert "a orange" not in caption


def test_phrasings() -> None:
    assert len(PHRASINGS) >= 10
    assert all("{colour}" in phrasing for phrasing in PHRASINGS)
    captions = write_captions(Flower("orange", 5, "round", "green", "sky"), np.random.default_rng(0))
    assert any("an orange" in caption for caption in captions)


def test_drawing_follows_the_seed(source: SyntheticFlowers, tmp_path: Path) -> None:
    again = SyntheticFlowers(root=str(tmp_path / "again"), images=IMAGES)
    other = SyntheticFlowers(root=str(tmp_path / "other"), images=IMAGES, seed=1)
    again.records()
    other.records()
    first, second, third = (files(path) for path in (source.path, again.path, other.path))
    assert first == second
    assert first["jpg/image_00001.jpg"] != third["jpg/image_00001.jpg"]
    assert first["attributes.jsonl"] != third["attributes.jsonl"]


def test_second_call_draws_nothing(source: SyntheticFlowers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "draw_flower", None)
    assert len(source.records()) == IMAGES


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T2I_ZOO_CACHE", str(tmp_path))
    source = SyntheticFlowers(images=24, size=32, seed=3)
    assert source.path == tmp_path / f"synthetic-24-32-3-v{synthetic.FORMAT}"
    assert pixels(source.records()[0].image).shape == (32, 32, 3)


def test_killed_run_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SyntheticFlowers(root=str(tmp_path / "flowers"), images=24, size=16)
    leftover = tmp_path / ".flowers.unfinished/jpg"  # of a run that had no time to clean up
    leftover.mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "_write_lists", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            source.records()
    assert not source.path.exists()
    assert len(source.records()) == 24
    assert not leftover.parent.exists()


def test_two_processes_at_once(tmp_path: Path) -> None:
    code = (
        "from t2i_zoo.data.synthetic import SyntheticFlowers; "
        f"print(len(SyntheticFlowers(root={str(tmp_path / 'flowers')!r}, images=48, size=32).records()))"
    )
    checkout = Path(__file__).resolve().parents[2]
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=checkout) for _ in range(2)]
    assert [run.communicate(timeout=300)[0].strip() for run in runs] == [b"48", b"48"]


def test_import_is_light() -> None:
    code = (
        "import sys, t2i_zoo.data.flowers, t2i_zoo.data.folder, t2i_zoo.data.synthetic; "
        "print([m for m in ('torch', 'lightning', 'scipy', 'PIL', 'filelock') if m in sys.modules])"
    )
    checkout = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=checkout, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"images": 23}, r"23 images.*at least 24.*--data\.source\.images"),
        ({"size": 8}, r"size of 8 pixels.*--data\.source\.size"),
        ({"seed": -1}, r"seed is -1"),
    ],
)
def test_settings_out_of_range(tmp_path: Path, settings: dict[str, int], match: str) -> None:
    with pytest.raises(T2IError, match=match):
        SyntheticFlowers(root=str(tmp_path / "flowers"), **settings).records()  # type: ignore[arg-type]


def test_folder_of_something_else_is_never_overwritten(source: SyntheticFlowers, tmp_path: Path) -> None:
    (tmp_path / "diary.txt").touch()
    with pytest.raises(T2IError, match=r"holds something else .*--data\.source\.root"):
        SyntheticFlowers(root=str(tmp_path)).records()
    with pytest.raises(T2IError, match=r"holds \{\"images\": 72.*instead of .*\"images\": 99"):
        SyntheticFlowers(root=source.root, images=99).records()


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(T2IError, match=r"cannot be written to .*T2I_ZOO_CACHE"):
        SyntheticFlowers(root=str(tmp_path / "file/flowers"), images=24).records()


def test_missing_attributes(tmp_path: Path) -> None:
    with pytest.raises(T2IError, match=r"there is no .*attributes\.jsonl"):
        read_attributes(tmp_path)
