"""The table, the plot and the grids of a study's page, from what ``t2i-zoo study`` left.

``python docs/studies/figures.py FILE.yaml RUNS OUT`` reads RUNS/results.jsonl and RUNS/grids, prints the table, and
writes OUT.svg and OUT-grids.jpg. It needs matplotlib and adjustText.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from adjustText import adjust_text
from PIL import Image

from t2i_zoo.commands.study import RESULTS
from t2i_zoo.commands.study_file import Study
from t2i_zoo.metrics.records import read_lines

#: a column's heading, the name of its score, decimals, and whether more is better
COLUMNS = (
    ("Fréchet, MobileNetV2", "distances.frechet_distance (mobilenet_v2", 0, False),
    ("Fréchet, EfficientNet", "distances.frechet_distance (efficientnet_lite0", 0, False),
    ("precision", "distances.prdc.precision (mobilenet_v2", 2, True),
    ("recall", "distances.prdc.recall (mobilenet_v2", 3, True),
    ("colour", "agreement_colour.colour_agreement.all", 2, True),
    ("diversity", "diversity_caption.caption_diversity", 2, True),
)


def score(line: dict[str, Any], name: str) -> float:
    """The score whose name begins so."""
    return next(value for known, value in line["scores"].items() if known.startswith(name))


def columns_of(lines: list[dict[str, Any]]) -> list[tuple[str, str, int, bool]]:
    """Those of ``COLUMNS`` that the study measured."""
    return [column for column in COLUMNS if any(known.startswith(column[1]) for known in lines[0]["scores"])]


def table(study: Study, lines: list[dict[str, Any]]) -> str:
    """A Markdown table of the arms at each time, the nearest to photographs first and the best of each time bold."""
    rows = sorted(lines, key=lambda x: (x["minutes"], score(x, COLUMNS[0][1])))
    out = ["| minutes | arm | images seen | a second |", "|---|---|---|---|"]
    for head, *_ in columns_of(lines):
        out = [out[0] + f" {head} |", out[1] + "---|"]
    for x in rows:
        seen = x["batches"] * {**study.options, **study.arms[x["arm"]]}["data.batch_size"]
        name = f"`{x['arm']}`" + (f", seed {x['seed']}" if x["seed"] else "")
        row = f"| {x['minutes']:g} | {name} | {seen:,} | {seen / x['minutes'] / 60:.0f} |"
        for _, key, digits, more in columns_of(lines):
            others = [round(score(y, key), digits) for y in rows if y["minutes"] == x["minutes"]]
            text, best = f"{score(x, key):.{digits}f}", max(others) if more else min(others)
            row += f" **{text}** |" if float(text) == best and len(set(others)) > 1 else f" {text} |"
        out.append(row)
    return "\n".join(out) + "\n"


def paths(lines: list[dict[str, Any]], out: Path) -> None:
    """Agreement of colours over Frechet distance: a point for each time of an arm, joined in order."""
    figure, axis = plt.subplots(figsize=(9, 5.5))
    labels = []
    columns = COLUMNS[0], next(column for column in COLUMNS if column[0] == "colour")
    for arm, seed in dict.fromkeys((x["arm"], x["seed"]) for x in lines):
        own = sorted((x for x in lines if (x["arm"], x["seed"]) == (arm, seed)), key=lambda x: x["minutes"])
        points = [(score(x, columns[0][1]), score(x, columns[1][1])) for x in own]
        axis.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1)
        label = arm + (f", seed {seed}" if seed else "") + (f", {own[-1]['minutes']:g} min" if len(own) > 1 else "")
        labels.append(axis.text(*points[-1], label, fontsize=7))
    axis.set(xlabel=columns[0][0], ylabel=columns[1][0])
    axis.margins(x=0.12)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    adjust_text(labels, arrowprops={"arrowstyle": "-", "color": "grey", "linewidth": 0.5})
    figure.savefig(out)


def grids(study: Study, lines: list[dict[str, Any]], folder: Path, out: Path, rows: int = 2, columns: int = 6) -> None:
    """The first samples of each arm's last grid, with the same captions and noise: one strip per arm."""
    lines = [x for x in lines if _grid(folder, x).exists()]
    last = {(x["arm"], x["seed"]): x for x in sorted(lines, key=lambda x: x["minutes"])}
    figure, axes = plt.subplots(-(-len(last) // 2), 2, figsize=(9, 1.55 * -(-len(last) // 2)), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    order = sorted(last.values(), key=lambda x: score(x, COLUMNS[0][1]))
    for axis, line in zip(axes.flat, order, strict=False):
        with Image.open(_grid(folder, line)) as grid:
            row = grid.height / len(study.captions)
            tiles = [
                grid.crop((0, round(i * row), grid.width * columns // 8, round((i + 0.82) * row))) for i in range(rows)
            ]
        strip = Image.new("RGB", (tiles[0].width, sum(tile.height for tile in tiles)), "white")
        for index, tile in enumerate(tiles):
            strip.paste(tile, (0, index * tile.height))
        axis.imshow(strip)
        axis.set_title(f"{line['arm']} ({score(line, COLUMNS[0][1]):.0f})", fontsize=8, loc="left", pad=2)
    figure.tight_layout(pad=0.4)
    figure.savefig(out, dpi=110, pil_kwargs={"quality": 85})


def _grid(folder: Path, line: dict[str, Any]) -> Path:
    return folder / f"{line['arm']}-{line['seed']}-{line['minutes']:g}.jpg"


if __name__ == "__main__":
    chosen, runs, target = Study.read(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
    found = [x for x in read_lines(runs / RESULTS) if x["arm"] in chosen.arms]
    print(table(chosen, found))
    paths(found, target.with_suffix(".svg"))
    grids(chosen, found, runs / "grids", target.with_name(target.name + "-grids.jpg"))
