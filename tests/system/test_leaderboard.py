"""t2i-zoo leaderboard: one table and one page, images of the same captions and noise, nothing evaluated twice."""

from __future__ import annotations

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from PIL import Image

from t2i_zoo.__main__ import main
from t2i_zoo.commands.evaluate import Subject
from t2i_zoo.commands.leaderboard import _Board, _networks
from t2i_zoo.metrics.board import Entry, as_csv, as_markdown, as_page
from t2i_zoo.metrics.protocol import load_protocol

PROTOCOL = ["--protocol", "agreement_synthetic", "diversity_caption", "--images", "16"]


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "gancls" / "version_0"))


class Check(HTMLParser):
    """Tags that are closed as they were opened, and the files of images."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_board(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = str(run / "config.yaml")
    command = ["leaderboard", str(run), f"untrained:{config}", *PROTOCOL, "--out", "board", "--columns", "3"]
    captions = ["a red flower", "a <b>blue</b> flower"]
    assert main([*command, "--captions", *captions]) == 0
    out = tmp_path / "board"
    assert not list(out.rglob("*.partial*"))
    rows = list(csv.reader((out / "leaderboard.csv").open(newline="")))
    assert [row[0] for row in rows] == ["model", "GANCLS (gancls/version_0)", "GANCLS, untrained"]
    head = rows[0]
    hashes = [load_protocol(name).change(images=16).hash for name in ("agreement_synthetic", "diversity_caption")]
    assert f"agreement of petal colour [agreement_synthetic {hashes[0]}]" in head
    assert any(hashes[1] in cell for cell in head)
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert float(rows[1][2]) == line["value"]
    assert rows[1][1] == "16 px, 6 batches"

    page = (out / "index.html").read_text("utf-8")
    check = Check()
    check.feed(page)
    assert check.open == []
    assert len(check.pictures) == 4  # two models, two captions
    assert "<b>blue" not in page
    assert "http" not in re.sub(r"untrained:\S+", "", page)  # nothing is fetched
    strips = [Image.open(out / name) for name in check.pictures]
    assert {strip.size for strip in strips} == {(3 * 18 - 2, 16)}
    first = {name: (out / name).read_bytes() for name in check.pictures}
    assert len(set(first.values())) >= 3
    assert "issue 10" not in page  # published numbers of TAC-GAN belong to another model
    assert "StackGAN, table 1" in page

    capsys.readouterr()
    command.append("--overwrite")
    assert main([*command, "--captions", *captions]) == 0
    said = capsys.readouterr().out
    assert "appended to" not in said  # known already
    table = said.strip().splitlines()[:-1]  # the last line names the page
    table = table[next(i for i, line in enumerate(table) if line.startswith("score")) :]
    assert re.split(r"\s{2,}", table[0]) == ["score", "GANCLS (gancls/version_0)", "GANCLS, untrained"]
    assert table[1].startswith(f"agreement of petal colour [agreement_synthetic {hashes[0]}]  ")
    assert {name: (out / name).read_bytes() for name in check.pictures} == first
    assert main([*command, "--again"]) == 0
    assert capsys.readouterr().out.count("appended to") == 4


def test_photographs_stand_beside_without_images(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    protocols = ["agreement_synthetic", "diversity_caption"]
    assert main(["leaderboard", "real", str(run), "--protocol", *protocols, "--images", "8"]) == 0
    table = (tmp_path / "leaderboard" / "leaderboard.md").read_text().partition("\n\n")[0]
    head, _, about, first, *_, last = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
    assert head == ["score", "protocol", "photographs", "GANCLS (gancls/version_0)", "published"]
    assert about[2:4] == ["", "16 px, 6 batches"]
    assert first[0] == "agreement of petal colour"
    assert first[1].startswith("agreement_synthetic ")
    assert all(re.fullmatch(r"[\d.]+( ± [\d.]+)? \(chance [\d.]+\)(, \d images)?", cell) for cell in first[2:4])
    assert last[1].startswith("diversity_caption ")
    assert last[2] == "-" != last[3]  # of photographs it is 1 by definition
    assert all(name.startswith("01_") for name in (p.name for p in (tmp_path / "leaderboard" / "pictures").iterdir()))


def test_the_page_shows_protocols_with_their_networks(run, network, tmp_path):
    words = ["--protocol", "tiny", "--network", network, "--out", str(tmp_path / "board"), "--captions", "a flower"]
    assert main(["leaderboard", str(run), *words]) == 0
    listed = (tmp_path / "board" / "index.html").read_text("utf-8").partition("<h2>Protocols</h2>")[2]
    assert f"<td>{load_protocol('tiny').change(network=network).hash}</td>" in listed
    assert "network file:small.pt" in listed


def test_weights_are_for_the_networks_that_take_them(network):
    protocols, wishes = [load_protocol(name) for name in ("tiny", "fmd_5k", "agreement_synthetic")], ["tiny=" + network]
    (_, own), (_, resnet), (_, none) = _networks(protocols, [*wishes, "fmd_5k=torchvision:resnet18"], "random")
    assert (own.label, resnet.label, none) == ("small", "resnet18", None)


def test_titles_tell_files_apart(tmp_path):
    board, where = _Board(tmp_path, ["a flower"], 1), tmp_path / "gan" / "version_1"
    model = SimpleNamespace(hparams={"image_size": 16}, clock=6)
    for path, folder in (
        (where / "checkpoints" / "last.ckpt", where),
        (Path("first.safetensors"), Path()),
        (Path("second.safetensors"), Path()),
        (tmp_path / "pushed" / "model.safetensors", tmp_path / "pushed"),
        (tmp_path / "snapshots" / "abc" / "model.safetensors", Path("runs") / "somebody_flowers"),
    ):
        board.open(Subject(model, "GANCLS", str(path), "", folder, None), SimpleNamespace(source=None))
    places = ["gan/version_1", "first", "second", "pushed", "somebody_flowers"]
    assert [entry.title for entry in board.entries] == [f"GANCLS ({place})" for place in places]


def test_what_is_there_stays_unless_told(run, tmp_path, mistake):
    own = tmp_path / "board" / "leaderboard.md"
    own.parent.mkdir()
    own.write_text("my own words")
    said = mistake("leaderboard", str(run), *PROTOCOL, "--out", str(own.parent))
    assert said == f"found {own} already, expected a new name: change --out, or add --overwrite"


def test_a_limit_makes_other_data(trained, tmp_path, mistake):
    config, limited = trained / "config.yaml", tmp_path / "limited.yaml"
    content = yaml.safe_load(config.read_text())
    content["data"]["limit"] = 40
    limited.write_text(yaml.safe_dump(content))
    command = ["leaderboard", f"untrained:{config}", f"untrained:{limited}", *PROTOCOL, "--out", str(tmp_path / "out")]
    said = mistake(*command)
    assert "on different data or splits" in said
    assert "--data.limit for all" in said


def line_of(**more):
    line = {"label": "FID", "metric": "frechet_distance", "value": 60.0, "error": 0.5, "note": "", "images": 30000}
    return {**line, "protocol": "fd_test_30k", "protocol_hash": "abc", "network": "inception_v3_tf", **more}


def test_published_numbers_say_whether_they_may_be_compared():
    entry = Entry("StackGAN", "256 px", "stackgan", "Flowers102", [line_of()])
    drawn = Entry("StackGAN b", "256 px", "stackgan", "SyntheticFlowers", [line_of()])
    stand_in = Entry("StackGAN c", "", "stackgan", "Flowers102", [line_of(label="m Frechet distance", network="m")])
    table = as_markdown([entry, drawn, stand_in]).splitlines()
    fid, other = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table[3:])
    assert fid[:5] == ["FID", "fd_test_30k abc", "60.00 ± 0.50", "60.00 ± 0.50", "-"]
    assert "StackGAN: frechet_distance 55.28 (a stored benchmark page; read in code" in fid[5]
    assert "Comparable: roughly" in fid[5]
    assert "StackGAN b" not in fid[5]
    assert other[2:5] == ["-", "-", "60.00 ± 0.50"]
    assert "Comparable: no: other network" in other[5]
    stand_in.lines.insert(0, line_of())
    fid, other = as_markdown([stand_in]).splitlines()[3:]
    assert "no: other network" not in fid
    assert "roughly" not in other
    birds = Entry("AttnGAN", "", "attngan", "CUB200", [line_of()])
    assert "23.98" in as_markdown([birds])
    assert as_csv([entry]).splitlines()[1].startswith('StackGAN,256 px,60.0,0.5,30000,,"frechet_distance 55.28')


def test_numbers_of_images_and_notes_stand_in_every_table():
    model = Entry("StackGAN", "", "stackgan", "Flowers102", [line_of()])
    photographs = Entry("photographs", "", None, "Flowers102", [line_of(images=500, note="biased upwards")])
    table = as_markdown([model, photographs])
    assert "| 60.00 ± 0.50, 30000 images | 60.00 ± 0.50, 500 images |" in table
    assert table.endswith("\n- FID, photographs: biased upwards\n\n</details>\n")
    assert "images |" not in as_markdown([model, model])
    head, _, last = csv.reader(as_csv([model, photographs]).splitlines())
    assert dict(zip(head, last, strict=True)) == {
        **{"model": "photographs", "about": "", "published": "", "FID [fd_test_30k abc]": "60.0"},
        **{f"FID [fd_test_30k abc] {name}": value for name, value in (("error", "0.5"), ("images", "500"))},
        "FID [fd_test_30k abc] note": "biased upwards",
    }


def test_the_page_folds_what_is_long_and_escapes_what_is_html():
    lines = [line_of(note="30 images for 64 features"), line_of(label="agreement", chance=0.25)]
    entry = Entry("Stack<GAN>", "256 px", "stackgan", "Flowers102", lines, {"a & b": "pictures/00_00.jpg"})
    page = as_page([entry, Entry("photographs", "", None, "Flowers102")], ["a & b"], [load_protocol("fd_test_30k")])
    check = Check()
    check.feed(page)
    assert (check.open, check.pictures) == ([], ["pictures/00_00.jpg"])
    assert "<th>Stack&lt;GAN&gt;<small>256 px</small></th><th>photographs</th>" in page
    assert '<td class="n">60.00 ± 0.50 (chance 0.25)</td><td class="n">-</td>' in page
    folded = re.findall(r"<details><summary>(.*?)</summary>(.*?)</details>", page, re.DOTALL)
    assert [title for title, _ in folded] == ["Stack&lt;GAN&gt;: frechet_dist ..."] * 2 + ["Notes", "options"]
    assert "frechet_distance 55.28" in folded[0][1]
    assert "FID, Stack&lt;GAN&gt;: 30 images for 64 features" in folded[2][1]
    assert "images 30000" in folded[3][1]
    assert "55.28" in page.partition("Published numbers")[2]


def test_other_data_is_refused(run, trained, tmp_path, mistake, words):
    assert main(["fit", *words(tmp_path / "other", "--data.source.seed", "3")]) == 0
    said = mistake("leaderboard", str(run), str(tmp_path / "other"), *PROTOCOL, "--out", str(tmp_path / "board"))
    assert re.match(r"found .*gancls/version_0 and .*other on different data or splits, expected one on a board", said)
    assert not (tmp_path / "board").exists()
    assert not (run / "metrics.jsonl").exists()


def test_another_split_is_other_data(run, trained, tmp_path, mistake, words):
    assert main(["fit", *words(tmp_path / "other", "--data.source.split", "random")]) == 0
    command = ["leaderboard", str(run), str(tmp_path / "other"), *PROTOCOL, "--out", str(tmp_path / "board")]
    assert "give --config NAME, --data.source.split or --data.limit for all" in mistake(*command)
    assert main([*command, "--data.source.split", "random"]) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["nowhere", *PROTOCOL], "found no checkpoint at nowhere"),
        (["untrained:skipthought_flowers", *PROTOCOL], "untrained:skipthought_flowers holds a SkipThought"),
        ([*PROTOCOL, "--captions", "a flower", ""], "found a blank caption ''"),
        (
            [*PROTOCOL, "--images", "12"],
            "found --images 12, expected a multiple of the protocol's 8 images per caption",
        ),
        ([*PROTOCOL, "--out", "file/board"], "file/board: "),
    ],
)
def test_nothing_is_measured_before_everything_is_checked(more, message, run, tmp_path, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    assert mistake("leaderboard", str(run), *more).startswith(message)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "found no run: write t2i-zoo leaderboard RUN"),
        (["somewhere"], "found no --protocol: write"),
        (["somewhere", "--protocol", "tiny", "--network", "a", "b"], "found the networks a and b: say which is whose"),
        (["somewhere", "--protocol", "tiny", "--columns", "0"], "found --columns 0"),
        (["somewhere", "--protocol", "tiny", "--columns", "501"], "found --columns 501, expected an integer from 1 to"),
        (
            ["somewhere", "--protocol", "agreement_synthetic", "--weights", "a"],
            "found --weights for the protocol agree",
        ),
        (["somewhere", "--protocol", "tiny", "--network", "file:a", "--weights", "a"], "found --weights and the net"),
        (["somewhere", "--protocol", "is_10x", "--network", "a"], "found --network a, which no protocol asks for"),
        (
            ["somewhere", "--protocol", "agreement_synthetic", "--network", "agreement_synthetic=a"],
            "found --network agreement_synthetic, which no protocol asks for",
        ),
        (["somewhere", "--protocol", "agreement_synthetic"], "found no checkpoint at somewhere"),
    ],
)
def test_mistakes(more, message, mistake):
    assert mistake("leaderboard", *more).startswith(message)
