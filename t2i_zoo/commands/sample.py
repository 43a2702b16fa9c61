"""``t2i-zoo sample``: pictures of one's own sentences, and the paths between two sentences or two noises."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from t2i_zoo.callbacks.samples import save_pictures
from t2i_zoo.errors import T2IError
from t2i_zoo.models import load_model
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.state import read_checkpoint
from t2i_zoo.parsing import Parser
from t2i_zoo.paths import find_checkpoint, shipped_generators
from t2i_zoo.pictures import caption_grid, save_beside
from t2i_zoo.text import TextFeatures

if TYPE_CHECKING:
    from t2i_zoo.models.stream import STREAM

_ROWS = 200  # of a page: a JPEG has at most 65,535 pixels a side
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def sample(
    ckpt: str,
    text: Sequence[str] = (),
    text_file: str | None = None,
    n: int = 8,
    seed: int = 0,
    out: str = "samples.png",
    folder: str | None = None,
    interpolate: Sequence[str] | None = None,
    interpolate_noise_: bool = False,
    ema: bool = True,
    device: str = "auto",
    batch_size: int = 64,
    redescribe: bool = False,
    stream: str | None = None,
) -> Path:
    """Draw a grid with one row a caption; the same seed draws the same pictures.

    Args:
        ckpt: a .ckpt file, the folder of a run, an exported file, or the name of a generator of the package.
        text: captions.
        text_file: file with a caption a line, after those of ``text``.
        n: pictures of each caption, or steps of each path.
        seed: of the noise; all captions share it, so that only the words differ between rows.
        out: the grid's file.
        folder: write each picture as a PNG there too, with ``captions.json``.
        interpolate: two captions; each row leads from the first to the second with one noise.
        interpolate_noise_: each caption's row leads from one noise to another.
        ema: averaged weights; False takes the last ones.
        device: ``auto`` is the GPU where there is one.
        batch_size: pictures drawn at once.
        redescribe: print what a STREAM reads in each picture below it, and say it.
        stream: the run of that STREAM; by default the one that a MirrorGAN was trained with.

    Returns:
        Path of the grid.

    Raises:
        T2IError: without captions, for a blank one, or for files that are not there.
    """
    captions = [*text, *(_read_captions(Path(text_file).expanduser()) if text_file else [])]
    if interpolate is not None and (captions or interpolate_noise_):
        raise T2IError("found --interpolate beside --text, --text-file or --interpolate-noise: draw them one by one")
    captions = [*captions, *(interpolate or [])]
    path = Path(out).expanduser()
    if blank := [caption for caption in captions if not caption.strip()]:
        raise T2IError(f"found a blank caption {blank[0]!r}: write what the picture should show")
    if broken := [caption for caption in captions if not caption.isascii() and caption != _as_utf8(caption)]:
        raise T2IError(f"found a caption that is not UTF-8 text, {_as_utf8(broken[0])!r}: save or type it as UTF-8")
    for name, value, least in (("n", n, 1), ("batch-size", batch_size, 1), ("seed", seed, 0)):
        if not least <= value < 2**63:
            raise T2IError(f"found --{name} {value}, expected a whole number from {least}")
    if path.suffix.lower() not in SUFFIXES:
        raise T2IError(f"found --out {out}, expected a file name that ends in {', '.join(SUFFIXES)}")
    if not ema and find_checkpoint(ckpt).suffix == ".safetensors":
        raise T2IError(f"found --live and {ckpt}, which holds no other weights than it draws with: leave out --live")
    model = load_model(ckpt, pick_device(device))
    if not isinstance(model, TextToImageGAN):
        raise T2IError(f"{ckpt} holds a {type(model).__name__}, which draws no pictures: give a run of a GAN")
    if captions and not model.conditional:
        raise T2IError(f"{ckpt} holds a model without text, which reads no captions: leave out --text and --text-file")
    if not captions and model.conditional:
        raise T2IError('found no caption to draw: give --text "a flower with red petals" or --text-file FILE')
    if stream and not redescribe:
        raise T2IError("found --stream without --redescribe, which reads pictures with it: add --redescribe")
    writer = _writer(ckpt, stream, model.device) if redescribe else None
    captions = captions or [""]
    for caption in dict.fromkeys(captions):
        if unknown := model.unknown_words(caption):
            print(f"note: no training caption holds {', '.join(map(repr, unknown))} ({caption!r})", file=sys.stderr)
    rng = torch.Generator().manual_seed(seed)
    if interpolate is not None:
        titles, rows = _between_captions(model, interpolate, n, rng, ema, batch_size)
    else:
        noise = model.noise_path(n, rng) if interpolate_noise_ else model.noise(n, rng).cpu()
        titles, rows = captions, []
        for caption in captions:
            features = model.encode([caption])
            rows.append(_draw(model, _repeat(features, n), noise, ema, batch_size))
    notes = [writer.describe(row) for row in rows] if writer is not None else None
    for title, said in zip(titles, notes or [], strict=False):
        print("\n  ".join([title, *said]))
    if folder:  # first: no page is too large for them
        place = Path(folder).expanduser()
        names: dict[str, str] = {}
        for i, (title, row) in enumerate(zip(titles, rows, strict=True)):
            files = [f"{i:04d}_{j:02d}" for j in range(len(row))]
            save_pictures(row, [title] * len(row), place, files)
            names |= {f"{file}.png": title for file in files}
        (place / "captions.json").write_text(json.dumps(names, indent=1, ensure_ascii=False), "utf-8")
        print(f"one by one: {place}")
    shown = rows[:_ROWS]
    save_beside(caption_grid(shown, titles[:_ROWS], notes=notes and notes[:_ROWS]), path)
    rest = f", of the first {_ROWS} of {len(rows)} captions" if len(rows) > _ROWS else ""
    print(f"{sum(map(len, shown))} pictures{rest}: {path}")
    return path


def _between_captions(
    model: TextToImageGAN, ends: Sequence[str], n: int, rng: torch.Generator, ema: bool, batch: int
) -> tuple[list[str], list[torch.Tensor]]:
    """Four rows, each with a noise of its own, from the first caption's features to the second's."""
    first, second = (model.encode([end]) for end in ends)
    along = torch.linspace(0, 1, n, device=first.sentence.device)[:, None]
    path = TextFeatures(torch.lerp(first.sentence, second.sentence, along))  # both ends exactly
    if model.needs.words:
        path = path._replace(**_between_words(first, second, along))
    noises = model.noise(4, rng).cpu()
    rows = [_draw(model, path, noise.expand(n, -1), ema, batch) for noise in noises]
    return [f"{ends[0]}  ->  {ends[1]}"] * len(rows), rows


def _between_words(first: TextFeatures, second: TextFeatures, along: torch.Tensor) -> dict[str, torch.Tensor]:
    """Words (n, T, W) and mask (n, T) from one caption to another, word by word; each end has its own words alone."""
    parts = [(end.words, end.mask) for end in (first, second) if end.words is not None and end.mask is not None]
    longest = max(mask.shape[1] for _, mask in parts)
    words = [F.pad(word, (0, 0, 0, longest - word.shape[1])) for word, _ in parts]
    masks = [F.pad(mask, (0, longest - mask.shape[1])) for _, mask in parts]
    mask = (masks[0] & (along < 1)) | (masks[1] & (along > 0))
    return {"words": torch.lerp(words[0], words[1], along[:, :, None]), "mask": mask}


def _writer(ckpt: str, stream: str | None, device: torch.device) -> STREAM:
    """The caption writer of a run, of the one that a MirrorGAN was trained with where none is named."""
    place = find_checkpoint(ckpt)
    if stream is None and place.suffix == ".ckpt":
        stream = read_checkpoint(place)["hyper_parameters"].get("stream")
    if not stream:
        raise T2IError(f"{ckpt} was trained without a STREAM: name the run of one with --stream RUN")
    from t2i_zoo.models.stream import STREAM  # its torchvision would make every other picture wait

    if not Path(stream).expanduser().exists():
        raise T2IError(f"found no run of a STREAM at {stream}: name it with --stream RUN")
    writer = load_model(stream, str(device))
    if not isinstance(writer, STREAM):
        raise T2IError(f"--stream {stream} holds a {type(writer).__name__}, expected the run of a STREAM")
    return writer


def _repeat(features: TextFeatures, n: int) -> TextFeatures:
    return TextFeatures(*(None if part is None else part.repeat_interleave(n, 0) for part in features))  # type: ignore[arg-type]


def _draw(model: TextToImageGAN, text: TextFeatures, noise: torch.Tensor, ema: bool, batch: int) -> torch.Tensor:
    parts = []
    for start in range(0, len(noise), batch):
        cut = slice(start, start + batch)
        some = TextFeatures(*(None if part is None else part[cut] for part in text))  # type: ignore[arg-type]
        parts.append(model.generate(some, noise=noise[cut], ema=ema).cpu())
    return torch.cat(parts)


def _read_captions(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise T2IError(f"found no file {path}: correct --text-file") from None
    except IsADirectoryError:
        raise T2IError(f"{path} is a folder: give a text file to --text-file") from None
    except UnicodeDecodeError:
        raise T2IError(f"{path} is not UTF-8 text: save it as UTF-8") from None
    return [line.strip() for line in lines if line.strip()]


def _as_utf8(caption: str) -> str:
    return caption.encode("utf-8", "replace").decode("utf-8")


def pick_device(wish: str) -> str:
    """The device that an option names; ``auto`` is the GPU where there is one."""
    if wish == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=wish)
    except (RuntimeError, AssertionError):
        raise T2IError(f"found no device {wish!r}: use --device cpu") from None
    return wish


def find_generator(name: str) -> str:
    """The file that ``--model`` names: a generator of the package, or the path of a file or run.

    Raises:
        T2IError: where there is neither, with the names that there are.
    """
    if shipped := shipped_generators().get(name):
        return str(shipped)
    if Path(name).expanduser().exists():
        return name
    raise T2IError(f"found no generator {name!r} in the package, expected {_shipped()}: correct --model")


def _shipped() -> str:
    return ", ".join(shipped_generators()) or "a file, since none came with this installation"


def main(words: Sequence[str]) -> None:
    """Parse and run."""
    parser = Parser(prog="t2i-zoo sample", description="Draw pictures of your own sentences.")
    parser.add_argument("--model", type=str, default=None, help=f"a generator of the package ({_shipped()}), or a file")
    parser.add_argument("--ckpt", type=str, default=None, help="a .ckpt or .safetensors file, or the folder of a run")
    parser.add_argument("--text", nargs="+", type=str, default=[], help="one caption or several")
    parser.add_argument("--text-file", type=str, default=None, help="file with a caption a line")
    parser.add_argument("--n", type=int, default=8, help="pictures of each caption, or steps of each path")
    parser.add_argument("--seed", type=int, default=0, help="of the noise; the same seed draws the same pictures")
    parser.add_argument("--out", type=str, default="samples.png", help="file of the grid with its captions")
    parser.add_argument("--folder", type=str, default=None, help="write single PNGs and captions.json there too")
    parser.add_argument("--interpolate", nargs=2, type=str, default=None, help="two captions: draw the path between")
    parser.add_argument("--interpolate-noise", action="store_true", help="each row leads from one noise to another")
    parser.add_argument("--redescribe", action="store_true", help="write below each picture what a STREAM reads in it")
    parser.add_argument("--stream", type=str, default=None, help="the run of that STREAM; by default the MirrorGAN's")
    parser.add_argument("--live", action="store_true", help="the last weights in place of their moving average")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda, cuda:1, mps")
    parser.add_argument("--batch-size", type=int, default=64, help="pictures drawn at once")
    found = parser.parse_args(list(words))
    if (found.model is None) == (found.ckpt is None):
        which = "neither --model nor --ckpt" if found.ckpt is None else "both --model and --ckpt"
        raise T2IError(f"found {which}, expected one: --model NAME comes with the package, --ckpt RUN is your own")
    sample(
        found.ckpt if found.model is None else find_generator(found.model),
        found.text,
        found.text_file,
        found.n,
        found.seed,
        found.out,
        found.folder,
        found.interpolate,
        found.interpolate_noise,
        not found.live,
        found.device,
        found.batch_size,
        found.redescribe,
        found.stream,
    )
