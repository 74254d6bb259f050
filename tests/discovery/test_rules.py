"""Every rule against the schema of its operation: an argument that it does not name makes a barrier."""

import pytest
import torch
from torch import fx

from neuralmech.discovery import discover  # noqa: F401  (it fills the tables)
from neuralmech.discovery.engine import Parameter
from neuralmech.discovery.mixing import MixingAlgebra
from neuralmech.discovery.scale import ScaleAlgebra
from neuralmech.discovery.shift import ShiftAlgebra
from neuralmech.discovery.walk import unnamed

ALGEBRAS = {"scale": ScaleAlgebra, "shift": ShiftAlgebra, "mixing": MixingAlgebra}
TABLES = {name: make().rules for name, make in ALGEBRAS.items()}


def overloads(name):
    packet = getattr(torch.ops.aten if hasattr(torch.ops.aten, name) else torch.ops.neuralmech, name)
    ops = [getattr(packet, o) for o in packet.overloads()]
    return [op for op in ops if _is_of_tensors(op._schema)]


def _is_of_tensors(schema):
    first = schema.arguments[0] if schema.arguments else None
    by_name = any("Dimname" in str(a.type) for a in schema.arguments)
    writes = any(a.is_out for a in schema.arguments)
    return first is not None and "Tensor" in str(first.type) and not by_name and not writes


RULES = [(table, name) for table, rules in TABLES.items() for name in rules.rules]


@pytest.mark.parametrize(("table", "name"), RULES)
def test_every_argument_is_named_or_makes_a_barrier(table, name):
    rule, algebra = TABLES[table].get(name), ALGEBRAS[table]()
    for op in overloads(name):
        for argument in op._schema.arguments:
            graph = fx.Graph()
            weight = graph.placeholder("weight")
            env = {weight: Parameter("weight", torch.Size([2, 2]))}
            if "Tensor" in str(argument.type):  # a parameter where the rule takes something given
                many = "List" in str(argument.type)
                node = graph.call_function(op, (), {argument.name: [weight] if many else weight})
                assert bool(unnamed(rule, node, env, algebra)) == (argument.name not in rule.takes), argument.name
            if argument.name not in rule.takes | rule.given:
                node = graph.call_function(op, (), {argument.name: _other(argument)})
                assert unnamed(rule, node, env, algebra) == [argument.name]


def _other(argument):
    """A value that is not the default."""
    if isinstance(argument.default_value, bool) or "bool" in str(argument.type).lower():
        return not argument.default_value
    return 7 if argument.default_value != 7 else 8


@pytest.mark.parametrize("table", TABLES)
def test_no_rule_names_an_argument_that_its_operations_do_not_have(table):
    together = {}
    for name, rule in TABLES[table].rules.items():
        here = {a.name for op in overloads(name) for a in op._schema.arguments}
        named, have = together.setdefault(rule, (rule.takes | rule.given, set()))
        have.update(here)
    for rule, (named, have) in together.items():
        movement = {"self", "tensors", "src"} <= rule.takes  # shared by many tables' operations
        assert named <= have or movement, (rule.apply.__name__, named - have)


def test_movements_name_no_argument_that_no_movement_has():
    rules = TABLES["shift"].rules  # padding, too
    moving = {name for name, rule in rules.items() if {"self", "tensors", "src"} <= rule.takes}
    have = {a.name for name in moving for op in overloads(name) for a in op._schema.arguments}
    rule = rules["view"]
    assert (rule.takes | rule.given) - have == set()
