"""Captions in a text file for each image: beside it, or under the same name in a folder of its own."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from t2i_zoo.data.columns import STRAY, TEXT_SUFFIXES
from t2i_zoo.data.names import Key, Names, fold, stem
from t2i_zoo.data.notes import remark, some, understood
from t2i_zoo.data.rows import Entry, captions_in
from t2i_zoo.errors import T2IError


def from_text_files(names: Names) -> list[Entry]:
    """Every image with the captions of its text file; what is left over is remarked.

    Raises:
        T2IError: if two images share a text file, or two text files fit an image.
    """
    twins = _twins(names, texts := [path for path in names.files if path.suffix.lower() in TEXT_SUFFIXES])
    shared: dict[Path, list[Path]] = defaultdict(list)
    for image, text in twins.items():
        shared[text].append(image)
    if twice := [f"{text.name}: {' and '.join(map(str, own))}" for text, own in shared.items() if len(own) > 1]:
        raise T2IError(
            f"images share a caption file and might fall into different splits ({some(twice)}), expected a name of its "
            "own for each image: rename one image of each pair, and give it a text file"
        )
    entries = []
    for image in names.images:
        captions, lacks = captions_in(twins.get(image, image.with_suffix(".txt")))
        entries.append(Entry(image, str(image), list(captions), lacks=f"{image}: {lacks}" if lacks else ""))
    for path in texts:
        if path not in shared and not STRAY.match(path.name):
            remark("text files that no image belongs to are not read", _orphan(path))
    apart = [text for image, text in twins.items() if text.parent != image.parent]
    understood("layout", "a text file for each image, " + (f"in {apart[0].parent.name}/" if apart else "beside it"))
    return entries


def _twins(names: Names, texts: list[Path]) -> dict[Path, Path]:
    """The text file of each image that has one."""
    exact: dict[Path, Path] = {}
    folded: dict[Key, list[Path]] = defaultdict(list)
    for path in reversed(texts):  # the first of several suffixes wins
        exact[path.with_suffix("")] = path
    for path in exact.values():
        folded[fold(names.relative(path.with_suffix("")))].append(path)
    twins, taken = {}, set[Path]()
    for image in names.images:
        if text := exact.get(image.with_suffix("")):
            twins[image] = text
            taken.add(text)
    for image in names.images:
        found = [text for text in folded.get(fold(names.relative(stem(image))), ()) if text not in taken]  # type: ignore[arg-type]
        if image in twins or not found:
            continue
        if len(found) > 1:
            raise T2IError(f"{image} may have its captions in {found[0]} or {found[1]}, expected one: rename the other")
        twins[image] = found[0]
        if found[0].stem != image.stem:
            remark("names matched though letter case or Unicode form differs", f"{found[0]} for {image.name}")
    if not twins:
        twins = _by_name(names, texts)
    return twins


def _by_name(names: Names, texts: list[Path]) -> dict[Path, Path]:
    """Twins in two folders of any names: the paths below these folders are equal."""

    def below(path: Path) -> Key:
        return fold(names.relative(path.with_suffix(""))[1:])

    nested = [path for path in (*names.images, *texts) if len(names.relative(path)) > 1]
    keys: dict[Key, list[Path]] = defaultdict(list)
    for path in nested:
        keys[below(path)].append(path)
    pairs = [sorted(found, key=lambda path: path.suffix.lower() in TEXT_SUFFIXES) for found in keys.values()]
    kinds = {path: path.suffix.lower() in TEXT_SUFFIXES for path in nested}
    return {pair[0]: pair[1] for pair in pairs if [kinds[path] for path in pair] == [False, True]}


def _orphan(path: Path) -> str:
    """A text file without an image, and what is beside it in its place."""
    others = [other.name for other in sorted(path.parent.glob(f"{_escaped(path.stem)}.*")) if other != path]
    return f"{path} (beside it is {others[0]}: convert it to PNG or JPEG)" if others else str(path)


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)
