"""Protocols: all packaged ones are whole, the hash follows the content, and mistakes are one sentence."""

from __future__ import annotations

import pytest

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.protocol import METRICS, list_protocols, load_protocol
from t2i_zoo.metrics.published import MARKS, comparable, published
from t2i_zoo.models import MODELS

NAMES = ["fd_test_30k", "is_10x", "rprec_damsm", "rprec_clip", "msssim_class", "agreement_synthetic", "fmd_5k", "tiny"]
NAMES += ["agreement_colour", "redescription", "pointing_synthetic", "fid_dfgan"]


def test_the_packaged_protocols():
    found = list_protocols()
    assert set(NAMES) < set(found)
    assert all(found.values())
    hashes = {load_protocol(name).hash for name in found}
    assert len(hashes) == len(found)
    named = {metric for name in found for metric in load_protocol(name).metrics}
    assert named == set(METRICS)


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_the_hash_is_of_the_content_after_overrides(tmp_path):
    first = load_protocol(write(tmp_path, "metrics: [agreement]\nimages: 10\nabout: a\n"))
    again = load_protocol(write(tmp_path, "about: other words\nimages: 10\nmetrics: {agreement: {}}\nseed: 0\n"))
    assert first.hash == again.hash
    assert first.change(images=None).hash == first.hash
    for change in ({"images": 11}, {"seed": 1}, {"ema": False}):
        assert first.change(**change).hash != first.hash
    changed = first.change(images=11)
    assert changed.change(images=10).hash == first.hash


def test_hashes_in_published_results_stay():
    assert load_protocol("agreement_synthetic").hash == "d894df5e"  # as docs/results.md has it
    scaled = load_protocol("agreement_synthetic").change(noise_scale=0.5)
    assert scaled.hash != "d894df5e"


def test_folders_are_not_part_of_the_hash():
    protocol = load_protocol("fmd_5k")
    here, there = (protocol.change(network=f"file:{place}/net.pt") for place in ("a", "b/c"))
    assert here.hash == there.hash
    assert here.hash != protocol.change(network="file:a/other.pt").hash


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metrics: [agreement]\nimage: 10", "found 'image' in the protocol .*: did you mean images"),
        ("metrics: [agreemnt]", "found the metric 'agreemnt' in the protocol mine: did you mean agreement"),
        (
            "metrics: {prdc: {n: 3}}\nnetwork: ask",
            "found the option 'n' of prdc in .* mine, expected one of k",
        ),
        ("metrics: [prdc]", "found no network in the protocol mine, which prdc needs"),
        ("images: 10", "found no metrics"),
        (
            "metrics: [agreement]\nimages: many",
            "found images 'many' in the .* mine, expected an integer of at least 1",
        ),
        ("metrics: [agreement]\nreference: all", "found reference 'all'"),
        ("metrics: [agreement]\nbits: 16", "found bits 16 in the protocol mine, expected 8 or 32"),
        ("metrics: [agreement]\ntruncation: -1", "found truncation -1"),
        ("metrics: [agreement]\ntruncation: wide", "found truncation 'wide' in the protocol mine, expected a number"),
        ("metrics: [agreement]\nnoise_scale: 0", "found noise_scale 0 in the protocol mine, expected a number above 0"),
        ("metrics: [agreement]\nema: maybe", "found ema 'maybe' in the protocol mine, expected true or false"),
        ("metrics: [prdc]\nnetwork: 3", "found network 3 in the protocol mine, expected a name"),
        (
            "metrics: {prdc: {k: five}}\nnetwork: ask",
            "found k 'five' of prdc in .*, expected an integer such as 5",
        ),
        ("metrics: {prdc: {k: true}}\nnetwork: ask", "found k True of prdc in .* mine, expected an integer such as 5"),
        ("metrics: {r_precision: {top: 3}}\nnetwork: ask", r"found top 3 of .*, expected a list such as \[1, 2, 3\]"),
        (
            "metrics: {nearest_training: {percentile: x}}\nnetwork: ask",
            "found percentile 'x' .*a number such as 1.0",
        ),
        ("- agreement", "found no options"),
        ("metrics: [", "as YAML"),
    ],
)
def test_mistakes(text, message, tmp_path):
    with pytest.raises(T2IError, match=message) as error:
        load_protocol(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_an_unknown_name():
    with pytest.raises(T2IError, match=r"found no protocol 'fd_test_30'.*try fd_test_30k"):
        load_protocol("fd_test_30")


def test_published_numbers_have_a_source_and_a_mark():
    rows = published()
    assert {row.model for row in rows} >= {name for name, entry in MODELS.items() if entry.kind == "gan"} - {"stream"}
    for row in rows:
        assert row.read in MARKS
        assert row.source
        assert row.data in ("cub", "oxford102", "coco")
        assert row.metric.split(".")[0] in METRICS
    (row,) = published("stackgan", "oxford102", "frechet_distance")
    assert row.value == 55.28


def test_when_numbers_may_be_compared():
    (row,) = published("stackgan", "oxford102", "frechet_distance")
    assert comparable(row, "oxford102", "mobilenet_v2", 30000) == "no: other network"
    assert comparable(row, "oxford102", "inception_v3_tf", 5000) == "no: fewer images"
    assert comparable(row, "oxford102", "inception_v3_tf", 30000).startswith("roughly")
    assert comparable(row, None, "inception_v3_tf", 30000).startswith("no: oxford102")
    (row,) = published("stackgan", "oxford102", "inception_score")
    assert "fine-tuned" in comparable(row, "oxford102", "inception_v3_tf", 30000)
    for model in ("attngan", "dmgan", "dfgan"):  # by a network of the authors' choice, and some by the usual one too
        rows = published(model, "coco", "frechet_distance")
        for row in rows:
            networks = {"inception_v3_tf", "inception_v3_dfgan"}
            assert comparable(row, "coco", row.network, 40_480).startswith("roughly")
            (other,) = networks - {row.network}
            assert comparable(row, "coco", other, 40_480) == "no: other network"
        assert {row.value for row in rows if row.network == "inception_v3_dfgan"} == {
            "attngan": {35.49}, "dmgan": {32.64, 26.55}, "dfgan": {19.32, 15.41},
        }[model]  # fmt: skip
    (row,) = published("attngan", "coco", "inception_score")
    assert comparable(row, "coco", "inception_v3_tf", 10) == "no: fewer images"
