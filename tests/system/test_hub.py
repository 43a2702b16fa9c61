"""Pushing to the Hugging Face hub and loading from it, by a server on loopback that speaks its API."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import TOKEN, Hub
from huggingface_hub import constants, utils

from t2i_zoo.__main__ import main
from t2i_zoo.commands.studio import Studio
from t2i_zoo.errors import T2IError
from t2i_zoo.models import list_models, load_model
from t2i_zoo.paths import shipped_generators

NAME = "somebody/flowers"
ADDRESS = f"hf://{NAME}"
close_session = getattr(utils, "close_session", None) or utils.reset_sessions  # of versions before 1
RED = "a flower with red petals"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of its own, with an empty cache, and a login."""
    server = Hub()
    for name, value in {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,  # a protocol of its own, which loopback does not speak
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)  # where images are drawn
    close_session()
    yield server
    close_session()
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run, to which scores may be written."""
    return Path(shutil.copytree(trained, tmp_path / "copied" / "version_0"))


def push(run: Path, *more: str) -> None:
    assert main(["push", "--ckpt", str(run), NAME, *more]) == 0


def drawn(model: object) -> torch.Tensor:
    noise = torch.randn(2, 8, generator=torch.Generator().manual_seed(3))
    return model.generate([RED] * 2, noise=noise)  # type: ignore[attr-defined, no-any-return]


def test_there_and_back(run, hub, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for ckpt in (str(run), "real"):
        words = ["evaluate", "--ckpt", ckpt, "--protocol", "agreement_synthetic", "--images", "12"]
        assert main([*words, "--config", str(run / "config.yaml")]) == 0
    push(run, "--licence", "apache-2.0")
    assert f"t2i-zoo sample --model {ADDRESS} --text" in capsys.readouterr().out
    _, files = hub.files(NAME, "main")
    assert sorted(files) == ["README.md", "config.json", "model.safetensors", "samples.png"]
    torch.testing.assert_close(drawn(load_model(ADDRESS)), drawn(load_model(run)), rtol=0, atol=0.02)

    card = files["README.md"].decode()
    _, matter, text = card.split("---\n", 2)
    assert yaml.safe_load(matter) == {
        "library_name": "t2i-zoo",
        "pipeline_tag": "text-to-image",
        "license": "apache-2.0",
        "tags": ["text-to-image", "gan", "gancls"],
    }
    assert text.lstrip().startswith("# flowers: GANCLS, 16 px, trained on SyntheticFlowers")
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["Data", "Licence", "Recipe", "Scores", "Citation"]
    for part in ("](samples.png)", f"--ckpt {ADDRESS} ", "@inproceedings{gancls,", "eprint    = {1605.05396}"):
        assert part in text
    (row,) = [line for line in text.splitlines() if "agreement of petal colour" in line]
    assert all(cell.strip() for cell in row.split("|")[1:-1])  # error, chance and photographs too
    assert str(tmp_path) not in card + files["config.json"].decode()

    config = json.loads(files["config.json"])
    assert (config["library_name"], config["model"], config["clock"]) == ("t2i-zoo", "gancls", 6)
    text = ["--text", RED, "--n", "2"]
    assert main(["sample", "--model", ADDRESS, *text, "--out", "a.png"]) == 0
    assert main(["sample", "--ckpt", str(run), *text, "--out", "b.png"]) == 0
    scores = ["--config", str(run / "config.yaml"), "--protocol", "agreement_synthetic", "--images", "8"]
    assert main(["evaluate", "--ckpt", ADDRESS, *scores]) == 0
    assert Path("runs/somebody_flowers/metrics.jsonl").is_file()
    assert main(["export", "--ckpt", ADDRESS, "--to", "torch-export", "--out", "g.pt2"]) == 0


def test_the_page_draws_with_an_address_and_asks_the_hub_once(run, hub, tmp_path):
    push(run)
    studio = Studio(tmp_path / "none", [ADDRESS])
    assert list(studio.generators()) == [*shipped_generators(), ADDRESS]
    hub.commit(NAME, "main", {"model.safetensors": b""})  # of no use if it were fetched now
    drawn, _ = studio.draw([ADDRESS], RED, 2, seed=0)
    assert len(drawn) == 2


def test_fine_tuning_from_the_hub(run, hub, words, tmp_path):
    push(run)
    assert main(["fit", *words(tmp_path / "tuned"), "--model.weights", ADDRESS, "--model.learning_rate", "1e-9"]) == 0
    tuned = dict(load_model(tmp_path / "tuned").generator.named_parameters())
    for name, weight in load_model(ADDRESS).generator.named_parameters():
        torch.testing.assert_close(tuned[name], weight, rtol=0, atol=1e-6)


def test_revisions_and_private_repositories(run, hub, monkeypatch, mistake):
    push(run, "--private", "--revision", "v1.0")
    assert hub.private == {NAME}
    assert not hub.files(NAME, "main")[1]
    commit, _ = hub.files(NAME, "v1.0")
    for revision in ("v1.0", commit):
        assert load_model(f"{ADDRESS}@{revision}").clock == 6
    said = mistake("sample", "--model", f"{ADDRESS}@v2", "--text", RED)
    assert said == f"found no revision 'v2' of {ADDRESS}: name a branch, tag or commit"
    monkeypatch.delenv("HF_TOKEN")
    assert "refused access to" in mistake("push", "--ckpt", str(run), NAME)
    said = mistake("sample", "--model", f"{ADDRESS}@main", "--text", RED)
    assert said.startswith(f"found no repository {NAME} at {hub.url} that may be used: correct the name, or if it is")


def test_what_the_hub_refuses(run, hub, monkeypatch, mistake):
    assert main(["push", "--ckpt", str(run), ADDRESS]) == 0  # as the other commands name it
    assert hub.files(NAME, "main")[1]
    assert mistake("sample", "--model", "hf://somebody/else", "--text", RED).startswith("found no repository somebody")
    assert mistake("sample", "--model", "hf://flowers", "--text", RED).startswith("found hf://flowers, expected hf://")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    for words in (["push", "--ckpt", str(run), NAME], ["sample", "--model", ADDRESS, "--text", RED]):
        assert f"{hub.url} refused access to {ADDRESS} (401): log in with hf auth login" in mistake(*words)


def test_without_network_the_cache_is_read(run, hub, monkeypatch, mistake):
    push(run)
    with pytest.raises(T2IError, match="not in the cache of this machine, and local_files_only forbids"):
        load_model(ADDRESS, local_files_only=True)
    before = drawn(load_model(ADDRESS))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    assert torch.equal(drawn(load_model(ADDRESS)), before)
    assert torch.equal(drawn(load_model(ADDRESS, local_files_only=True)), before)
    said = mistake("sample", "--model", f"{ADDRESS}@v2", "--text", RED)
    assert said.startswith(f"{ADDRESS}@v2 is not in the cache of this machine, and HF_HUB_OFFLINE forbids to download")
    said = mistake("push", "--ckpt", str(run), NAME)
    assert said.startswith(f"HF_HUB_OFFLINE forbids to reach {hub.url} for {ADDRESS}")


def test_a_hub_that_cannot_be_reached(run, hub, monkeypatch, mistake):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # it tries again for half a minute
    hub.shutdown()
    hub.server_close()
    for words in (["push", "--ckpt", str(run), NAME], ["sample", "--model", ADDRESS, "--text", RED]):
        said = mistake(*words)
        assert said.startswith(f"cannot reach {ADDRESS} at {hub.url} (")
        assert said.endswith("): check the network and repeat the command")


def test_a_broken_download_goes_on_where_it_was(run, hub, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    push(run)
    hub.cut = 20_000
    load_model(ADDRESS)
    assert len(hub.ranges) == 2
    assert hub.ranges[0] is None
    assert hub.ranges[1].startswith("bytes=20000-")


def test_weights_that_are_not_those_of_the_config_are_refused(run, hub, tmp_path, mistake):
    push(run)
    (oid,) = [oid for oid, data in hub.large.items() if not data.startswith(b"\x89PNG")]
    true = hub.large[oid]
    hub.large[oid] = true[:-1] + bytes([true[-1] ^ 1])
    said = mistake("sample", "--model", ADDRESS, "--text", RED)
    assert f"expected {oid[:16]}... as config.json says: it is damaged or was replaced" in said
    hub.large[oid] = true
    load_model(ADDRESS)  # the wrong file was not kept


@pytest.mark.parametrize("file", ["pytorch_model.bin", "last.ckpt", "netG.pth"])
def test_pickles_are_refused(hub, file, mistake, tmp_path):
    hub.commit(NAME, "main", {file: b"\x80\x04.", "config.json": b'{"model_type": "gan"}'})
    said = mistake("sample", "--model", ADDRESS, "--text", RED)
    assert said.startswith(f"{ADDRESS} holds {file} and no .safetensors file: pickles can run code and are not read")
    hub.commit(NAME, "main", {"model.safetensors": b""})
    assert "holds no model.safetensors with a config.json of t2i-zoo push" in mistake(
        "export", "--ckpt", ADDRESS, "--to", "onnx", "--out", str(tmp_path / "a.onnx")
    )
    assert not list(tmp_path.rglob(file))


def test_a_plain_folder(run, tmp_path, mistake):
    folder = tmp_path / "folder"
    words = ["push", "--ckpt", str(run), "--to_folder", str(folder), "--text", RED, "--licence", "Mine alone."]
    assert main(words) == 0
    card = (folder / "README.md").read_text("utf-8")
    assert "license: other" in card
    assert "\nMine alone.\n" in card
    assert str(tmp_path) not in card
    torch.testing.assert_close(drawn(load_model(folder)), drawn(load_model(run)), rtol=0, atol=0.02)
    said = mistake(*words)
    assert said.startswith(f"found {folder / 'model.safetensors'} and")
    assert said.endswith("change --to-folder, or add --overwrite")
    own_card = mistake("push", "--ckpt", str(folder), "--to-folder", str(folder), "--overwrite")
    assert own_card == f"found --ckpt {folder} in --to-folder {folder}, expected another folder"
    assert (folder / "README.md").read_text("utf-8") == card
    for more in (["--private"], ["--revision", "v1"]):
        said = mistake(*words, "--overwrite", *more)
        assert said == f"found {' '.join(more)} beside --to-folder, which pushes nothing: leave it out"
    assert "found --overwrite without --to-folder" in mistake("push", "--ckpt", str(run), "a/b", "--overwrite")
    own = tmp_path / "own" / "samples.png"
    own.parent.mkdir()
    own.write_text("mine")
    said = mistake("push", "--ckpt", str(run), "--to_folder", str(own.parent), "--text", RED)
    assert said.startswith(f"found {own} already")
    again = tmp_path / "again"  # of what was downloaded
    assert main(["push", "--ckpt", str(folder), "--to_folder", str(again)]) == 0
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    for found, words in {
        "no repository": [],
        f"a/b and --to-folder {again}": ["a/b", "--to_folder", str(again)],
        "a/b/c": ["a/b/c"],
        "a/b and c/d": ["a/b", "c/d"],
    }.items():
        said = mistake("push", "--ckpt", str(run), *words)
        assert said.startswith(f"found {found}, expected user/name or --to-folder FOLDER: ")


def test_nothing_is_written_before_everything_is_drawn(run, tmp_path, mistake, monkeypatch, capsys):
    folder = tmp_path / "folder"
    words = ["push", "--ckpt", str(run), "--to_folder", str(folder), "--text"]
    assert mistake(*words, RED, " ").startswith("found a blank caption ' '")
    with monkeypatch.context() as patch:
        patch.setattr("t2i_zoo.commands.push.draw_rows", lambda *given: (_ for _ in ()).throw(T2IError("not drawn")))
        assert mistake(*words, RED) == "not drawn"
    assert not folder.exists()
    folder.write_text("a file")
    assert mistake(*words, RED).startswith(f"cannot write {folder}")
    folder.unlink()
    assert main([*words, "red", "blue"]) == 0
    assert "note: 2 captions of one word each: put quotes" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "config.json", "model.safetensors", "samples.png"),
    ]


def test_every_generator_has_its_citation():
    from t2i_zoo.commands.push import _BIBTEX

    text = _BIBTEX.read_text("utf-8")
    for name in list_models("gan"):
        assert text.count(f"{{{name},\n") == 1
