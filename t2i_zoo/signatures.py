"""Signatures and docstrings read from source files, so that help and mistyped flags are answered without torch.

Importing a model takes seconds, since it imports torch and Lightning. What its options are called is in its source.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import docstring_parser

_LIGHT = ("__future__", "typing", "collections.abc", "pathlib")  #: imports that a copied signature may need


class Option(NamedTuple):
    """One argument of a class.

    Attributes:
        name: of the argument.
        kind: its annotation.
        default: source text of its default; "" where it is required.
        about: from the docstring, on one line.
        owner: name of the class that declares it.
    """

    name: str
    kind: str
    default: str
    about: str
    owner: str


@functools.cache
def _tree(module: str) -> ast.Module:
    """The parsed source of a module; only its top package is looked for by Python, which imports nothing."""
    top, *parts = module.split(".")
    spec = find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(module)
    place = Path(spec.submodule_search_locations[0]).joinpath(*parts)
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    try:
        return ast.parse(file.read_text("utf-8"))
    except OSError as error:
        raise LookupError(module) from error


def _definition(path: str) -> tuple[str, ast.ClassDef | ast.FunctionDef]:
    """The module and the node of a class or function, followed through imports.

    Raises:
        LookupError: where there is none in the source, for instance because it is made at run time.
    """
    module, _, name = path.rpartition(".")
    if not module:
        raise LookupError(path)
    body = _tree(module).body
    for node in [*body, *(part for each in body if isinstance(each, ast.If) for part in each.body)]:  # TYPE_CHECKING
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            return _definition(f"{node.module}.{name}")
    raise LookupError(path)


@functools.cache
def options_of(path: str) -> tuple[Option, ...]:
    """Options of a class by its import path: its own first, then those of its bases that ``**options`` hands on.

    Raises:
        LookupError: where the source has no such class.
    """
    module, node = _definition(path)
    assert isinstance(node, ast.ClassDef)
    init = next((part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"), None)
    texts = [ast.get_docstring(part) or "" for part in (node, init) if part is not None]
    described = [each for text in texts for each in docstring_parser.parse(text).params]
    about = {name: each.description or "" for each in described for name in each.arg_name.split(", ")}
    if init is not None:
        own = [*_arguments(init)]
    else:
        own = [*_fields(node)] if any("dataclass" in ast.unparse(each) for each in node.decorator_list) else []
    said = {name: " ".join(text.replace("``", "").split()) for name, text in about.items()}
    found = {name: Option(name, kind, default, said.get(name, ""), node.name) for name, kind, default in own}
    for base in node.bases if init is None or init.args.kwarg else ():
        try:
            inherited = options_of(f"{module}.{ast.unparse(base)}")
        except LookupError:  # of a library
            continue
        for each in inherited:
            found.setdefault(each.name, each._replace(about=said.get(each.name) or each.about))
    return tuple(found.values())


def _arguments(init: ast.FunctionDef) -> Iterator[tuple[str, str, str]]:
    given = init.args
    placed = [*given.posonlyargs, *given.args]
    defaults = [*[None] * (len(placed) - len(given.defaults)), *given.defaults, *given.kw_defaults]
    for argument, default in list(zip([*placed, *given.kwonlyargs], defaults, strict=True))[1:]:
        kind = ast.unparse(argument.annotation) if argument.annotation else ""
        yield argument.arg, kind, ast.unparse(default) if default else ""


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            kind = ast.unparse(part.annotation)
            if not kind.startswith("ClassVar") and not part.target.id.startswith("_"):
                yield part.target.id, kind, ast.unparse(part.value) if part.value else ""


def copied(path: str) -> Callable[..., Any]:
    """A function with the signature and docstring of another one, whose module is not imported; it does nothing.

    Its annotations and defaults may use no other names than those of the standard library's typing modules.
    """
    module, node = _definition(path)
    assert isinstance(node, ast.FunctionDef)
    about: ast.stmt = ast.Expr(ast.Constant(ast.get_docstring(node)))
    empty = ast.FunctionDef(node.name, node.args, [about], [], None, None, lineno=1, col_offset=0)
    imports = [each for each in _tree(module).body if isinstance(each, ast.ImportFrom) and each.module in _LIGHT]
    names: dict[str, Any] = {"__name__": module}
    exec(compile(ast.fix_missing_locations(ast.Module([*imports, empty], [])), module, "exec"), names)
    found: Callable[..., Any] = names[node.name]
    return found
