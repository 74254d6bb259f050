"""What each figure shows, in words."""

from __future__ import annotations

from neuralmech.compare.measure.views import METRIC

_FAMILY = (
    "Charges Q = {form} (family {name}) at every step: measured (wide lines: a few charges; bands: all, 80 % "
    "and 50 % of them){theory} Charges have the units of the parameters{power}."
)
_THEORY = (
    " and in theory (dashed). Below, each law's relative error: RMS over the charges of theory − measured, over the "
    "RMS of measured; 1 is an error as large as the charges."
)
_CHARGES = {
    "translation": "⟨a, θ⟩",
    "scale": "|θ_A|²",
    "rescale": "|θ_in|² − |θ_out|²",
    "linear": "Q_ij, the entries of a balance matrix W_in W_inᵀ − W_outᵀ W_out",
}
_IN_METRIC = {
    f"{name}{METRIC}": f"{form}, in Adam's metric w = √v̂ + ε"
    for name, form in {**_CHARGES, "translation": "⟨a, wθ⟩", "scale": "θ_Aᵀwθ_A"}.items()
}
_FIXED = {
    "training": (
        "How training went, step by step: the loss of each batch, loss and accuracy on held-out data, the norm of the "
        "gradient as the rule sees it (after clipping) where it was measured, the learning rate. Lines are means over "
        "parts of the run, bands their least and largest."
    ),
    "norms": (
        "The norm |g| of each layer's gradient as the rule sees it (√Σ over its tensors), and the relative step "
        "|Δθ|/|θ|: at 10⁻³ a step moves the layer by a thousandth of its length. Layers with weights come first, those "
        "with gains and shifts only (norm layers) after them, dashed or below the white line, each in the order of the "
        "network; means over a hundredth of the run."
    ),
    "parameters": (
        "Single parameters θ_j (above) and, in the same colour, a charge that each is part of (below), over the steps "
        "of the first run shown."
    ),
    "budget": (
        "What moved the charges over the run, summed over the charges of each site (their number in brackets), in the "
        "charge's units: causes that raise it to the right of zero, causes that lower it to the left, the diamond the "
        "measured change, which is their sum. Hatched: the same cause in earlier steps, carried on by a memory."
    ),
    "effective_learning_rate": (
        "The learning rate η/Q that the direction of some normalised weights feels, Q = |θ|²: measured "
        "(wide) and, dashed in its colour, η/√(Q²) with Q² an exponential average of the squared gradient, as in "
        "RMSProp. A curve that leaves the view is of weights that get no gradient any more: they decay to nothing."
    ),
    "phase_portraits": (
        "Some charges and their velocities, the differences between rows over η: measured (dots, from the ring on) and "
        "by the modified flow, a damped oscillator (dashed). Translation charges are forecast from their start alone; "
        "others, shown where they oscillate, are moved by the recorded drive."
    ),
    "noise_equilibrium": (
        "How far the pairs of each rescale site are from noise equilibrium along the orbit of their symmetry, over the "
        "steps: RMS of α* over the site's charges, gradients averaged over a fiftieth of the run."
    ),
    "loss_balance": (
        "Above, the change of the loss since the first step, in the loss's units, measured and as the summed work of "
        "the gradient, to first order in η and to second; below, how far each sum is off."
    ),
    "batches": (
        "How well gradients measured at one batch size S predict the charges at another: RMS over the charges of "
        "predicted − measured, over the RMS of measured, step by step; 1 is an error as large as the charges."
    ),
}
MAP = "map_"  # and the family: what the files of maps are called
_MAP = (
    "Of each pair of swept numbers the error of the best law that takes no measured drive, a forecast from the start "
    "alone (RMS over steps, charges and sites of theory − measured, over the RMS of measured; mean over seeds), and "
    "which law that is; where other keys were swept a map for each of their settings (six at most), elsewhere a second "
    "map of the verdict's law, whatever that is given. Hatched cells have no number and say why; n of m: so "
    "many of the cell's runs have one."
)
_BUDGETS = (
    "What moved the charges of each family, a bar for each setting: of all that pushed the charges, up (right) or down "
    "(left), the share of each cause, summed over sites and seeds; a bar is one whole, so that settings compare. The "
    "diamond is the net change, on the same scale."
)


def caption(name: str, *, has_laws: bool = True, is_sweep: bool = False) -> str:
    """What the figure of this name shows.

    Parameters
    ----------
    name
        The name of its file, without the ending.
    has_laws
        Of a family's figure: whether any law holds for it, and so has an error.
    is_sweep
        Whether there are several runs.

    Examples
    --------
    >>> caption("error_optim_lr")[:63]
    'Error of each law (RMS over steps and charges of theory − measu'
    """
    if name == "budget" and is_sweep:
        return _BUDGETS
    if name in _FIXED:
        return _FIXED[name]
    if name.startswith(MAP):
        return _MAP
    if name.startswith("error_"):
        return (
            "Error of each law (RMS over steps and charges of theory − measured, over the RMS of measured; 1 is an "
            "error as large as the charges) against the swept key, family by family, a row for each setting of the "
            "other swept keys (six at most): lines are means over seeds, bars their standard deviation."
        )
    plain = name.removesuffix(METRIC)
    form, power = _IN_METRIC.get(name) or _CHARGES.get(plain, "θᵀSθ"), "" if plain == "translation" else ", squared"
    return _FAMILY.format(form=form, name=name, theory=_THEORY if has_laws else "; no law holds for it.", power=power)
