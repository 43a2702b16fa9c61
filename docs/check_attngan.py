"""Check converted weights of AttnGAN against a second, plain implementation that reads the authors' files itself.

With no arguments: files of the published shapes, filled with numbers that follow from their names, are converted and
drawn from, and the images are compared with stored numbers. With the authors' files: these are converted, the captions
drawn, and the images compared with those of the plain implementation.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from t2i_zoo import caption_grid, load_model
from t2i_zoo.commands.convert import convert_from
from t2i_zoo.legacy import AttnGANCaptions, read_attngan_captions
from t2i_zoo.legacy.captions import write_attngan_captions
from t2i_zoo.models.official import read_official

#: mean, unbiased deviation, first three values and last of the images of 256 px, by the order of the masks: measured
#: with the authors' classes on the weights of ``recipe``, and met by the plain implementation below
STORED = {
    "legacy": (-0.061340, 0.107047, -0.016743, 0.030136, 0.031769, -0.077008),
    "mended": (-0.065623, 0.110371, -0.016774, 0.030865, 0.033784, -0.078851),
}
ROWS = 5450  #: of the word table for birds
State = Mapping[str, Tensor]


# The plain implementation -------------------------------------------------------------------------------------------


def read_caption(w: State, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Words (T, D) and sentence (D,) of one caption, by its word numbers."""
    vectors = w["encoder.weight"][torch.tensor(numbers)]
    lstm = torch.nn.LSTM(vectors.shape[1], w["rnn.weight_hh_l0"].shape[1], bidirectional=True).to(vectors.dtype)
    lstm.load_state_dict({key.removeprefix("rnn."): x for key, x in w.items() if key.startswith("rnn.")})
    with torch.no_grad():
        words, (last, _) = lstm(vectors)
    return words, last.flatten()


def norm(w: State, key: str, x: Tensor) -> Tensor:
    """Batch norm by the running statistics."""
    return F.batch_norm(x, *(w[f"{key}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")))


def gate(x: Tensor) -> Tensor:
    """A gated linear unit over the channels."""
    first, second = x.chunk(2, 1)
    return first * torch.sigmoid(second)


def conv(w: State, key: str, x: Tensor) -> Tensor:
    """A 3 x 3 convolution."""
    return F.conv2d(x, w[f"{key}.weight"], padding=1)


def up(w: State, key: str, x: Tensor) -> Tensor:
    """Doubling of the side by repetition, convolution, batch norm, gate."""
    return gate(norm(w, f"{key}.2", conv(w, f"{key}.1", x.repeat_interleave(2, 2).repeat_interleave(2, 3))))


def draw(w: State, read: Sequence[tuple[Tensor, Tensor]], noise: Tensor, mask: str) -> list[Tensor]:
    """Images of all sizes from captions as ``read_caption`` gives them, longest first where the authors sort them.

    Args:
        w: state dict of the generator.
        read: of each caption its words and sentence.
        noise: (B, z + C), the last C for conditioning augmentation.
        mask: ``mended``, or ``legacy``: row b * Q + q of the scores gets the mask of caption (b * Q + q) mod B.
    """
    words = torch.nn.utils.rnn.pad_sequence([words for words, _ in read], batch_first=True)
    lengths, sentence = torch.tensor([len(words) for words, _ in read]), torch.stack([each for _, each in read])
    mu, logvar = gate(F.linear(sentence, w["ca_net.fc.weight"], w["ca_net.fc.bias"])).chunk(2, 1)
    z, spread = noise.to(mu.dtype).split([noise.shape[1] - mu.shape[1], mu.shape[1]], 1)
    code = torch.cat([mu + spread * torch.exp(logvar / 2), z], 1)
    x = gate(norm(w, "h_net1.fc.1", F.linear(code, w["h_net1.fc.0.weight"]))).unflatten(1, (-1, 4, 4))
    for i in (1, 2, 3, 4):
        x = up(w, f"h_net1.upsample{i}", x)
    images, stage = [torch.tanh(conv(w, "img_net1.img.0", x))], 2
    while f"h_net{stage}.upsample.1.weight" in w:
        name = f"h_net{stage}"
        context = torch.einsum("gw,btw->bgt", w[f"{name}.att.conv_context.weight"][:, :, 0, 0], words)
        scores = torch.einsum("bgq,bgt->bqt", x.flatten(2), context)
        batch, places, longest = scores.shape
        owner = torch.arange(batch)[:, None].expand(batch, places)
        if mask == "legacy":
            owner = torch.arange(batch * places).view(batch, places) % batch
        seen = torch.arange(longest) < lengths[owner][..., None]
        weights = scores.masked_fill(~seen, -math.inf).softmax(2)
        x = torch.cat([x, torch.einsum("bgt,bqt->bgq", context, weights).view_as(x)], 1)
        block = 0
        while (key := f"{name}.residual.{block}.block") + ".0.weight" in w:
            inside = gate(norm(w, f"{key}.1", conv(w, f"{key}.0", x)))
            x = x + norm(w, f"{key}.4", conv(w, f"{key}.3", inside))
            block += 1
        x = up(w, f"{name}.upsample", x)
        images.append(torch.tanh(conv(w, f"img_net{stage}.img.0", x)))
        stage += 1
    return images


