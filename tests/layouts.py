"""Small folders in the very layouts of CUB-200-2011 and COCO, with drawn pictures; for tests of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from t2i_zoo.data.packing import StoreSpec, listing
from t2i_zoo.data.records import Record, Source

CLASSES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross", "004.Groove_billed_Ani")
CATEGORIES = {1: "person", 3: "car", 18: "dog"}  # numbers have gaps in COCO too


def picture(path: Path, width: int, height: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    low = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(low).resize((width, height), Image.Resampling.BILINEAR).save(path, quality=90)


def write_cub(root: Path, pictures: int = 24) -> Path:
    """CUB-200-2011 with the first four classes, the last of them for test; the captions as Reed et al. have them."""
    base = root / "CUB_200_2011"
    tables: dict[str, list[str]] = {
        name: [] for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes")
    }
    for number in range(1, pictures + 1):
        label = (number - 1) % len(CLASSES)
        stem = f"{CLASSES[label]}/{CLASSES[label][4:]}_{number:04d}_{1000 + number}"
        width, height = (40, 30) if number % 2 else (30, 44)
        picture(base / "images" / f"{stem}.jpg", width, height, number)
        tables["images"].append(f"{number} {stem}.jpg")
        tables["image_class_labels"].append(f"{number} {label + 1}")
        tables["train_test_split"].append(f"{number} {number % 2}")
        tables["bounding_boxes"].append(f"{number} 8.0 6.0 16.0 12.0")
        text = root / "text_c10" / f"{stem}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("".join(f"this bird number {number} is seen {i} times .\n" for i in range(10)))
    tables["classes"] = [f"{i} {name}" for i, name in enumerate(CLASSES, start=1)]
    for name, lines in tables.items():
        (base / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (root / "trainvalclasses.txt").write_text("\n".join(CLASSES[:3]) + "\n")
    (root / "testclasses.txt").write_text(CLASSES[3] + "\n")
    return root


def write_coco(root: Path, pictures: int = 24, year: str = "2014") -> Path:
    """COCO with a third of the pictures in the validation set; every picture has five captions, one of them six."""
    for part, first, last in (("train", 0, 2 * pictures // 3), ("val", 2 * pictures // 3, pictures)):
        images, captions, instances = [], [], []
        for i in range(first, last):
            key = 9 + 7 * i
            name = f"COCO_{part}2014_{key:012d}.jpg" if year == "2014" else f"{key:012d}.jpg"
            picture(root / f"{part}{year}" / name, 32 + i % 3, 28, i)
            images.append({"id": key, "file_name": name, "width": 32 + i % 3, "height": 28})
            for j in range(6 if i == 0 else 5):
                text = f"A car number {i} is parked, \nseen {j} times."
                captions.append({"id": 100 * i + j, "image_id": key, "caption": text})
            if i % 4:  # every fourth has no object
                for area, category in ((10.5, 1), (99.0 + i, 3 if i % 2 else 18)):
                    instances.append({"id": len(instances), "image_id": key, "area": area, "category_id": category})
        captions = captions[::2] + captions[1::2]  # in the published files, too, they do not lie in a row
        folder = root / "annotations"
        folder.mkdir(parents=True, exist_ok=True)
        content = {"info": {}, "licenses": [], "images": images}
        (folder / f"captions_{part}{year}.json").write_text(json.dumps({**content, "annotations": captions}))
        listed = [{"id": key, "name": name} for key, name in CATEGORIES.items()]
        instances_file = folder / f"instances_{part}{year}.json"
        instances_file.write_text(json.dumps({**content, "annotations": instances, "categories": listed}))
    return root


def records_of(source: Source) -> list[Record]:
    """What packing takes of a source; it raises for images and captions that are not there."""
    return listing(StoreSpec(source, 16))[0]
