import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from t2i_zoo.errors import T2IError
from t2i_zoo.text import TextCache, TextFeatures
from t2i_zoo.text.cache import release_pages
from t2i_zoo.text.hashing import HashingEncoder

CAPTIONS = [f"flower {n} with {n % 5} red petals" + " and leaves" * (n % 3) for n in range(50)]


class Spy(HashingEncoder):
    """Counts what it is asked to encode."""

    def __init__(self, dim=32):
        super().__init__(dim)
        self.seen = []

    def encode(self, captions, *, words=False):
        self.seen += captions
        return super().encode(captions, words=words)


def direct(captions):
    return HashingEncoder(32).encode(captions).sentence.numpy()


def segments(cache):
    return sorted(cache.folder.glob("seg-*"))


def test_only_missing_captions_are_encoded(tmp_path):
    encoder = Spy()
    cache = TextCache(tmp_path, encoder)
    cache.ensure([*CAPTIONS[:20], CAPTIONS[3]])
    assert encoder.seen == CAPTIONS[:20]
    cache.ensure(CAPTIONS)
    assert encoder.seen == CAPTIONS
    cache.ensure(CAPTIONS)
    assert (len(encoder.seen), len(cache), len(segments(cache))) == (50, 50, 2)
    assert np.array_equal(cache.sentences(CAPTIONS), direct(CAPTIONS))
    assert [path.name for path in tmp_path.iterdir()] == [encoder.fingerprint()]


def test_reopened_cache_encodes_nothing(tmp_path):
    TextCache(tmp_path, HashingEncoder(32)).ensure(CAPTIONS)
    encoder = Spy()
    mixed = [CAPTIONS[7], CAPTIONS[3], CAPTIONS[7]]
    assert np.array_equal(TextCache(tmp_path, encoder).sentences(mixed), direct(mixed))
    assert encoder.seen == []


def test_a_contiguous_run_is_a_view_of_the_file(tmp_path):
    cache = TextCache(tmp_path, Spy(), words=True)
    cache.ensure(CAPTIONS)
    run = cache.sentences(CAPTIONS[10:30])
    assert np.shares_memory(run, cache.sentences(CAPTIONS))
    assert not run.flags.writeable
    assert np.shares_memory(cache.word_rows(CAPTIONS[10:30])[0], cache.word_rows(CAPTIONS)[0])
    assert cache.sentences(CAPTIONS[::-1]).flags.writeable
    assert np.array_equal(cache.sentences(CAPTIONS[::-1]), direct(CAPTIONS)[::-1])


def test_rows_are_read_where_they_lie(tmp_path, monkeypatch):
    """By their numbers, out of several segments, and nothing else is read."""
    monkeypatch.setattr("t2i_zoo.text.cache._CHUNK", 8)
    monkeypatch.setattr("t2i_zoo.text.cache._SEGMENT_CAPTIONS", 16)
    cache = TextCache(tmp_path, encoder := Spy(), words=True)
    captions = [*CAPTIONS, CAPTIONS[3]]
    rows = cache.rows(captions)
    assert len(rows) == 51
    assert len(segments(cache)) == 4
    assert len(encoder.seen) == 50
    for numbers in (np.array([50, 20, 20, 0, 49]), np.array([7]), slice(14, 18), slice(None), np.array([], np.int64)):
        chosen = list(np.array(captions)[numbers])
        assert np.array_equal(rows.sentences(numbers), direct(chosen) if chosen else np.zeros((0, 32)))
        flat, offsets = rows.words(numbers)
        expected_flat, expected_offsets = cache.word_rows(chosen)
        assert np.array_equal(flat, expected_flat)
        assert np.array_equal(offsets, expected_offsets)
    assert np.shares_memory(rows.sentences(slice(1, 9)), rows.sentences(slice(0, 16)))  # not a copy of the file
    assert len(encoder.seen) == 50


def test_asking_for_what_is_missing_encodes_it(tmp_path):
    cache = TextCache(tmp_path, Spy())
    assert np.array_equal(cache.sentences(CAPTIONS[:3]), direct(CAPTIONS[:3]))
    assert cache.sentences([]).shape == (0, 32)


def test_another_encoder_has_another_cache(tmp_path):
    TextCache(tmp_path, Spy(32)).ensure(CAPTIONS)
    other = Spy(64)
    TextCache(tmp_path, other).ensure(CAPTIONS)
    assert len(other.seen) == 50
    assert len(list(tmp_path.iterdir())) == 2


def test_words_are_ragged(tmp_path, monkeypatch):
    monkeypatch.setattr("t2i_zoo.text.cache._CHUNK", 8)
    monkeypatch.setattr("t2i_zoo.text.cache._SEGMENT_CAPTIONS", 16)
    cache = TextCache(tmp_path, Spy(), words=True)
    cache.ensure(CAPTIONS)
    assert cache.folder.name.endswith("-words")
    assert len(segments(cache)) == 4
    for chosen in (CAPTIONS, CAPTIONS[2:12], [CAPTIONS[40], CAPTIONS[1], CAPTIONS[2], CAPTIONS[40]], []):
        flat, offsets = cache.word_rows(chosen)
        assert offsets.shape == (len(chosen) + 1,)
        assert offsets[-1] == len(flat)
        for row, caption in enumerate(chosen):
            expected = HashingEncoder(32).encode([caption], words=True).words[0].numpy()
            assert np.array_equal(flat[offsets[row] : offsets[row + 1]], expected)
    assert np.array_equal(cache.sentences(CAPTIONS), direct(CAPTIONS))


