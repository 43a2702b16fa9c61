"""Mutation testing, by hand: break one expression at a time, and see whether the tests that guard its file notice.

    python tests/mutate.py --minutes 30 --seed 1 --out mutants.jsonl

Mutants are drawn at random from the files of ``GUARDS``; each runs in a fork of one warm process, golden steps first. A
mutant in the body of a function replaces the function's code, so that nothing is imported again; any other is imported
anew. ``--again FILE`` runs the survivors of a former run once more. See docs/mutation.md.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import functools
import gc
import importlib.abc
import importlib.util
import json
import os
import random
import resource
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAIRS, PYRAMIDS = "models/test_golden_pairs.py", "models/test_golden_pyramids.py"
DFGAN = "models/test_golden_dfgan.py"
STAGES, MEMORY = "models/test_golden_stages.py", "models/test_golden_memory.py"
SERVING = "models/test_golden_serving.py"
EVERYWHERE = ["models/test_small_things.py", "models/test_defaults.py"]  #: the last guards of all files
#: tests of a file, or of all files below a folder, cheapest first; the longest key counts
GUARDS: dict[str, list[str]] = {
    "nn/adversarial.py": [PAIRS, DFGAN, "nn/test_adversarial.py"],
    "nn/augment.py": ["nn/test_augment.py"],
    "nn/checkpointing.py": [PYRAMIDS, "models/test_attentive.py"],
    "nn/conditioning.py": [PYRAMIDS, STAGES],
    "nn/damsm.py": [f"{SERVING}::test_damsm", "models/test_damsm_losses.py"],
    "nn/discriminator.py": [PYRAMIDS, PAIRS, "models/test_stackganpp.py"],
    "nn/glu.py": [f"{PYRAMIDS}::test_stackganpp", f"{PYRAMIDS}::test_attngan", "models/test_stackganpp.py"],
    "nn/init.py": ["nn/test_init.py"],
    "nn/joint.py": [PYRAMIDS, STAGES, "models/test_dmgan.py"],
    "nn/losses.py": [PYRAMIDS, PAIRS, DFGAN, SERVING, STAGES],
    "nn/penalties.py": [DFGAN, "nn/test_penalties.py"],
    "nn/projected.py": ["nn/test_projected.py"],
    "nn/recurrent.py": ["nn/test_recurrent.py", SERVING],
    "nn/retrieval.py": ["models/test_damsm_losses.py", "models/test_damsm.py"],
    "nn/spectral.py": [MEMORY, "models/test_dmgan.py"],
    "nn/words.py": [MEMORY, f"{PYRAMIDS}::test_attngan", "models/test_attentive.py"],
    "models/drawing.py": [
        PAIRS,
        DFGAN,
        PYRAMIDS,
        "models/test_gancls.py",
        "models/test_tacgan.py",
        "models/contract/test_contract.py::test_calling_a_model_gives_pictures",
        "models/test_exported.py",
        "models/test_restored_encoder.py",
    ],
    "models/attngan": [f"{PYRAMIDS}::test_attngan"],
    "models/charcnnrnn": [f"{SERVING}::test_charcnnrnn", "models/test_charcnnrnn.py"],
    "models/classifier": [
        f"{SERVING}::test_classifier",
        "models/test_classifier.py",
        "models/test_classifier_metrics.py",
    ],
    "models/damsm": [f"{SERVING}::test_damsm", "models/test_damsm.py", "models/test_damsm_losses.py"],
    "models/dfgan": [DFGAN, "models/test_dfgan.py"],
    "models/dmgan": [MEMORY, "models/test_dmgan.py"],
    "models/gancls": [f"{PAIRS}::test_gancls", "models/test_gancls.py"],
    "models/mirrorgan": [f"{PYRAMIDS}::test_mirrorgan"],
    "models/skipthought": [f"{SERVING}::test_skipthought", "models/test_skipthought.py"],
    "models/stackgan": [STAGES, "models/test_stackgan.py", "models/test_stackgan_stages.py"],
    "models/stackganpp": [
        f"{PYRAMIDS}::test_stackganpp",
        "models/test_stackganpp.py",
        "models/test_stackganpp_losses.py",
    ],
    "models/stream": [SERVING, PYRAMIDS, "models/test_caption_writer.py"],
    "models/tacgan": [f"{PAIRS}::test_tacgan", "models/test_tacgan.py", "models/test_tacgan_networks.py"],
    "data/mismatch.py": ["data/test_mismatch.py"],
    "data/plan.py": ["data/test_plan.py", "data/test_mismatch.py", "data/test_batches.py"],
    "metrics/diversity.py": ["metrics/test_diversity.py"],
    "metrics/frechet.py": ["metrics/test_frechet.py"],
    "metrics/inception_score.py": ["metrics/test_kernel.py"],
    "metrics/kernel.py": ["metrics/test_kernel.py"],
    "metrics/msssim.py": ["metrics/test_diversity.py"],
    "metrics/neighbours.py": ["metrics/test_neighbours.py"],
    "metrics/pointing.py": ["metrics/test_pointing.py"],
    "metrics/retrieval.py": ["metrics/test_retrieval.py"],
    "metrics/draws.py": ["metrics/test_protocol.py", "metrics/test_retrieval.py", "metrics/test_diversity.py"],
    "metrics/base.py": ["metrics/test_protocol.py", "metrics/test_frechet.py", "metrics/test_retrieval.py"],
    "metrics/protocol.py": ["metrics/test_protocol.py"],
}
PARTS = ("drawing.py", "losses.py", "networks.py", "module.py")  #: of a model's folder
SECONDS = 90  #: of processor time for one mutant; a mutant that takes longer is caught
SWAPS: dict[type, type] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult},
    **{ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
    **{ast.Lt: ast.GtE, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
}


def files() -> Iterator[Path]:
    for key in GUARDS:
        path = ROOT / "t2i_zoo" / key
        yield from [path] if path.suffix else (path / part for part in PARTS if (path / part).is_file())


def guards(path: Path) -> list[str]:
    own = path.relative_to(ROOT / "t2i_zoo").as_posix()
    best = max((key for key in GUARDS if f"{own}/".startswith(f"{key}/")), key=len)
    return [*GUARDS[best], *EVERYWHERE]


def changes(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """What can be done to one node, in place: a name, and the function that does it to a copy."""
    if isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in SWAPS:
        yield "operator", lambda n: setattr(n, "op", SWAPS[type(n.op)]())
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield "comparison", lambda n: n.ops.__setitem__(0, SWAPS[type(n.ops[0])]())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub, ast.Invert)):
        yield "sign", lambda n: setattr(n, "op", ast.Not() if isinstance(n.op, ast.Invert) else ast.UAdd())
    elif isinstance(node, ast.IfExp):
        yield "branches", lambda n: n.__dict__.update(body=n.orelse, orelse=n.body)
    elif isinstance(node, ast.If):
        yield "condition", lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        value = node.value
        other = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else 2 * value or 1.0
        yield "constant", lambda n: setattr(n, "value", other)
    elif isinstance(node, ast.Call):
        for i in range(len(node.keywords)):
            yield f"without {node.keywords[i].arg}", lambda n, i=i: n.keywords.pop(i)
        if len(node.args) > 1:
            yield "without the last argument", lambda n: n.args.pop()


def parts(node: ast.AST, inside: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """The nodes that may change a number, and whether they are in a function's body: no errors, checks or types."""
    raises = isinstance(node, ast.If) and all(isinstance(x, ast.Raise) for x in node.body) and not node.orelse
    checks = isinstance(node, ast.FunctionDef) and (node.name.startswith(("_check", "check_")) or node.name == "setup")
    typed = isinstance(node, ast.AnnAssign) and node.value is None
    if raises or checks or typed or isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr)):
        return
    yield node, inside
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                body = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and name == "body"
                yield from parts(child, inside or body)


