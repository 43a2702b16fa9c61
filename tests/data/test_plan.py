"""Plans are a pure function of seed, epoch, rank and batch number; resuming meets the batches it would have met."""

import hashlib
import threading

import pytest
import torch

from t2i_zoo.data.plan import Planner, Plans
from t2i_zoo.errors import T2IError
from t2i_zoo.seeds import stable_seed


def make(count=40, rank=0, world=1, seed=3, batch_size=4, train=True, order="shuffle", labels=None, **options):
    captions = torch.arange(count + 10) % 3 + 1  # 1, 2, 3 captions; the split begins at row 10 of the store
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), captions.cumsum(0)])
    labels = torch.arange(count) % 5 if labels is None else torch.tensor(labels)
    plain = {"captions_averaged": 2, "room": torch.full((count + 10, 2), 12), "augment": True, **options}
    return Planner(
        torch.arange(count) + 10, labels, offsets, batch_size=batch_size, order=order, train=train, seed=seed,
        rank=rank, world=world, **plain,
    )  # fmt: skip


def equal(a, b):
    return torch.equal(a.packed, b.packed)


def plan_of(planner, epoch, batch):
    return planner.plan(epoch, batch, planner.epoch_order(epoch))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "80327ab00caae2e1"), ({"order": "class_balanced"}, "601043c8edfb82fc"),
        ({"count": 43, "rank": 1, "world": 3}, "6768538850d57f4d"), ({"count": 300}, "d1995418a8031254"),
        ({"train": False, "count": 41, "rank": 1, "world": 2}, "a88958bbfd39e99d"),
        ({"augment": False, "captions_averaged": 1}, "fb39ab3701f9a4c4"), ({"labels": [7] * 40}, "45d43ed60400e599"),
        ({"count": 1, "train": False, "labels": [0]}, "8327b1f9337e6980"),
    ],
)  # fmt: skip
def test_plans_are_those_of_earlier_versions(options, expected):
    found = hashlib.sha256()  # when every batch was planned on its own
    for plan in Plans(make(**options), lambda: 3):
        wrong = (plan.wrong_rows, plan.wrong_captions, *plan.wrong_crops)
        for part in (plan.positions, plan.rows, plan.captions, *plan.crops, *wrong):
            found.update(part.long().contiguous().numpy().tobytes())
    assert found.hexdigest()[:16] == expected


def test_labels_are_of_the_pictures():
    planner = make(count=150)  # more batches than are planned at once
    for number, plan in enumerate(Plans(planner, lambda: 1)):
        assert torch.equal(plan.labels, planner.labels[plan.positions])
        assert torch.equal(plan.wrong_labels, planner.labels[plan.wrong_rows - 10])
        assert equal(plan, plan_of(planner, 1, number))
        assert equal(plan, plan.to(torch.device("cpu")))


@pytest.mark.parametrize("order", ["shuffle", "class_balanced"])
def test_a_plan_depends_on_seed_epoch_rank_and_batch_alone(order):
    torch.manual_seed(0)
    first = plan_of(make(order=order), 2, 5)
    torch.manual_seed(1)
    torch.rand(100)
    assert equal(first, plan_of(make(order=order), 2, 5))
    for other in (
        plan_of(make(order=order), 2, 6), plan_of(make(order=order), 3, 5), plan_of(make(order=order, seed=4), 2, 5),
        plan_of(make(order=order, rank=1, world=2), 2, 3),
    ):  # fmt: skip
        assert not equal(first, other)


def test_seeds_differ_with_every_part():
    parts = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (-1, 0), (11,), (1, 1)]
    assert len({stable_seed(*part) for part in parts}) == len(parts)


@pytest.mark.parametrize(("count", "world"), [(40, 2), (41, 2), (43, 4)])
def test_ranks_are_disjoint_and_cover_the_split(count, world):
    for epoch in range(3):
        shares = [make(count, rank, world).epoch_order(epoch) for rank in range(world)]
        assert sorted(torch.cat(shares).tolist()) == list(range(count))
    assert len({len(make(count, rank, world)) for rank in range(world)}) == 1  # level, or DDP would hang
    crops = [plan_of(make(count, rank, world), 0, 0).crops.top for rank in range(world)]
    assert not torch.equal(crops[0], crops[1])


@pytest.mark.parametrize(("count", "world"), [(40, 1), (41, 3), (5, 2), (1, 1)])
def test_evaluation_sees_every_picture_and_repeats_itself(count, world):
    planners = [make(count, rank, world, train=False, labels=[0] * count) for rank in range(world)]
    seen = [torch.cat([plan.positions for plan in Plans(p, lambda: 0)]) for p in planners]
    assert set(torch.cat(seen).tolist()) == set(range(count))
    assert len({len(s) for s in seen}) == 1
    for planner in planners:
        for a, b in zip(Plans(planner, lambda: 0), Plans(planner, lambda: 7), strict=True):
            assert equal(a, b)
            assert (a.crops.top == 6).all()
            assert not a.crops.flip.any()