@pytest.mark.parametrize("name", ["keys.npy", "sentence.npy", "words.npy", "offsets.npy"])
@pytest.mark.parametrize("damage", ["truncated", "emptied", "removed"])
def test_a_damaged_segment_is_healed(tmp_path, name, damage):
    cache = TextCache(tmp_path, Spy(), words=True)
    cache.ensure(CAPTIONS[:30])
    cache.ensure(CAPTIONS[30:])
    victim = segments(cache)[0] / name
    content = victim.read_bytes()
    victim.unlink()
    if damage != "removed":
        victim.write_bytes(content[: len(content) * 3 // 4] if damage == "truncated" else b"")
    encoder = Spy()
    healed = TextCache(tmp_path, encoder, words=True)
    assert np.array_equal(healed.sentences(CAPTIONS), direct(CAPTIONS))
    assert encoder.seen == CAPTIONS[:30]
    again = Spy()
    TextCache(tmp_path, again, words=True).ensure(CAPTIONS)
    assert again.seen == []


def test_a_killed_write_leaves_no_segment(tmp_path, monkeypatch):
    cache = TextCache(tmp_path, Spy())

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            cache.ensure(CAPTIONS)
    assert list(cache.folder.iterdir()) == []
    old = cache.folder / f"new-{time.time_ns() - 2 * 86_400 * 10**9:020d}-dead"
    young = cache.folder / f"new-{time.time_ns():020d}-live"
    old.mkdir()
    young.mkdir()
    TextCache(tmp_path, Spy())
    assert (old.exists(), young.exists()) == (False, True)


def test_what_was_flushed_survives_a_bad_caption(tmp_path, monkeypatch):
    monkeypatch.setattr("t2i_zoo.text.cache._CHUNK", 10)
    monkeypatch.setattr("t2i_zoo.text.cache._SEGMENT_CAPTIONS", 10)
    with pytest.raises(T2IError, match="no word"):
        TextCache(tmp_path, Spy()).ensure([*CAPTIONS, " "])
    assert len(TextCache(tmp_path, Spy())) == 50


def test_two_processes_at_once(tmp_path):
    script = """
import sys
from pathlib import Path
import t2i_zoo.text.cache as cache
from t2i_zoo.text.hashing import HashingEncoder
cache._CHUNK = cache._SEGMENT_CAPTIONS = 20
print(flush=True)
sys.stdin.readline()
captions = [f"flower {n}" for n in range(int(sys.argv[2]), 400)]
cache.TextCache(Path(sys.argv[1]), HashingEncoder(32)).ensure(captions)
"""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for start in ("0", "100")
    ]
    for run in runs:
        run.stdout.readline()  # both have imported torch
    for run in runs:
        run.stdin.write(b"\n")
        run.stdin.flush()
    for run in runs:
        run.communicate(timeout=300)
        assert run.returncode == 0
    encoder = Spy()
    captions = [f"flower {n}" for n in range(400)]
    cache = TextCache(tmp_path, encoder)
    assert np.array_equal(cache.sentences(captions), direct(captions))
    assert encoder.seen == []
    assert len(cache) == 400


def test_a_second_cache_object_sees_what_the_first_wrote(tmp_path):
    first, encoder = TextCache(tmp_path, Spy()), Spy()
    second = TextCache(tmp_path, encoder)
    first.ensure(CAPTIONS)
    second.ensure(CAPTIONS)
    assert encoder.seen == []


def test_two_files_are_opened_for_any_number_of_captions(tmp_path, monkeypatch):
    class Zeros(Spy):
        def encode(self, captions, *, words=False):
            return TextFeatures(torch.zeros(len(captions), 16))

    captions = [f"caption number {n}" for n in range(20_000)]
    TextCache(tmp_path, Zeros(16)).ensure(captions)
    opened, load = [], np.load

    def spy(path, *args, **options):
        opened.append(Path(path).name)
        return load(path, *args, **options)

    monkeypatch.setattr(np, "load", spy)
    assert TextCache(tmp_path, Zeros(16)).sentences(captions).shape == (20_000, 16)
    assert sorted(opened) == ["keys.npy", "sentence.npy"]


def test_progress_goes_to_standard_error(tmp_path, capsys):
    TextCache(tmp_path, Spy()).ensure(CAPTIONS, progress=True)
    shown = capsys.readouterr()
    assert "encoding captions" in shown.err
    assert "100%" in shown.err
    assert shown.out == ""


def test_mapped_files_are_given_back(tmp_path: Path) -> None:
    """What was read counts as this process's memory until it is given back; the file stays as it was."""
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("needs /proc, where Linux tells what is resident")

    def mapped() -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("RssFile"))

    np.save(tmp_path / "large.npy", np.ones(1 << 25, np.uint8))  # 32 MiB
    array = np.load(tmp_path / "large.npy", mmap_mode="r")
    total, before = int(array.sum(dtype=np.int64)), mapped()
    release_pages(array)
    assert before - mapped() > 24 * 1024
    assert int(array.sum(dtype=np.int64)) == total == 1 << 25
    release_pages(np.ones(3))  # what is not mapped stays alone
    release_pages(None)
