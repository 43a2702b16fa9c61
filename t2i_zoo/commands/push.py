"""``t2i-zoo push``: a generator as a repository of the Hugging Face hub, or as the folder of one."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]

from t2i_zoo.commands.captions import check_caption, note_on_quotes
from t2i_zoo.commands.export import card_of, load_generator, write_weights
from t2i_zoo.errors import T2IError
from t2i_zoo.files import replacing, sha256
from t2i_zoo.hub import CARD, CONFIG, GRID, LIBRARY, WEIGHTS, upload
from t2i_zoo.models import MODELS
from t2i_zoo.models.drawing import Drawing
from t2i_zoo.models.state import read_weights
from t2i_zoo.paths import check_new, find_weights, shipped_generators
from t2i_zoo.pictures import caption_grid
from t2i_zoo.runs import run_of_checkpoint
from t2i_zoo.sampling import draw_rows

_FILES = (WEIGHTS, CONFIG, CARD, GRID)
_BIBTEX = Path(__file__).parents[1] / "models" / "citations.bib"
_LARGE = ("assets", "vocabulary", "words")  #: entries of a header that only the file of the weights has


def push(
    *repository: str,
    ckpt: str,
    to_folder: str | None = None,
    private: bool = False,
    revision: str | None = None,
    text: Sequence[str] = (),
    about: str | None = None,
    licence: str | None = None,
    overwrite: bool = False,
) -> Path | str:
    """Push a generator with its card to the Hugging Face hub, from where hf://user/name loads it.

    Only model.safetensors, config.json, README.md and samples.png are pushed. It needs a login: hf auth login, or a
    token in the environment variable HF_TOKEN.

    Args:
        repository: Where to push it, as user/name or hf://user/name.
        ckpt: A .ckpt or .safetensors file, the folder of a run, or the name of a generator of the package.
        to_folder: Write the files into this folder instead; the other commands load it by its path.
        private: Make a new repository private.
        revision: Branch to push to, made if it is missing; by default main.
        text: Captions of the samples on the card; by default the newest samples of the run.
        about: One line that describes the generator, the first of the card.
        licence: Licence of data and weights: an identifier of the hub such as apache-2.0, or terms in words.
        overwrite: Replace files in --to-folder.

    Returns:
        Address of the commit, or path of the folder.

    Raises:
        T2IError: where the run is no GAN, or the hub refuses the files.
    """
    names = [name.removeprefix("hf://") for name in repository]
    if (len(names) != 1) == (to_folder is None) or not all(map(_is_name, names)):
        folders = [] if to_folder is None else [f"--to-folder {to_folder}"]
        found = " and ".join([*repository, *folders]) or "no repository"
        raise T2IError(f"found {found}, expected user/name or --to-folder FOLDER: t2i-zoo push --ckpt RUN user/name")
    for caption in text:
        check_caption(caption)
    if to_folder is not None:
        if private or revision:
            which = "--private" if private else f"--revision {revision}"
            raise T2IError(f"found {which} beside --to-folder, which pushes nothing: leave it out")
        folder = Path(to_folder).expanduser()
        if folder.exists() and folder.samefile(find_weights(ckpt).parent):  # whose card knows more than its file
            raise T2IError(f"found --ckpt {ckpt} in --to-folder {to_folder}, expected another folder")
        check_new(*(folder / name for name in _FILES), overwrite=overwrite, option="--to-folder")
        with _repository(ckpt, folder.name, text, about, licence) as made:
            _copy(made, folder)
        print(f"{folder} holds what t2i-zoo push would upload: t2i-zoo sample --model {folder} draws with it")
        return folder
    if overwrite:
        raise T2IError("found --overwrite without --to-folder; a push to the hub adds a commit: leave it out")
    address = f"hf://{names[0]}" + (f"@{revision}" if revision else "")
    with _repository(ckpt, address, text, about, licence) as made:
        commit = upload(made, names[0], private, revision)
    print(f'{commit}\nt2i-zoo sample --model {address} --text "..." draws with it')
    return commit


def _is_name(repository: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", repository) is not None


@contextmanager
def _repository(ckpt: str, address: str, text: Sequence[str], about: str | None, licence: str | None) -> Iterator[Path]:
    """A temporary folder with the files of a repository, all of them or an error; see ``push``."""
    source = find_weights(ckpt)
    model = load_generator(ckpt, source)
    for note in note_on_quotes(text):
        print(f"note: {note}", file=sys.stderr)
    with TemporaryDirectory() as name:
        folder, weights = Path(name), Path(name) / WEIGHTS
        grid = _grid(model, source, folder / GRID, text)
        if source.suffix == ".safetensors":
            shutil.copyfile(source, weights)
        else:
            write_weights(model, weights)
        (folder / CONFIG).write_text(json.dumps(_config(weights), indent=1) + "\n", "utf-8")
        (folder / CARD).write_text(_card(model, source, weights, grid, address, about, licence), "utf-8")
        yield folder


def _copy(made: Path, folder: Path) -> None:
    """Copy the files of a repository into a folder, each whole."""
    try:
        for path in made.iterdir():
            with replacing(folder / path.name) as partial:
                shutil.copyfile(path, partial)
    except OSError as error:
        raise T2IError(
            f"cannot write {error.filename or folder} ({error.strerror}): give another --to-folder"
        ) from error


def _config(weights: Path) -> dict[str, Any]:
    """What the header of the weights says, without words of the captions, and the hash of the file."""
    header = {key: value for key, value in read_weights(weights)[1].items() if key not in _LARGE}
    encoder = header["hparams"].get("text_encoder")
    if isinstance(encoder, dict):
        encoder = {key: value for key, value in encoder.items() if key not in _LARGE}
        header["hparams"] = {**header["hparams"], "text_encoder": encoder}
    return {"library_name": LIBRARY, "sha256": sha256(weights), **header}


def _grid(model: Drawing, source: Path, path: Path, text: Sequence[str]) -> bool:
    """Write the samples of the card, if there are captions or a run that drew some."""
    if text:
        rows = draw_rows(model, list(text), model.noise(6, torch.Generator().manual_seed(0)))
        caption_grid(rows, list(text)).save(path)
        return True
    run = run_of_checkpoint(source)
    drawn = sorted((run / "samples").glob("*.png")) if run else []
    if drawn:
        shutil.copyfile(drawn[-1], path)
    return bool(drawn)


def _card(
    model: Drawing, source: Path, weights: Path, grid: bool, address: str, about: str | None, licence: str | None
) -> str:
    """The card of ``t2i-zoo export`` with the hub's front matter, samples and the citation of the paper."""
    name = read_weights(weights)[1].get("model")
    shipped = "apache-2.0" if source in shipped_generators().values() else None  # which is the package's own
    identified = licence is not None and re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence)
    task = "text-to-image" if model.conditional else "unconditional-image-generation"
    matter = {
        "library_name": LIBRARY,
        "pipeline_tag": task,
        "license": licence if identified else "other" if licence else shipped or "unknown",
        "tags": [task, "gan", *([name] if name in MODELS else [])],
    }
    card = card_of(source, weights, model, about, licence, address)
    title, _, rest = card.partition("\n")
    samples = f"\n![Samples with their captions]({GRID})\n" if grid else ""
    cited = re.search(rf"@\w+{{{name},.*?\n}}", _BIBTEX.read_text("utf-8"), re.DOTALL)
    citation = f"\n## Citation\n\nThe paper of the model:\n\n```bibtex\n{cited[0]}\n```\n" if cited else ""
    return f"---\n{yaml.safe_dump(matter, sort_keys=False)}---\n\n{title}\n{samples}{rest}{citation}"