def mutants(path: Path) -> list[dict[str, Any]]:
    tree, found = ast.parse(path.read_text()), []
    for number, (node, inside) in enumerate(parts(tree)):
        for choice, (what, _) in enumerate(changes(node)):
            about = {"file": path.relative_to(ROOT).as_posix(), "line": getattr(node, "lineno", 0), "what": what}
            found.append({**about, "node": number, "choice": choice, "inside": inside})
    return found


def mutated(mutant: dict[str, Any]) -> tuple[ast.Module, str, str]:
    """The tree of a mutant, and the changed line before and after."""
    tree = copy.deepcopy(ast.parse((ROOT / mutant["file"]).read_text()))
    node = [node for node, _ in parts(tree)][mutant["node"]]
    before = ast.unparse(node.test if isinstance(node, ast.If) else node)
    list(changes(node))[mutant["choice"]][1](node)
    after = ast.unparse(node.test if isinstance(node, ast.If) else node)
    return ast.fix_missing_locations(tree), before[:110], after[:110]


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def plant(mutant: dict[str, Any]) -> None:
    """Put a mutant in the place of its module, in this process."""
    path = ROOT / mutant["file"]
    code = compile(mutated(mutant)[0], str(path), "exec")
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    if mutant["inside"]:
        new = {(one.co_qualname, one.co_firstlineno): one for one in codes(code)}
        for one in gc.get_objects():
            if isinstance(one, types.FunctionType) and one.__code__.co_filename == str(path):
                one.__code__ = new[one.__code__.co_qualname, one.__code__.co_firstlineno]
        return

    class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, found: str, *_: Any) -> Any:
            return importlib.util.spec_from_file_location(name, path, loader=self) if found == name else None

        def exec_module(self, module: types.ModuleType) -> None:
            exec(code, module.__dict__)

    for key, module in list(sys.modules.items()):
        if key.split(".")[0] == "t2i_zoo" or (getattr(module, "__file__", None) or "").startswith(str(ROOT / "tests")):
            del sys.modules[key]
    sys.meta_path.insert(0, Finder())


