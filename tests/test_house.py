"""What the house holds itself to: one thing has one name, arrays say their shape, functions fit a screen."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

import neuralmech

ROOT = Path(neuralmech.__file__).parent
TREES = {p.relative_to(ROOT): ast.parse(p.read_text()) for p in sorted(ROOT.rglob("*.py"))}
MOST_LINES, MOST_ARGUMENTS = 60, 8
# Plug-ins have the name that their host looks for; adapters that of what they add to a framework.
BY_CONTRACT = {"Logger": "loggers/", "Charges": ""}
BARE = re.compile(r"\b(Tensor|NDArray|ndarray)\b")
# What a callable takes is told where it is called.
SHAPED = re.compile(r"\b(Callable|Float|Float32|Float64|Int|Int8|Int64|UInt8|UInt64|Bool|Num|Shaped)\[")


def functions(tree):
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def arguments(function):
    of = function.args
    every = [*of.posonlyargs, *of.args, *of.kwonlyargs, *filter(None, (of.vararg, of.kwarg))]
    return [a for a in every if a.arg not in ("self", "cls")]


def public(tree):
    """Functions and methods that another module may call."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node)
        elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__init__"):
            yield node


def without_shapes(annotation):
    """An annotation without what says its shape."""
    while found := SHAPED.search(annotation):
        end, depth = found.end(), 1
        while depth:
            depth += {"[": 1, "]": -1}.get(annotation[end], 0)
            end += 1
        annotation = annotation[: found.start()] + annotation[end:]
    return annotation


def is_registered(function):
    """Whether PyTorch reads its annotations, and knows no shapes."""
    return any("custom_op" in ast.unparse(decorator) for decorator in function.decorator_list)


def test_no_two_classes_have_one_name():
    found = defaultdict(list)
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not str(path).startswith(BY_CONTRACT.get(node.name, "no such room")):
                found[node.name].append(str(path))
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("path", TREES, ids=str)
def test_functions_fit_a_screen_and_take_few_arguments(path):
    for function in functions(TREES[path]):
        assert function.end_lineno - function.lineno < MOST_LINES, function.name
        assert len(arguments(function)) <= MOST_ARGUMENTS, function.name


@pytest.mark.parametrize("path", TREES, ids=str)
def test_arrays_that_cross_a_boundary_say_their_shape(path):
    for function in public(TREES[path]):
        if is_registered(function):
            continue
        every = [*((a.arg, a.annotation) for a in arguments(function)), ("return", function.returns)]
        for name, annotation in every:
            if annotation is not None:
                text = ast.unparse(annotation)
                assert not BARE.search(without_shapes(text)), f"line {function.lineno}, {function.name}: {name}: {text}"
