"""Training, scores and grids from Python are those of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

import t2i_zoo
from t2i_zoo.errors import T2IError
from t2i_zoo.pictures import to_pil

TINY = Path(__file__).parents[1] / "tiny.yaml"


def test_fit_and_evaluate(tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = {
        "config": TINY,
        "data.source.images": 64,
        "data.source.size": 24,
        "model.augment": ["translation"],
        "model.weights": None,
        "trainer.limit_train_batches": 2,
        "trainer.max_epochs": 1,
    }
    run = t2i_zoo.fit("gancls_synthetic", options)
    assert run == Path("runs/gancls_synthetic/version_0")
    assert (run / "finished.json").is_file()
    assert t2i_zoo.load_model(run).hparams["augment"] == ["translation"]
    scores = t2i_zoo.evaluate(run, "agreement_synthetic", images=8)
    assert {score["images"] for score in scores} == {8}
    page = t2i_zoo.leaderboard(run, protocol="agreement_synthetic", data={"data.source.seed": 1}, images=8, out="board")
    assert "agreement" in (page.parent / "leaderboard.md").read_text("utf-8")


def test_an_unknown_option_is_a_mistake() -> None:
    with pytest.raises(T2IError, match="max_epoch"):
        t2i_zoo.fit("gancls_synthetic", {"trainer.max_epoch": 1})


def test_grids_of_pictures_are_those_of_tensors() -> None:
    model = t2i_zoo.load_model("flowers64")
    rows = t2i_zoo.draw_rows(model, ["a pink flower"], model.noise(2))
    both = [t2i_zoo.caption_grid(each, ["pink"]) for each in (rows, [to_pil(rows[0])])]
    assert both[0].tobytes() == both[1].tobytes()
