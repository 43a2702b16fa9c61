"""t2i-zoo sample: grids, single files, paths between captions and noises, and notes about words."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_font import write_font

from t2i_zoo import sampling
from t2i_zoo.__main__ import main
from t2i_zoo.commands import sample as command
from t2i_zoo.commands.captions import notes_on_words
from t2i_zoo.commands.sample import sample
from t2i_zoo.errors import T2IError
from t2i_zoo.models import load_model
from t2i_zoo.models.gancls import GANCLS
from t2i_zoo.models.tacgan import TACGAN
from t2i_zoo.pictures import to_pil, truncate_noise
from t2i_zoo.sampling import draw_rows, for_drawing, images_at_once
from t2i_zoo.text.rnn import RNNEncoder

SHAPE = json.dumps({"word_dim": 4, "dim": 4, "kind": "lstm"})
RED, BLUE = "a flower with red petals", "a flower with blue petals"


@pytest.fixture
def draw(trained, tmp_path):
    """``draw("--text", ...)``: the bytes of the grid."""

    def run(*more: str, out: str = "grid.png") -> bytes:
        assert main(["sample", "--ckpt", str(trained), "--out", str(tmp_path / out), "--overwrite", *more]) == 0
        return (tmp_path / out).read_bytes()

    return run


@pytest.fixture
def drawn_rows(monkeypatch):
    """What is put on the grid: (captions, rows of pictures)."""
    seen = []
    original = command.caption_grid
    monkeypatch.setattr(
        command, "caption_grid", lambda rows, titles, **_: seen.append((titles, rows)) or original(rows, titles)
    )
    return seen


def test_a_row_of_pictures_for_each_caption(draw, trained, drawn_rows, capsys):
    draw("--text", RED, BLUE, "--n", "3", "--seed", "5")
    assert "6 images: " in capsys.readouterr().out
    ((titles, rows),) = drawn_rows
    assert list(titles) == [RED, BLUE]
    noise = torch.randn(3, 8, generator=torch.Generator().manual_seed(5))
    model = load_model(trained)
    for caption, row in zip(titles, rows, strict=True):
        assert row.shape == (3, 3, 16, 16)
        torch.testing.assert_close(row, model.generate([caption] * 3, noise=noise), rtol=0, atol=1e-5)


def test_eight_pictures_unless_told(draw, drawn_rows):
    draw("--text", RED)
    assert len(drawn_rows[0][1][0]) == 8


def test_the_same_seed_draws_the_same_file(draw):
    first = draw("--text", RED, "--n", "2", "--seed", "3", out="a.png")
    assert first == draw("--text", RED, "--n", "2", "--seed", "3", out="b.png")
    assert first != draw("--text", RED, "--n", "2", "--seed", "4", out="c.png")
    assert first != draw("--text", BLUE, "--n", "2", "--seed", "3", out="d.png")


def test_batches_do_not_change_the_pictures(draw, drawn_rows):
    draw("--text", RED, "--n", "5", "--batch-size", "2")
    draw("--text", RED, "--n", "5")
    torch.testing.assert_close(drawn_rows[0][1][0], drawn_rows[1][1][0], rtol=0, atol=1e-5)


def test_live_weights(draw, trained, drawn_rows):
    draw("--text", RED, "--n", "2", "--live")
    noise = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    model = load_model(trained)
    live, averaged = (model.generate([RED] * 2, noise=noise, ema=ema) for ema in (False, True))
    torch.testing.assert_close(drawn_rows[0][1][0], live, rtol=0, atol=1e-5)
    assert (live - averaged).abs().max() > 1e-3


@pytest.mark.parametrize("path", [[], ["--interpolate-noise"], ["--interpolate", BLUE]])
def test_truncated_noise(path, draw, trained, drawn_rows):
    words = ["--interpolate", RED, BLUE] if "--interpolate" in path else ["--text", RED, *path]
    draw(*words, "--n", "2", "--truncation", "0.5")
    rng = torch.Generator().manual_seed(0)
    noise = 0.5 * truncate_noise(torch.randn(4 if "--interpolate" in path else 2, 8, generator=rng), 2.0)
    first = load_model(trained).generate([RED], noise=noise[:1])
    torch.testing.assert_close(drawn_rows[0][1][0][:1], first, rtol=0, atol=1e-5)


def test_only_normal_noise_can_be_truncated(tiny_options, tiny_widths, build_trainer, tmp_path):
    trainer = build_trainer()
    trainer.strategy.connect(TACGAN(**tiny_options, **tiny_widths("tacgan")))
    trainer.save_checkpoint(tmp_path / "tac.ckpt")
    with pytest.raises(T2IError, match=r"found --truncation 0\.88 and a TACGAN, whose noise is not normal"):
        sample(str(tmp_path / "tac.ckpt"), [RED], truncation=0.88, out=str(tmp_path / "x.png"))


def test_a_text_file_follows_text(draw, drawn_rows, tmp_path):
    (tmp_path / "captions.txt").write_text(f"\ufeff{BLUE}\n\n  a green flower  \r\n", "utf-8")
    draw("--text", RED, "--text-file", str(tmp_path / "captions.txt"), "--n", "1")
    assert drawn_rows[0][0] == [RED, BLUE, "a green flower"]


def test_a_checkpoint_file_without_its_run(trained, tmp_path):
    alone = shutil.copy(trained / "checkpoints" / "last.ckpt", tmp_path / "model.ckpt")
    for ckpt, out in ((alone, "a.png"), (trained, "b.png"), (trained.parent, "c.png")):
        assert main(["sample", "--ckpt", str(ckpt), "--text", RED, "--n", "1", "--out", str(tmp_path / out)]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()


@pytest.mark.parametrize("suffix", [".jpg", ".WEBP"])
def test_other_kinds_of_files_and_new_folders(suffix, draw, tmp_path):
    draw("--text", RED, "--n", "1", out=f"new/folder/grid{suffix}")
    with Image.open(tmp_path / f"new/folder/grid{suffix}") as page:
        assert page.format in ("JPEG", "WEBP")
    assert [f.name for f in (tmp_path / "new/folder").iterdir()] == [f"grid{suffix}"]


def test_single_pictures_in_a_folder(draw, tmp_path, drawn_rows):
    text = "eine rote Blüte 🌸"
    draw("--text", RED, text, "--n", "2", "--folder", str(tmp_path / "singles"))
    named = json.loads((tmp_path / "singles" / "captions.json").read_text("utf-8"))
    assert named == {"0000_00.png": RED, "0000_01.png": RED, "0001_00.png": text, "0001_01.png": text}
    assert sorted(f.name for f in (tmp_path / "singles").iterdir()) == sorted([*named, "captions.json"])
    for name, caption in named.items():
        with Image.open(tmp_path / "singles" / name) as picture:
            assert picture.text["Description"] == caption
            assert picture.text["Seed"] == "0"
            assert re.fullmatch(r"GANCLS, 16 px, \d+ batches", picture.text["Model"])
            i, j = int(name[:4]), int(name[5:7])
            assert picture.tobytes() == to_pil(drawn_rows[0][1][i])[j].tobytes()


@pytest.mark.parametrize("words", [["--text", RED, BLUE], ["--interpolate", RED, BLUE]])
def test_single_pictures_stay_unless_told(words, trained, tmp_path, mistake):
    own = tmp_path / "singles" / "0001_01.png"
    own.parent.mkdir()
    own.write_text("mine")
    command = ["sample", "--ckpt", str(trained), *words, "--n", "2", "--folder", str(own.parent)]
    said = mistake(*command, "--out", str(tmp_path / "grid.png"))
    assert said == f"found {own} already, expected a new name: change --folder, or add --overwrite"
    assert [path.name for path in tmp_path.rglob("*.*")] == ["0001_01.png"]
    own = own.rename(own.with_name("0009_01.png"))  # of no caption here
    assert main([*command, "--out", str(tmp_path / "grid.png")]) == 0
    assert own.read_text() == "mine"


@pytest.mark.parametrize(("out", "n", "most"), [("a.webp", 125, "16,383"), ("a.jpg", 497, "65,500")])
def test_a_page_that_the_file_cannot_hold_is_refused_before_drawing(out, n, most, trained, tmp_path, monkeypatch):
    words = {"out": str(tmp_path / out), "batch_size": 64}
    monkeypatch.setattr(command, "draw_rows", lambda *given, **named: pytest.fail("drawn in vain"))
    with pytest.raises(T2IError, match=f"pixels, expected at most {most} a side in a {out[1:]} file: change --out to"):
        sample(str(trained), [RED], n=n, **words)
    monkeypatch.undo()
    assert not (tmp_path / out).exists()
    if n < 200:  # the widest that there is
        with Image.open(sample(str(trained), [RED], n=n - 1, **words)) as page:
            assert page.width <= 16_383 < page.width + 132


def test_a_large_number_of_images_goes_to_the_folder_as_it_is_drawn(draw, trained, drawn_rows, tmp_path, capsys):
    draw("--text", RED, BLUE, "--n", "70", "--batch-size", "16", "--folder", str(tmp_path / "singles"))
    out, err = capsys.readouterr()
    assert "128 images of 70 for each caption: " in out
    assert "drawing" in err
    assert len(list((tmp_path / "singles").glob("*.png"))) == 140
    model, noise = load_model(trained), torch.randn(70, 8, generator=torch.Generator().manual_seed(0))
    seen = []
    page = draw_rows(model, [RED, BLUE], noise, batch_size=16, see=lambda *one: seen.append(one), page=(1, 20))
    assert [tuple(row.shape) for row in page] == [(20, 3, 16, 16)]
    assert [(row, column) for row, column, _ in seen] == [
        (row, column) for row in (0, 1) for column in range(0, 70, 16)
    ]
    for row, column, images in seen:
        for j, image in enumerate(to_pil(images), column):
            with Image.open(tmp_path / "singles" / f"{row:04d}_{j:02d}.png") as picture:
                assert picture.tobytes() == image.tobytes()
        grid = drawn_rows[0][1][row]
        assert torch.equal(grid[column : column + 16], images[: max(64 - column, 0)])


def test_between_two_captions_both_ends_are_the_captions(draw, trained, drawn_rows, tmp_path):
    draw("--interpolate", RED, BLUE, "--n", "5", "--seed", "2", "--folder", str(tmp_path / "path"))
    ((titles, rows),) = drawn_rows
    assert len(rows) == len(titles) == 4
    assert all(RED in title and BLUE in title for title in titles)
    noises = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    model = load_model(trained)
    for noise, row in zip(noises, rows, strict=True):
        assert len(row) == 5
        for column, caption in ((0, RED), (-1, BLUE)):
            torch.testing.assert_close(row[column], model.generate([caption], noise=noise[None])[0], rtol=0, atol=1e-5)
        assert (row[0] - row[2]).abs().max() > 0
        assert (row[2] - row[-1]).abs().max() > 0
    assert (rows[0][0] - rows[1][0]).abs().max() > 0
    assert len(list((tmp_path / "path").glob("*.png"))) == 20


def test_between_two_noises(draw, trained, drawn_rows):
    draw("--text", RED, BLUE, "--interpolate-noise", "--n", "4", "--seed", "2")
    ends = torch.randn(2, 8, generator=torch.Generator().manual_seed(2))
    model = load_model(trained)
    for caption, row in zip(*drawn_rows[0], strict=True):
        plain = model.generate([caption] * 2, noise=ends)
        torch.testing.assert_close(row[[0, -1]], plain, rtol=0, atol=1e-4)
        assert (row[1] - row[2]).abs().max() > 0


def test_words_that_no_training_caption_holds_are_named(draw, capsys):
    draw("--text", RED, "a zeppelin with red petals", "--n", "1")
    said = capsys.readouterr().err
    assert "note: no training caption holds 'zeppelin'" in said
    assert said.count("note: ") == 1


def test_captions_of_one_word_each_may_lack_their_quotes(draw, capsys):
    note = "note: 3 captions of one word each: put quotes around a caption of several words\n"
    draw("--text", "a", "red", "flower", "--n", "1")
    assert note in capsys.readouterr().err
    draw("--text", "a red", "red", "flower", "--n", "1")
    assert "quotes" not in capsys.readouterr().err
    draw("--text", "red", "--n", "1")
    assert "quotes" not in capsys.readouterr().err


def test_one_odd_caption_does_not_prevent_the_others(draw, drawn_rows, capsys):
    draw("--text", RED, " ", "\U0001f338", "a\udce4", "--n", "1")
    assert drawn_rows[0][0] == [RED, "\U0001f338"]
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert "caption 2 of 4 is left out: found a blank caption" in said[0]
    assert "caption 4 of 4 is left out: found a caption that is not UTF-8 text" in said[1]
    assert "'\U0001f338' has no word and is read as 'cherry blossom'" in said[2]


def test_the_end_of_a_path_cannot_be_left_out(trained, tmp_path):
    with pytest.raises(T2IError, match="found a blank caption ' '"):
        sample(str(trained), interpolate=(RED, " "), out=str(tmp_path / "x.png"))


def test_each_kind_of_strange_word_has_its_own_sentence(tiny_options, tiny_widths):
    model = GANCLS(**tiny_options, **tiny_widths("gancls"))
    model.vocabulary = frozenset({"a", "red", "grinning", "flower"})
    model.text_encoder = RNNEncoder("", assets={"words.txt": "a\nred\nflower", "shape.json": SHAPE})
    assert notes_on_words(model, ["a red flower"]) == []
    assert notes_on_words(model, ["a grinning zebra"]) == [
        "the text encoder does not know 'grinning', 'zebra' ('a grinning zebra')",
        "no training caption holds 'zebra' ('a grinning zebra')",
    ]
    assert notes_on_words(model, ["grinning", "!"]) == [
        "the text encoder knows no word of 'grinning' and reads it as <end>",
        "the text encoder knows no word of '!' and reads it as <end>",
    ]


def test_a_font_of_your_own(draw, tmp_path, capsys):
    font = str(write_font(tmp_path / "own.ttf", RED))
    first = draw("--text", RED, "--n", "1")
    assert draw("--text", RED, "--n", "1", "--font", font, out="own.png") != first
    words = ["--text", RED, "--out", str(tmp_path / "x.png"), "--font", str(tmp_path / "grid.png")]
    assert main(["sample", "--model", "gancls_flowers64", *words]) == 2
    assert "grid.png is not a font that can be read" in capsys.readouterr().err


def test_words_of_the_training_captions_pass_in_silence(draw, trained, capsys):
    known = sorted(load_model(trained).vocabulary)
    assert len(known) > 10
    draw("--text", " ".join(known), "--n", "1")
    assert "note" not in capsys.readouterr().err


def test_the_function_returns_the_path(trained, tmp_path):
    assert sample(str(trained), [RED], n=1, out=str(tmp_path / "x.png")) == Path(tmp_path / "x.png")


def test_as_many_images_at_once_as_a_quarter_of_the_memory_holds(trained, monkeypatch):
    model, sizes = load_model(trained), []
    for layer in (m for m in model.generator_ema.modules() if not [*m.children()]):
        layer.register_forward_hook(lambda _, given, out: sizes.append(4 * out.numel()))
    model.generate([RED])
    each = sum(sizes)
    for memory, expected in ((12 * each, 3), (12 * each - 4, 2), (100 * each, 16), (0, 1)):
        monkeypatch.setattr(sampling, "free_memory", lambda device, memory=memory: memory)
        assert images_at_once(model, RED) == expected
    monkeypatch.undo()
    assert sampling.free_memory(torch.device("cpu")) > 2**20


def test_more_images_at_once_where_each_batch_computes_a_context(tiny_options, tiny_widths, monkeypatch):
    model = TACGAN(**{**tiny_options, **tiny_widths("tacgan")}).eval()
    monkeypatch.setattr(sampling, "free_memory", lambda device: 2**40)
    assert images_at_once(model, RED) == 16
    model.context_sentence.fill_(1.0)
    assert images_at_once(model, RED) == 64


def test_a_cpu_draws_with_channels_together(trained):
    plain, fast = load_model(trained), for_drawing(load_model(trained))
    weights = [p for p in fast.generator_ema.parameters() if p.dim() == 4 and 1 not in p.shape[:2]]
    assert weights
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    noise = plain.noise(4)
    torch.testing.assert_close(*(m.generate([RED] * 4, noise=noise) for m in (plain, fast)), rtol=0, atol=1e-5)


def test_bfloat16_rounds_pixels(draw, drawn_rows):
    draw("--text", RED, "--n", "4")
    draw("--text", RED, "--n", "4", "--bf16")
    exact, rounded = (torch.as_tensor(rows[0]) for _, rows in drawn_rows)
    assert 0 < (exact - rounded).abs().max() < 0.2