def test_an_epoch_shows_each_picture_at_most_once_in_whole_batches():
    batches = list(Plans(make(43), lambda: 0))
    assert len(batches) == len(Plans(make(43), lambda: 0)) == 10
    seen = torch.cat([plan.positions for plan in batches])
    assert len(seen) == len(set(seen.tolist())) == 40
    assert all(torch.equal(plan.rows, plan.positions + 10) for plan in batches)


def test_captions_are_the_pictures_own_and_drawn_with_replacement():
    planner = make(captions_averaged=50)
    plan = plan_of(planner, 0, 0)
    for rows, captions in ((plan.rows, plan.captions), (plan.wrong_rows, plan.wrong_captions)):
        low, high = planner.offsets[rows][:, None], planner.offsets[rows + 1][:, None]
        assert ((captions >= low) & (captions < high)).all()
        for row, drawn in zip(rows, captions, strict=True):
            own = planner.offsets[row + 1] - planner.offsets[row]
            assert len(drawn.unique()) == own  # fifty draws meet each of at most three


def test_wrong_pictures_are_of_other_classes_and_of_the_split():
    planner = make()
    for batch in range(len(planner)):
        plan = plan_of(planner, 0, batch)
        assert (planner.labels[plan.wrong_rows - 10] != planner.labels[plan.positions]).all()
        assert (plan.wrong_rows >= 10).all()


def test_class_balanced_draws_classes_uniformly_and_then_pictures():
    labels = [0] * 90 + [1] * 9 + [7]  # a class of one picture among them
    planner = make(100, batch_size=100, order="class_balanced", labels=labels)
    order = planner.epoch_order(0)
    drawn = torch.cat([planner.plan(epoch, 0, order).positions for epoch in range(100)])
    shares = torch.bincount(planner.labels[drawn], minlength=8)[[0, 1, 7]] / len(drawn)
    assert (shares - 1 / 3).abs().max() < 0.02
    counts = torch.bincount(drawn[planner.labels[drawn] == 1], minlength=99)[90:]
    assert counts.min() > 0.7 * counts.float().mean()


def test_augmentation_covers_all_offsets_and_half_the_mirrors():
    planner = make(4000, batch_size=4000)
    crops = plan_of(planner, 0, 0).crops
    for offsets in (crops.top, crops.left):
        counts = torch.bincount(offsets, minlength=13)
        assert len(counts) == 13
        assert counts.min() > 230  # of 308 expected
    assert abs(crops.flip.float().mean() - 0.5) < 0.04
    plain = plan_of(make(augment=False), 0, 0).crops
    assert (plain.left == 6).all()
    assert not plain.flip.any()


def test_resume_in_the_middle_of_an_epoch():
    whole = list(Plans(make(), lambda: 1))
    running = Plans(make(), lambda: 1)
    walk = iter(running)
    for _ in range(4):
        next(walk)
    state = running.state_dict()
    resumed = Plans(make(), lambda: 1)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state  # a run that is stopped again before its first batch loses nothing
    rest = list(resumed)
    assert len(rest) == len(whole) - 4
    assert all(equal(a, b) for a, b in zip(rest, whole[4:], strict=True))
    assert len(list(resumed)) == len(whole)  # the epoch after begins at its beginning


def test_state_at_the_end_of_an_epoch_begins_the_next():
    running = Plans(make(), lambda: 0)
    list(running)
    resumed = Plans(make(), lambda: 1)
    resumed.load_state_dict(running.state_dict())
    assert all(equal(a, b) for a, b in zip(resumed, Plans(make(), lambda: 1), strict=True))


def test_the_epoch_is_asked_for_at_the_first_batch():
    epoch = [0]
    walk = iter(Plans(make(), lambda: epoch[0]))
    epoch[0] = 5  # what a resumed run learns after iter()
    assert equal(next(walk), plan_of(make(), 5, 0))


def test_a_thread_gathers_the_next_batch_beside_the_step():
    gathered, threads = [], set()
    second = threading.Event()

    def gather(plan):
        threads.add(threading.current_thread())
        gathered.append(plan)
        if len(gathered) == 2:
            second.set()
        if len(gathered) == 4:
            raise T2IError("found no pixels")
        return plan.positions

    running = Plans(make(), lambda: 0, gather)
    walk = iter(running)
    assert torch.equal(next(walk), plan_of(make(), 0, 0).positions)
    assert second.wait(60)  # though nobody asked for it
    assert running.state_dict() == {"batches": 1}
    assert len(gathered) == 2  # and no third
    with pytest.raises(T2IError, match="no pixels"):
        list(walk)
    assert threading.current_thread() not in threads
    assert running.state_dict() == {"batches": 3}
    assert not any(thread.is_alive() for thread in threads)


def test_a_loader_that_is_left_ends_its_thread():
    threads = set()
    walk = iter(Plans(make(), lambda: 0, lambda plan: threads.add(threading.current_thread()) or plan))
    next(walk)
    del walk
    assert threads
    assert not any(thread.is_alive() for thread in threads)
