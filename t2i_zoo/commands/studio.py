"""What the page of ``t2i-zoo app`` draws: which generators there are, and rows, paths and attention."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import yaml  # type: ignore[import-untyped]
from PIL import Image
from torch import Tensor

from t2i_zoo.commands.captions import check_caption, notes_on_words
from t2i_zoo.commands.sample import about_images, caption_writer, truncated
from t2i_zoo.errors import T2IError
from t2i_zoo.hub import is_address
from t2i_zoo.models import MODELS, load_model
from t2i_zoo.models.drawing import Drawing
from t2i_zoo.paths import find_weights, shipped_generators
from t2i_zoo.pictures import save_images, to_pil
from t2i_zoo.runs import LAST
from t2i_zoo.sampling import draw_between, draw_rows, for_drawing

LONGEST = 1000  #: characters of a caption
MOST = 16  #: images of a row
_LOADED = 4  # models kept in memory
_KEPT = 200  # folders of drawn images
_SIDE = 256  # small images are enlarged to this in films and under attention


class Walk(NamedTuple):
    """A path between two captions: one PNG file per step, and a film there and back."""

    frames: list[Path]
    film: Path


class Studio:
    """Draws for a page; each method is one button.

    Args:
        runs: folder whose runs are offered, looked at anew each time.
        files: exported files, checkpoints, folders of runs and addresses of the hub beside them; what an address names
            is downloaded here, once.
        device: where models draw.
        stream: run of the STREAM that writes captions; by default the one that a MirrorGAN was trained with.
    """

    def __init__(self, runs: Path, files: Sequence[str] = (), device: str = "cpu", stream: str | None = None) -> None:
        self.runs, self.device, self.stream = runs, device, stream
        self.files = {file: str(find_weights(file)) if is_address(file) else file for file in files}
        self._models: OrderedDict[tuple[str, int], Drawing] = OrderedDict()
        self._folder, self._number = tempfile.TemporaryDirectory(prefix="t2i-zoo-"), itertools.count()
        self._lock = Lock()  # one at a time: two models on two threads of a CPU are not faster

    def generators(self) -> dict[str, str]:
        """What can be drawn with, by the name that the page shows: shipped generators, then files, then runs.

        A file whose name is taken has its path as its name, and one of the hub always its address.
        """
        found = {name: str(path) for name, path in shipped_generators().items()}
        for file, source in self.files.items():
            place = Path(file).expanduser().absolute()
            name = file if is_address(file) else place.name
            found[str(place) if name in found else name] = source
        for run in sorted(self.runs.glob("*/version_*")):
            if (run / LAST).is_file() and _draws(run):
                found[str(run.relative_to(self.runs))] = str(run)
        return found

    def warm(self) -> None:
        """Draw once with the first generator, so that the first visitor does not wait for imports and weights."""
        with suppress(T2IError):
            self.draw(list(self.generators())[:1], "a flower", 1, 0)

    def model(self, name: str) -> Drawing:
        """Load a generator, or take it from memory if its file is the same as before.

        Raises:
            T2IError: if it is gone, broken, or draws no images.
        """
        source = self.generators().get(name)
        if source is None:
            raise T2IError(f"found no generator {name!r} any more: reload the page")
        path = find_weights(source)
        key = str(path), path.stat().st_mtime_ns
        if key not in self._models:
            model = load_model(source, self.device)
            if not isinstance(model, Drawing):
                raise T2IError(f"{name} holds a {type(model).__name__}, which draws no images: choose another one")
            self._models[key] = for_drawing(model)
        self._models.move_to_end(key)
        while len(self._models) > _LOADED:
            self._models.popitem(last=False)
        return self._models[key]

    def draw(
        self,
        names: Sequence[str],
        caption: str,
        count: int,
        seed: int,
        truncation: float = 1.0,
        redescribe: bool = False,
    ) -> tuple[list[tuple[Path, str]], str]:
        """One caption by several generators, side by side: those with noise of one dimension get the same noise.

        Args:
            names: of ``generators``.
            caption: ignored by a generator without text.
            count: images by each.
            seed: of the noise, as that of ``t2i-zoo sample``.
            truncation: below 1, noise is cut and scaled as by ``--truncation``.
            redescribe: add what a STREAM writes about each image.

        Returns:
            A PNG file and a title for each image, the generators one after another; and notes on words.

        Raises:
            T2IError: for anything that cannot be drawn.
        """
        if not names:
            raise T2IError("found no generator, expected at least one: choose it above the caption")
        if not 1 <= count <= MOST:
            raise T2IError(f"found {count} images, expected 1 to {MOST}")
        drawn, notes = list[tuple[Path, str]](), dict[str, None]()
        with self._lock, torch.inference_mode():
            for name in names:
                model, noise = self._ready(name, [caption], count, seed, truncation)
                (row,) = draw_rows(model, [caption if model.conditional else ""], noise)
                writer = caption_writer(self.generators()[name], self.stream, model.device) if redescribe else None
                titles = [name if len(names) > 1 else ""] * len(row)
                if writer is not None:
                    texts = writer.describe(row)
                    titles = [f"{title}: {text}".lstrip(": ") for title, text in zip(titles, texts, strict=True)]
                cut = None if truncation == 1 else truncation
                drawn += zip(self._save(row, caption, about_images(model, seed, cut)), titles, strict=True)
                notes |= dict.fromkeys(notes_on_words(model, [caption]) if model.conditional else ["reads no captions"])
        return drawn, "\n".join(notes)

    def between(self, name: str, captions: tuple[str, str], steps: int, seed: int) -> Walk:
        """The path from one caption to another with constant noise.

        Raises:
            T2IError: for a blank caption, or a generator without text.
        """
        with self._lock, torch.inference_mode():
            model, noise = self._ready(name, captions, 1, seed, 1.0)
            if not model.conditional:
                raise T2IError(f"{name} was trained without text, so there is no path between captions")
            (row,) = draw_between(model, captions, steps, noise)
        frames = self._save(row, "  ->  ".join(captions), about_images(model, seed))
        large = [image.resize((max(_SIDE, image.width),) * 2) for image in to_pil(row)]
        film = frames[0].with_name("path.gif")
        large = [image.quantize(128, Image.Quantize.FASTOCTREE) for image in large]  # the default takes seconds
        large[0].save(film, save_all=True, append_images=[*large[1:], *large[-2:0:-1]], duration=120, loop=0)
        return Walk(frames, film)

    def attention(self, name: str, caption: str, seed: int) -> tuple[Any, list[tuple[Any, str]]]:
        """An image, and for each word which of its regions attended to it at the last stage.

        Returns:
            A PIL image and, for each word, a map (H, W) in 0..1 whose maximum is 1, and the word.

        Raises:
            T2IError: for a model that attends to no words.
        """
        with self._lock, torch.inference_mode():
            model, noise = self._ready(name, [caption], 1, seed, 1.0)
            fakes = model.sampled([caption], noise=noise) if model.attends else None
            if fakes is None or not fakes.attention:
                raise T2IError(f"{name} attends to no words: choose an AttnGAN, a MirrorGAN or a DM-GAN")
            (image,) = to_pil(fakes.images[-1])
            image = image.resize((max(_SIDE, image.width),) * 2)
            words, maps = model.text_encoder.tokens(caption), fakes.attention[-1][0].float()
        pairs = zip(maps, words, strict=False)  # maps have places for padding too
        return image, [(_spread(one, image.width), f"{i}. {word}") for i, (one, word) in enumerate(pairs, 1)]

    def _ready(
        self, name: str, captions: Sequence[str], count: int, seed: int, truncation: float
    ) -> tuple[Drawing, Tensor]:
        """The model and its noise, after every check that needs no image."""
        for caption in captions:
            if len(caption) > LONGEST:
                raise T2IError(f"found a caption of {len(caption):,} characters, expected at most {LONGEST:,}")
        if not 0 <= seed < 2**63:
            raise T2IError(f"found the seed {seed}, expected an integer from 0")
        model = self.model(name)
        if model.conditional:
            for caption in captions:
                check_caption(caption)
        noise = model.noise(count, torch.Generator().manual_seed(seed))
        return model, truncated(model, noise, None if truncation == 1 else truncation)

    def _save(self, row: Tensor, caption: str, about: dict[str, str]) -> list[Path]:
        """PNG files with all that repeats them; old ones are removed, so that the folder does not grow."""
        number = next(self._number)
        folder = Path(self._folder.name) / str(number)
        shutil.rmtree(folder.with_name(str(number - _KEPT)), ignore_errors=True)
        names = [f"{number:04d}_{i:02d}" for i in range(len(row))]
        save_images(row, [caption] * len(row), folder, names, about)
        return [folder / f"{name}.png" for name in names]


def _draws(run: Path) -> bool:
    """Whether the config of a run names a GAN of the zoo."""
    gans = {entry.path.rpartition(".")[2] for entry in MODELS.values() if entry.kind == "gan"}
    try:
        config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
        return str(config["model"]["class_path"]).rpartition(".")[2] in gans
    except (OSError, yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
        return False


def _spread(attention: Tensor, side: int) -> Any:
    """A map (H, H) enlarged to an image of this side, relative to its own maximum."""
    larger = F.interpolate(attention[None, None], (side, side), mode="bilinear", align_corners=False)[0, 0]
    return (larger / larger.max().clamp_min(1e-12)).cpu().numpy()
