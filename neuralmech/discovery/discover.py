"""Find the symmetries of a model's loss: translations, scales, rescales, and mixing of channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jaxtyping import Shaped
from torch import Tensor, nn

from neuralmech.discovery import (  # noqa: F401  (they fill the tables)
    mixing,
    mixing_maps,
    mixing_rules,
    relation_moves,
    relation_rules,
    scale,
    scale_choices,
    scale_indices,
    scale_maps,
    scale_reductions,
    scale_rules,
    shift,
    shift_choices,
    shift_maps,
    shift_reductions,
    shift_rules,
)
from neuralmech.discovery.canonical import simplified
from neuralmech.discovery.complex_pairs import without_complex
from neuralmech.discovery.diagonals import diagonal_families
from neuralmech.discovery.experts import experts_apart
from neuralmech.discovery.mixing import MixingAlgebra
from neuralmech.discovery.mixing_sites import linear_family, with_others
from neuralmech.discovery.narrowing import kept_dims
from neuralmech.discovery.pieces import cut_apart, joined
from neuralmech.discovery.scale import ScaleAlgebra
from neuralmech.discovery.shift import ShiftAlgebra
from neuralmech.discovery.trace import Trace, trace
from neuralmech.discovery.translations import translation_family, translation_terms
from neuralmech.discovery.walk import walk
from neuralmech.discovery.with_loss import check_gradient, trace_with
from neuralmech.errors import UserError
from neuralmech.losses import Called, Loss, LossLike, as_loss
from neuralmech.symmetry.family import Family
from neuralmech.symmetry.group import Symmetries
from neuralmech.symmetry.matrix import MatrixFamily
from neuralmech.symmetry.names import FAMILIES

Dims = Mapping[str, tuple[int, ...]]
RULED = frozenset(name for rules in (scale.rule, shift.rule, mixing.rule) for name in rules.rules)


def find_symmetries(
    model: nn.Module,
    example_inputs: Shaped[Tensor, "batch ..."] | tuple[Shaped[Tensor, "*shape"], ...],
    loss: LossLike = "cross_entropy",
    example_targets: Shaped[Tensor, "batch ..."] | None = None,
    *,
    progress: Callable[[str], object] | None = None,
) -> Symmetries:
    """Find the symmetries that hold for `model` in training mode at any parameters, on any data.

    The model is traced, not run; its parameters and buffers are left as they are. Scale and rescale
    symmetries are the null space of the constraints that each operation puts on the log-scales of channels;
    translations are the shifts that the loss and the normalisation layers ignore (Neural Mechanics, Kunin et
    al. 2021, section 3).

    Parameters
    ----------
    model
        Any module that ``torch.export`` can trace; it returns the logits (the predictions for ``mse``), alone or as
        `neuralmech.outputs.output_of` finds them.
    example_inputs
        A small batch (two or more samples) of the shape that the model expects.
    loss
        ``cross_entropy`` ignores a shift of all logits together, whatever its options and targets; ``mse`` and ``bce``
        ignore nothing. Logits are (batch, classes), (batch, tokens, classes) or (batch, classes, height, width).
        Of a function of (outputs, targets) nothing is assumed: it is traced together with the model, where there are
        `example_targets` and it can be.
    example_targets
        Those of the inputs, to see that they go with the outputs; their values are not read.
    progress
        Called with the name of each step as it begins; by default nothing is said.

    Returns
    -------
    Symmetries
        Charges by family, parameters without a symmetry with the reason, barriers.

    Raises
    ------
    UserError
        If the loss is unknown or does not go with outputs and targets, the model or its inputs are none, it has no
        parameters, or it cannot be traced.

    Examples
    --------
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    >>> found = find_symmetries(net, torch.randn(2, 5))
    >>> found.sites
    {'translation': {'2.weight': 6, '2.bias': 1}, 'rescale': {'0 -> 2': 6}}
    >>> found.generators()["rescale"].shape
    (6, 57)
    """
    criterion = as_loss(loss)
    inputs = _checked(model, example_inputs)
    progress = progress or (lambda step: None)
    progress("tracing the model")
    return _symmetries(_simplified(_traced(model, inputs, criterion, example_targets)), criterion, progress)


def _checked(model: nn.Module, inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Inputs as a tuple of tensors, of what is a model."""
    if not isinstance(model, nn.Module):
        raise UserError(f"model: {type(model).__name__} is no torch.nn.Module; give the network itself")
    batch = inputs if isinstance(inputs, tuple) else (inputs,)
    if not all(isinstance(x, Tensor) for x in batch):
        raise UserError("example_inputs: give a tensor or a tuple of tensors, as the model's forward() takes them")
    return batch


