"""``t2i-zoo sample``: images for your own captions, and the paths between two captions or two noise vectors."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from t2i_zoo.commands.captions import check_caption, note_on_quotes, notes_on_words, read_captions, usable
from t2i_zoo.errors import T2IError
from t2i_zoo.files import replacing
from t2i_zoo.fonts import Letters
from t2i_zoo.hub import is_address
from t2i_zoo.models import load_model
from t2i_zoo.models.drawing import Drawing
from t2i_zoo.models.state import read_checkpoint
from t2i_zoo.paths import check_new, find_weights, shipped_generators
from t2i_zoo.pictures import caption_grid, grid_size, save_beside, save_images, truncate_noise
from t2i_zoo.sampling import draw_between, draw_rows, for_drawing, images_at_once
from t2i_zoo.version import __version__

if TYPE_CHECKING:
    from t2i_zoo.models.stream import STREAM

_ROWS = 200  # of a grid
_COLUMNS = 64  # of a grid beside a folder that has all images
_PATHS = 4  # between two captions
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_LARGEST = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}  #: pixels a side, of libjpeg and of WebP


def sample(
    ckpt: str | None = None,
    text: Sequence[str] = (),
    model: str | None = None,
    text_file: str | None = None,
    n: int = 8,
    seed: int = 0,
    out: str = "samples.png",
    folder: str | None = None,
    interpolate: tuple[str, str] | None = None,
    interpolate_noise: bool = False,
    redescribe: bool = False,
    stream: str | None = None,
    live: bool = False,
    device: str = "auto",
    batch_size: int | None = None,
    bf16: bool = False,
    truncation: float | None = None,
    font: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Draw images for your own captions.

    The grid has one row for each caption. All rows share their noise, so that only the words differ between them.

    Args:
        ckpt: A .ckpt or .safetensors file, or the folder of a run.
        text: One caption or several.
        model: Name of a generator that comes with the package (``t2i-zoo list`` names them), a file, or
            hf://user/name@revision on the Hugging Face hub.
        text_file: Text file with one caption per line, drawn after those of --text.
        n: Images for each caption, or steps of each path.
        seed: Seed of the noise; the same seed draws the same images.
        out: Image file of the grid with its captions.
        folder: Write each image as a PNG file into this folder too, with captions.json, as it is drawn; the grid
            then shows the first 64 of each row. PNG files hold caption, model, seed and version in their text fields.
        interpolate: Two captions; draw the paths from the first to the second, each with constant noise.
        interpolate_noise: Draw each row as the path from one noise vector to another.
        redescribe: Print below each image the caption that a STREAM writes for it.
        stream: Run of that STREAM; by default the one that the MirrorGAN was trained with.
        live: Use the last weights and not their moving average.
        device: Device such as cpu, cuda, cuda:1 or mps; auto uses the GPU if there is one.
        batch_size: Images drawn at once; by default as many as fit into a quarter of the free memory, and no more
            than 16 on a CPU and 256 on a GPU.
        bf16: Draw, and redescribe, in bfloat16: faster where the processor has instructions for it; pixels differ by
            rounding.
        truncation: Cut the normal noise at -2 and 2 and multiply it by this number, such as 0.88; smaller numbers give
            more typical and less varied images.
        font: Font file for the captions; by default each script is drawn with a font that this machine has.
        overwrite: Replace existing files.

    Returns:
        Path of the grid.

    Raises:
        T2IError: without captions, for a missing file, or for noise that cannot be truncated.
    """
    if (model is None) == (ckpt is None):
        which = "neither --model nor --ckpt" if ckpt is None else "both --model and --ckpt"
        raise T2IError(f"found {which}, expected one: --model NAME comes with the package, --ckpt RUN is your own")
    source = ckpt if ckpt is not None else find_generator(str(model))
    source = str(find_weights(source)) if is_address(source) else source
    if interpolate is not None and (text or text_file or interpolate_noise):
        raise T2IError("found --interpolate beside --text, --text-file or --interpolate-noise: draw them one by one")
    if stream and not redescribe:
        raise T2IError("found --stream without --redescribe, which reads images with it: add --redescribe")
    captions = list(interpolate or text) + (read_captions(text_file) if text_file else [])
    usable(captions, [check_caption], skip=interpolate is None)
    check_at_least(1, n=n, batch_size=1 if batch_size is None else batch_size)
    check_at_least(0, seed=seed)
    if truncation is not None and not 0 < truncation <= 1:
        raise T2IError(f"found --truncation {truncation}, expected a number above 0 and up to 1, such as 0.88")
    path, singles = image_path(out), Path(folder).expanduser() if folder else None
    rows = _PATHS if interpolate else max(len(captions), 1)
    names = ["captions.json", *(f"{_name(i, j)}.png" for i in range(rows) for j in range(n))]
    check_new(path, overwrite=overwrite)
    check_new(*(singles / name for name in names if singles), overwrite=overwrite, option="--folder")
    Letters(1, font)  # raises for a file that is no font
    generator = _load(source, captions, live, pick_device(device))
    writer = caption_writer(source, stream, generator.device) if redescribe else None
    checks = [check_caption, lambda caption: generator.encode([caption])]
    captions, left_out = usable(captions, checks, skip=interpolate is None)
    for note in [*left_out, *note_on_quotes(text), *notes_on_words(generator, captions)]:
        print(f"note: {note}", file=sys.stderr)

    rng = torch.Generator().manual_seed(seed)
    if interpolate is not None:
        noise = truncated(generator, generator.noise(_PATHS, rng), truncation)
        titles = [f"{interpolate[0]}  ->  {interpolate[1]}"] * len(noise)
        draw: Any = partial(draw_between, generator, interpolate, n, noise)
    else:
        noise = generator.noise_path(n, rng) if interpolate_noise else generator.noise(n, rng)
        noise = truncated(generator, noise, truncation)
        titles = captions or [""]
        draw = partial(draw_rows, generator, titles, noise)
    page = (_ROWS, _COLUMNS if singles else n)
    check_fits(path, *grid_size(generator.hparams["image_size"], min(n, page[1]), titles[:_ROWS], font))
    about, notes = about_images(generator, seed, truncation), [list[str]() for _ in titles]
    from rich.console import Console
    from rich.progress import Progress

    at_once = batch_size or (images_at_once(generator, captions[0] if captions else "") if n > 1 else 1)
    half = torch.autocast(generator.device.type, torch.bfloat16, enabled=bf16)
    with half, Progress(console=Console(stderr=True), disable=n * len(titles) <= at_once) as bar:
        task = bar.add_task("drawing", total=n * len(titles))

        def see(row: int, column: int, images: Tensor) -> None:
            if singles:
                names = [_name(row, column + j) for j in range(len(images))]
                save_images(images, [titles[row]] * len(images), singles, names, about)
            if writer is not None:
                notes[row] += writer.describe(images)
            bar.advance(task, len(images))

        rows = draw(ema=not live, batch_size=at_once, see=see, page=page)
    for title, said in zip(titles, notes if writer else [], strict=False):
        print("\n  ".join([title, *said]))
    if singles:
        named = {f"{_name(i, j)}.png": title for i, title in enumerate(titles) for j in range(n)}
        with replacing(singles / "captions.json") as partly:
            partly.write_text(json.dumps(named, indent=1, ensure_ascii=False), "utf-8")
        print(f"one by one: {singles}")
    shown = [said[: len(rows[0])] for said in notes[:_ROWS]] if writer else None
    grid = caption_grid(rows, titles[:_ROWS], notes=shown, font=font)
    check_fits(path, *grid.size)  # with notes it is higher
    save_beside(grid, path, {"Description": "\n".join(titles[:_ROWS]), **about})
    rest = f", of the first {_ROWS} of {len(titles)} captions" if len(titles) > _ROWS else ""
    rest = f" of {n} for each caption{rest}" if len(rows[0]) < n else rest
    print(f"{sum(map(len, rows))} images{rest}: {path}")
    return path