def tokens(caption: str) -> list[str]:
    """Words as the authors split them."""
    found = (each.encode("ascii", "ignore").decode() for each in re.findall(r"\w+", caption.lower()))
    return [word for word in found if word]


# Files of the published shapes ----------------------------------------------------------------------------------------


def recipe(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A state dict whose numbers follow from its names."""
    found = {}
    for key, shape in shapes.items():
        x = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
        if key.endswith("running_var"):
            x = 1 + 0.5 * abs(x)
        elif len(shape) > 1:
            x = x / math.sqrt(math.prod(shape[1:]))
        else:
            x = 1 + 0.1 * x if key.endswith(".weight") else 0.1 * x
        found[key] = torch.from_numpy(x.astype(np.float32))
    return found


def shapes_of_birds(g: int = 32, z: int = 100, c: int = 100, d: int = 256) -> dict[str, tuple[int, ...]]:
    """Names and shapes in ``bird_AttnGAN2.pth``, for widths g, noise z, condition c and words of dimension d."""
    shapes: dict[str, tuple[int, ...]] = {"ca_net.fc.weight": (4 * c, d), "ca_net.fc.bias": (4 * c,)}

    def norm_of(key: str, channels: int) -> None:
        shapes.update({f"{key}.{x}": (channels,) for x in ("weight", "bias", "running_mean", "running_var")})

    shapes["h_net1.fc.0.weight"] = (512 * g, c + z)
    norm_of("h_net1.fc.1", 512 * g)
    for i in (1, 2, 3, 4):
        shapes[f"h_net1.upsample{i}.1.weight"] = (n := 32 * g >> i, n, 3, 3)
        norm_of(f"h_net1.upsample{i}.2", n)
    for stage in (2, 3):
        shapes[f"h_net{stage}.att.conv_context.weight"] = (g, d, 1, 1)
        for block in (0, 1):
            key = f"h_net{stage}.residual.{block}.block"
            shapes |= {f"{key}.0.weight": (4 * g, 2 * g, 3, 3), f"{key}.3.weight": (2 * g, 2 * g, 3, 3)}
            norm_of(f"{key}.1", 4 * g)
            norm_of(f"{key}.4", 2 * g)
        shapes[f"h_net{stage}.upsample.1.weight"] = (2 * g, 2 * g, 3, 3)
        norm_of(f"h_net{stage}.upsample.2", 2 * g)
    return shapes | {f"img_net{i}.img.0.weight": (3, g, 3, 3) for i in (1, 2, 3)}


def made_files(folder: Path) -> tuple[list[str], Tensor]:
    """Write a text encoder, its words and a generator by the recipe; four captions and their noise."""
    text: dict[str, tuple[int, ...]] = {"encoder.weight": (ROWS, 300)}
    for way in ("", "_reverse"):
        text |= {f"rnn.weight_ih_l0{way}": (512, 300), f"rnn.weight_hh_l0{way}": (512, 128)}
        text |= {f"rnn.bias_ih_l0{way}": (512,), f"rnn.bias_hh_l0{way}": (512,)}
    torch.save(recipe(text), folder / "text_encoder.pth")
    torch.save(recipe(shapes_of_birds()), folder / "generator.pth")
    words = {number: f"w{number}" if number else "<end>" for number in range(ROWS)}
    table = AttnGANCaptions([], [], words, {word: number for number, word in words.items()})
    write_attngan_captions(folder / "captions.pickle", table)
    drawn = np.random.RandomState(7).randint(1, ROWS, (4, 18))
    captions = [" ".join(words[n] for n in row[:length]) for row, length in zip(drawn, (9, 7, 5, 3), strict=True)]
    noise = torch.from_numpy(np.random.RandomState(2).standard_normal((4, 100)).astype(np.float32))
    return captions, torch.cat([noise, torch.zeros(4, 100)], 1)


# The check ------------------------------------------------------------------------------------------------------------


def checksum(images: Tensor) -> tuple[float, ...]:
    """Mean, unbiased deviation, first three values and last."""
    x = images.double().flatten()
    return tuple(float(value) for value in (x.mean(), x.std(), *x[:3], x[-1]))


def check(
    text_encoder: Path,
    words: Path,
    networks: Sequence[Path],
    captions: Sequence[str],
    noise: Tensor | None,
    folder: Path,
) -> tuple[list[str], dict[str, Tensor]]:
    """Convert, and draw the captions with both masks, by the zoo and by the plain implementation.

    Args:
        text_encoder: ``text_encoder200.pth``.
        words: ``captions.pickle``.
        networks: ``bird_AttnGAN2.pth``, and its discriminators if there are any.
        captions: any number.
        noise: of the captions in the order of their lengths; drawn if it is None.
        folder: for the converted files.

    Returns:
        The captions as the authors sort them, longest first; and their largest images, by the order of the masks.
    """
    (text,), (weights,) = read_official(text_encoder).values(), read_official(networks[0]).values()
    number = read_attngan_captions(words).wordtoix
    rows = {each: [number[word] for word in tokens(each) if word in number] for each in captions}
    captions = [captions[i] for i in np.argsort([len(rows[each]) for each in captions])[::-1]]
    convert_from("attngan_damsm", [text_encoder, words], folder / "damsm.safetensors")
    with torch.no_grad():
        read = [read_caption(text, rows[each]) for each in captions]
    found = {}
    for mask in STORED:
        out = folder / f"attngan_{mask}.safetensors"
        convert_from("attngan", networks, out, legacy_mask=mask == "legacy", damsm=folder / "damsm.safetensors")
        model: Any = load_model(out)
        noise = model.noise(len(captions), torch.Generator().manual_seed(100)) if noise is None else noise
        found[mask] = model.generate(captions, noise=noise)
        with torch.no_grad():
            worst = float((found[mask] - draw(weights, read, noise, mask)[-1]).abs().max())
        print(f"{mask}: largest difference {worst:.1e}, checksum {[round(x, 6) for x in checksum(found[mask])]}")
        if worst > 1e-3:
            raise SystemExit(f"{mask}: the images differ by {worst}, expected less than 0.001")
    return captions, found


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, check and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--text-encoder", type=Path, help="text_encoder200.pth")
    parser.add_argument("--words", type=Path, help="captions.pickle")
    parser.add_argument("--generator", type=Path, nargs="+", help="bird_AttnGAN2.pth, then discriminators if any")
    parser.add_argument("--captions", type=Path, help="a text file with one caption in each line")
    parser.add_argument("--out", type=Path, default=Path("attngan_check"), help="folder for converted files and images")
    given = parser.parse_args(arguments)
    needed = [given.text_encoder, given.words, given.generator, given.captions]
    if not any(needed):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            made = (folder / "text_encoder.pth", folder / "captions.pickle", [folder / "generator.pth"])
            for mask, images in check(*made, *made_files(folder), folder)[1].items():
                if not np.allclose(checksum(images), STORED[mask], rtol=0, atol=1e-4):
                    raise SystemExit(f"{mask}: found the checksum {checksum(images)}, expected {STORED[mask]}")
        print("the converted generator draws what is stored")
        return
    if not all(needed):
        parser.error("give all of --text-encoder, --words, --generator and --captions, or none")
    for path in [given.text_encoder, given.words, *given.generator]:
        data = path.read_bytes()
        digest = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        print(f"{path}: git blob {digest}")
    captions = [line for line in given.captions.read_text("utf-8").splitlines() if tokens(line)]
    given.out.mkdir(parents=True, exist_ok=True)
    captions, found = check(given.text_encoder, given.words, given.generator, captions, None, given.out)
    rows = [torch.stack(pair) for pair in zip(found["legacy"], found["mended"], strict=True)]
    caption_grid(rows, captions).save(given.out / "captions.png")
    print(f"left the authors' masks, right the mended ones: {given.out / 'captions.png'}")


if __name__ == "__main__":
    main()