def _symmetries(traced: Trace, criterion: Loss, progress: Callable[[str], object]) -> Symmetries:
    """Take each algebra through the graph, solve, and tell the families of the parameters as they are."""
    progress("shifts of each operation")
    apart = kept_dims(traced, means=False)
    shifts = _shifts(traced, criterion, apart)
    progress("log-scales of each operation")
    scales = _scales(traced)
    progress("solving for shifts and log-scales")
    solution = shifts.solve()
    terms = translation_terms(shifts, solution, traced.seen)
    found: list[Family] = [translation_family(terms, solution.dimension)]
    found += diagonal_families(scales, traced.seen, terms, solution.dimension)
    progress("mixing of channels")
    found.append(_linear(traced, apart))
    found = [joined(f.seen_as(traced.views), traced.pieces, traced.shapes) for f in found]
    families = {f.name: f for f in sorted(found, key=lambda f: FAMILIES.index(f.name)) if len(f)}
    return Symmetries(
        families=families,
        shapes={name: tuple(shape) for name, shape in traced.shapes.items()},
        uncovered=_uncovered(traced, families, scales),
        barriers=tuple(dict.fromkeys(scales.barriers)),
        approximations=tuple(scales.approximations),
    )


def _traced(model: nn.Module, inputs: tuple[Tensor, ...], loss: Loss, targets: Tensor | None) -> Trace:
    """The model, and with it a loss of which nothing is known, if that can be traced."""
    traced = trace(model, inputs, RULED)
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError(f"model: {type(model).__name__} has no parameter that is trained; there is nothing to find")
    outputs = traced.output.meta["val"].shape
    if loss.ignores_shift and len(outputs) < 2:
        raise UserError(f"model: {type(model).__name__} returns one number per sample; return (batch, classes)")
    if targets is None:
        return traced
    loss.fit(outputs, targets)
    if not isinstance(loss, Called):
        return traced
    check_gradient(model, inputs, loss, targets)
    try:
        return trace_with(model, inputs, loss, targets, RULED)
    except UserError:  # it branches on numbers, for instance: the outputs are then fixed
        return traced


def _simplified(traced: Trace) -> Trace:
    return experts_apart(simplified(cut_apart(without_complex(traced))))


def _scales(traced: Trace) -> ScaleAlgebra:
    algebra = ScaleAlgebra(traced.frozen, kept=kept_dims(traced, means=True))
    algebra.forbid(walk(traced, algebra), "its scale is read by the loss")
    return algebra


def _linear(traced: Trace, apart: Dims) -> MatrixFamily:
    """Sites of channels; where maps along positions let them pass, also those that end there or begin."""
    order, algebra = list(traced.seen), _mixing(traced, apart, through=True)
    found = linear_family(algebra, order)
    if not algebra.met_positions:
        return found
    return with_others(found, linear_family(_mixing(traced, apart, through=False), order))


def _mixing(traced: Trace, apart: Dims, *, through: bool) -> MixingAlgebra:
    algebra = MixingAlgebra(traced.frozen, kept=apart, through_positions=through)
    algebra.forbid(walk(traced, algebra), "its channels are read by the loss")
    return algebra


def _shifts(traced: Trace, loss: Loss, apart: Dims) -> ShiftAlgebra:
    algebra = ShiftAlgebra(traced.frozen, kept=apart)
    output = walk(traced, algebra)
    if loss.ignores_shift:
        shape = traced.output.meta["val"].shape
        classes = 2 if len(shape) == 3 else 1
        algebra.ignore(output, shape, (classes,), "the loss ignores only a common shift")
    else:
        algebra.forbid(output, "the loss ignores no shift")
    return algebra


def _uncovered(traced: Trace, families: dict[str, Family], scales: ScaleAlgebra) -> dict[str, str]:
    covered = {t.parameter for f in families.values() for t in f.terms if t.coefficients.nnz}
    reasons = {}
    for name in traced.shapes:
        if name in covered:
            continue
        if name in traced.frozen:
            reasons[name] = "frozen (requires_grad=False)"
        elif name not in traced.read:
            reasons[name] = "no gradient: the loss does not read it"
        else:
            names = [piece for piece, p in traced.pieces.items() if p.of == name] or [name]
            causes = dict.fromkeys(cause for n in names for cause in scales.why_fixed(n))
            reasons[name] = "; ".join(causes) or "its factors cancel"
    return reasons