def about_images(model: Drawing, seed: int, truncation: float | None = None) -> dict[str, str]:
    """What the text fields of a PNG file say beside its caption: software, model and noise."""
    about = {"Software": f"t2i-zoo {__version__}", "Seed": str(seed)}
    about["Model"] = f"{type(model).__name__}, {model.hparams['image_size']} px, {model.clock} batches"
    return about if truncation is None else {**about, "Truncation": str(truncation)}


def truncated(model: Drawing, noise: Tensor, truncation: float | None) -> Tensor:
    """Normal noise cut at -2 and 2 and multiplied, as the authors of DF-GAN do with 0.88."""
    if truncation is None:
        return noise
    if not model.noise_is_normal:
        raise T2IError(
            f"found --truncation {truncation} and a {type(model).__name__}, whose noise is not normal: leave it out"
        )
    return truncation * truncate_noise(noise, 2.0)


def _load(source: str, captions: Sequence[str], live: bool, device: str) -> Drawing:
    """The model, if it can draw what is asked for."""
    check_live(source, live)
    model = load_model(source, device)
    if not isinstance(model, Drawing):
        raise T2IError(f"{source} holds a {type(model).__name__}, which draws no images: give a run of a GAN")
    if captions and not model.conditional:
        raise T2IError(
            f"{source} holds a model without text, which reads no captions: leave out --text and --text-file"
        )
    if not captions and model.conditional:
        raise T2IError('found no caption to draw: give --text "what the image should show" or --text-file FILE')
    return for_drawing(model)