class Failed:
    """A plugin of pytest that writes down which tests failed."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            with self.place.open("a") as file:
                print(report.nodeid, file=file)


def run(test: str, mutant: dict[str, Any] | None, *options: str, plugins: tuple[Any, ...] = ()) -> bool:
    """Whether one entry of ``GUARDS`` passes, in a fork, with a mutant or as it is."""
    import pytest

    sys.stdout.flush()
    if not (child := os.fork()):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        status = 1
        with contextlib.suppress(BaseException):
            if mutant:
                plant(mutant)
            quiet = ["-q", "-p", "no:cacheprovider", "-p", "no:warnings", *options]
            status = int(pytest.main([*quiet, f"tests/{test}"], [*plugins]))
        os._exit(status)
    return os.waitpid(child, 0)[1] == 0


@functools.cache
def failing(test: str) -> tuple[str, ...]:
    """Tests that fail without a mutant, and are left out."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "failed.txt"
        run(test, None, plugins=(Failed(place),))
        return tuple(place.read_text().split("\n")[:-1]) if place.exists() else ()


def caught(mutant: dict[str, Any]) -> bool:
    """Whether a guard notices."""
    return any(
        not run(test, mutant, "-x", *(f"--deselect={one}" for one in failing(test)))
        for test in guards(ROOT / mutant["file"])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="stop after this time")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the mutants")
    parser.add_argument("--out", type=Path, default=Path("mutants.jsonl"), help="file that gets a line per mutant")
    parser.add_argument("--again", type=Path, help="run the survivors of this file")
    parser.add_argument("--only", default="", help="only files whose path contains this")
    options = parser.parse_args()
    if options.again:
        lines = [json.loads(line) for line in options.again.read_text().splitlines()]
        chosen = [line for line in lines if not line["caught"]]
    else:
        chosen = [mutant for path in files() for mutant in mutants(path)]
        random.Random(options.seed).shuffle(chosen)
    done = options.out.read_text().splitlines() if options.out.exists() else []
    ran = {(line["file"], line["node"], line["choice"]) for line in map(json.loads, done)}
    chosen = [m for m in chosen if options.only in m["file"] and (m["file"], m["node"], m["choice"]) not in ran]
    print(len(chosen), "mutants to run", flush=True)
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    import pytest
    import torch

    torch.set_num_threads(1)
    tests = sorted({name.split("::")[0] for path in files() for name in guards(path)})
    quiet = ["-q", "-q", "--collect-only", "-p", "no:cacheprovider"]
    assert pytest.main([*quiet, *(str(ROOT / "tests" / name) for name in tests)]) == 0  # imports all of them
    start = time.monotonic()
    with options.out.open("a") as out:
        for mutant in chosen:
            if time.monotonic() - start > 60 * options.minutes:
                break
            before, after = mutated(mutant)[1:]
            former = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            line = {**mutant, "before": before, "after": after, "caught": caught(mutant)}
            line["seconds"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - former, 1)
            print(json.dumps(line), file=out, flush=True)


if __name__ == "__main__":
    main()
