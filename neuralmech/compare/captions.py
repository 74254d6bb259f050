"""What each figure shows, in a sentence or two, for the report."""

from __future__ import annotations

_FAMILY = (
    "Charges Q = {form} of the family {name} at every step: measured (wide lines: a few charges; bands: all, 80 % "
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
_FIXED = {
    "parameters": (
        "Single parameters θ_j (above) and, in the same colour, a charge that each is part of (below), over the steps "
        "of the first run shown; parameters are noisy, charges smooth."
    ),
    "budget": (
        "What moved the charges over the run, summed over the charges of each site (their number in brackets), in the "
        "charge's units: causes that raise it to the right of zero, causes that lower it to the left, the diamond the "
        "measured change, which is their sum. Hatched: the same cause in earlier steps, carried on by momentum."
    ),
    "effective_learning_rate": (
        "The learning rate η/Q that the direction of some normalised weights feels, Q = |θ|²: measured "
        "(wide) and, dashed in its colour, η/√(Q²) with Q² an exponential average of the squared gradient, as in "
        "RMSProp."
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


def caption(name: str, *, has_laws: bool = True) -> str:
    """What the figure of this name shows.

    Parameters
    ----------
    name
        The name of its file, without the ending.
    has_laws
        Of a family's figure: whether any law holds for it, and so has an error.

    Examples
    --------
    >>> caption("error_optim_lr")[:63]
    'Error of each law (RMS over steps and charges of theory − measu'
    """
    if name in _FIXED:
        return _FIXED[name]
    if name.startswith("error_"):
        return (
            "Error of each law (RMS over steps and charges of theory − measured, over the RMS of measured; 1 is an "
            "error as large as the charges) against the swept key, family by family: a small mark per run, lines "
            "through the medians."
        )
    form, power = _CHARGES.get(name, "θᵀSθ"), "" if name == "translation" else ", squared"
    return _FAMILY.format(form=form, name=name, theory=_THEORY if has_laws else "; no law holds for it.", power=power)