def caption_writer(source: str, stream: str | None, device: torch.device) -> STREAM:
    """The STREAM of a run, by default the one that the MirrorGAN of ``source`` was trained with."""
    from t2i_zoo.models.stream import STREAM

    place = find_weights(source)
    if stream is None and place.suffix == ".ckpt":
        stream = read_checkpoint(place)["hyper_parameters"].get("stream")
    if not stream:
        raise T2IError(f"{source} was trained without a STREAM: name the run of one with --stream RUN")
    if not Path(stream).expanduser().exists():
        raise T2IError(f"found no run of a STREAM at {stream}: name it with --stream RUN")
    writer = load_model(stream, str(device))
    if not isinstance(writer, STREAM):
        raise T2IError(f"--stream {stream} holds a {type(writer).__name__}, expected the run of a STREAM")
    return writer


def _name(row: int, column: int) -> str:
    """The name of a single image, without its suffix."""
    return f"{row:04d}_{column:02d}"


def check_live(source: str, live: bool) -> None:
    """Raise where the last weights are asked for and the file holds the averaged ones alone."""
    if live and find_weights(source).suffix == ".safetensors":
        raise T2IError(f"found --live and {source}, which holds no other weights than it draws with: leave out --live")


def check_at_least(least: int, **options: int) -> None:
    """Raise for an option below ``least``, or too large for a seed."""
    for name, value in options.items():
        if not least <= value < 2**63:
            raise T2IError(f"found --{name.replace('_', '-')} {value}, expected an integer from {least}")


def image_path(out: str) -> Path:
    """The path of an image file that ``--out`` names."""
    path = Path(out).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise T2IError(f"found --out {out}, expected a file name that ends in {', '.join(SUFFIXES)}")
    return path


def check_fits(path: Path, width: int, height: int) -> None:
    """Raise for a page that is larger than a file of its kind can be."""
    kind = path.suffix.lower()
    if max(width, height) > (most := _LARGEST.get(kind, 2**31 - 1)):
        raise T2IError(
            f"found a page of {width:,} x {height:,} pixels, expected at most {most:,} a side in a {kind} file: "
            "change --out to a .png file"
        )


def pick_device(wish: str) -> str:
    """The device that an option names; ``auto`` is the GPU if there is one."""
    if wish == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=wish)
    except (RuntimeError, AssertionError):
        raise T2IError(f"found no device {wish!r}: use --device cpu") from None
    return wish


def find_generator(name: str) -> str:
    """The file that ``--model`` names: a generator of the package, the path of a file or run, or an address of the hub.

    Raises:
        T2IError: where there is neither, with the names that there are.
    """
    shipped = shipped_generators()
    if name in shipped:
        return str(shipped[name])
    if is_address(name) or Path(name).expanduser().exists():
        return name
    expected = ", ".join(shipped) or "a file, since none came with this installation"
    near = difflib.get_close_matches(name, shipped, 1)
    hint = f"did you mean {near[0]}?" if near else "correct --model"
    raise T2IError(f"found no generator {name!r} in the package, expected {expected}: {hint}")
