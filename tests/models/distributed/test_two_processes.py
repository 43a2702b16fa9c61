"""Two gloo processes on the CPU, against each other and against one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import worker

Rank = dict[str, Any]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory, two_ranks: Any) -> list[Rank]:
    """What both processes of ``worker.py`` wrote down."""
    return two_ranks(worker.__file__, tmp_path_factory.mktemp("ranks"))


def test_ranks_end_equal(ranks: list[Rank]) -> None:
    first, second = (rank["whole"]["weights"] for rank in ranks)
    assert [rank["whole"]["world"] for rank in ranks] == [2, 2]
    assert {name.split(".")[0] for name in first} == {"generator", "discriminator", "generator_ema"}
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_noise_differs_between_ranks(ranks: list[Rank]) -> None:
    first, second = (torch.cat(rank["whole"]["noise"]) for rank in ranks)
    assert first.shape == second.shape
    assert not set(first.flatten().tolist()) & set(second.flatten().tolist())


def test_ranks_share_the_pictures_out(ranks: list[Rank]) -> None:
    orders = []
    for first, second in zip(*(rank["whole"]["pictures"] for rank in ranks), strict=True):
        assert len(first) == len(second) == 24  # three batches of eight of the 26 that are a rank's share
        assert len(set(first) | set(second)) == 48
        orders.append(first)
    assert len(orders) == 2
    assert orders[0] != orders[1]


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``alone(rows)``: gradients of one process."""
    monkeypatch.chdir(tmp_path)
    return worker.plain_gradients


@pytest.mark.parametrize("case", ["whole", "micro-batches", "ragged", "buckets", "stock"])
def test_two_ranks_have_the_gradients_of_the_joint_batch(ranks: list[Rank], case: str, alone: Any) -> None:
    one_process, half = alone(slice(None)), alone(slice(4))
    assert len(one_process) == 2  # the discriminator's step and the generator's
    for rank in ranks:
        torch.testing.assert_close(rank["gradients"][case], one_process, rtol=1e-4, atol=1e-6)
    with pytest.raises(AssertionError):  # half of the batch has other gradients, so the ranks did exchange them
        torch.testing.assert_close(half, one_process, rtol=1e-4, atol=1e-6)


def test_one_network_travels_in_each_step_and_nothing_else(ranks: list[Rank]) -> None:
    model = worker.Plain(**worker.TINY)
    sizes = [sum(p.numel() for p in network.parameters()) for network in (model.discriminator, model.generator)]
    for rank in ranks:
        # a few numbers more: each tensor begins at 16 bytes, and a mark of each says whether it has a gradient
        sent = [size for size in rank["sent"]["all_reduce"] if size > 4]  # without counts and decisions
        assert [size // 16 for size in sent] == [size // 16 for size in sizes]
        assert sum(rank["sent"]["broadcast"]) <= 1  # no buffers
        assert [size for size in rank["sent_of_micro_batches"] if size > 4] == sent  # after the last of them alone


def test_unused_weights_are_nowhere_updated(ranks: list[Rank]) -> None:
    for both, one, none in (found for rank in ranks for found in rank["uneven"]):
        assert both.tolist() == [1.5] * 5  # the mean of 1 and 2
        assert one.tolist() == [0.5] * 5
        assert none is None


def test_resuming_is_never_having_stopped(ranks: list[Rank]) -> None:
    for rank in ranks:
        whole, resumed = rank["whole"], rank["resumed"]
        assert resumed["pictures"][-1] == whole["pictures"][-1]
        assert torch.equal(resumed["noise"][-1], whole["noise"][-1])
        for name, tensor in whole["weights"].items():
            assert torch.equal(tensor, resumed["weights"][name]), name
        for one, two in zip(whole["optimizers"], resumed["optimizers"], strict=True):
            assert all(torch.equal(one[i][key], two[i][key]) for i in one for key in one[i])


def test_plain_ddp_is_refused_with_the_flag(ranks: list[Rank]) -> None:
    for rank in ranks:
        assert "use --trainer.strategy gan_ddp" in rank["refused"]


@pytest.mark.parametrize("variant", worker.every_model())
def test_every_model_ends_equal_on_both_ranks(ranks: list[Rank], variant: str) -> None:
    (before, first), (_, second) = (rank["models"][variant] for rank in ranks)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert any(not torch.equal(value, before[name]) for name, value in first.items())  # it was trained


@pytest.mark.parametrize(("name", "group"), worker.aided_models())
def test_every_aid_ends_equal_on_both_ranks(ranks: list[Rank], name: str, group: str) -> None:
    (before, first), (_, second) = (rank["aided"][name, group] for rank in ranks)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert any(not torch.equal(value, before[name]) for name, value in first.items())
