"""When to record, and what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neuralmech.charges.matrix_forms import FULL
from neuralmech.words import Differing


@dataclass(frozen=True)
class Schedule:
    """Record every n-th step: all along, or within windows of steps [first, end).

    Examples
    --------
    >>> [k for k in range(7) if Schedule(3).wants(k)]
    [0, 3, 6]
    >>> some = Schedule(2, [(1, 4), (8, 10)])
    >>> [k for k in range(12) if some.wants(k)], some.count(9), [some.position(k) for k in (2, 8)]
    ([2, 8], 2, [0, 0])
    """

    every: int = 1
    windows: Sequence[Sequence[int]] | None = None

    def wants(self, step: int) -> bool:
        """Whether to record the step that starts at θ_step."""
        return step % self.every == 0 and (
            self.windows is None or any(first <= step < end for first, end in self.windows)
        )

    def count(self, steps: int) -> int:
        """Rows of a run of so many steps."""
        return sum(self._up_to(min(end, steps)) - self._up_to(min(first, steps)) for first, end in self._windows(steps))

    def position(self, step: int) -> int:
        """Rows before this one in its window."""
        first = next(first for first, end in self._windows(step + 1) if first <= step < end)
        return self._up_to(step) - self._up_to(first)

    def _windows(self, steps: int) -> Sequence[Sequence[int]]:
        return [(0, steps)] if self.windows is None else self.windows

    def _up_to(self, step: int) -> int:
        """Multiples of n below a step."""
        return -(-step // self.every)


@dataclass(frozen=True, repr=False)
class Tracking(Differing):
    """What a tracker records of a step.

    Attributes
    ----------
    families
        Names of the families to track, or None for all.
    extra
        Signals out of `FORMS` to record besides, which the laws of the run's learning rule need.
    noise
        Whether to record the gradient's mean and noise, as it was last measured, see `expected`.
    block
        Rows per block, fewer where they would take too much memory.
    full
        Sites of the ``linear`` family up to this many channels are recorded entry by entry, larger ones on
        their diagonal; the Frobenius norm of each is recorded too.
    kept
        Names of the signals to record besides the value, or None for all.
    charges, sample
        Record ``all`` charges, their sum over each ``site``, or a ``sample`` of so many of each site.
    parameters
        How many single parameters of each family to record beside its charges.
    work
        Whether to record ⟨g_k, θ_{k+1} − θ_k⟩ and ⟨g_k, θ_k − θ_{k−1}⟩, what the loss pays for motion.
    ratios
        r of each parameter, whose learning rate is rη; None if that is η of all. The charges are then those in the
        metric 1/r, see `Family.in_metric`.
    decays
        κ of each parameter, which decays at the rate κηλ; None if all do so at ηλ.
    rules
        Name of the rule that moves each parameter; None if that is one for all.
    entries
        Whether to say how many parameters each scale charge has, which gives the length of steps that have one whatever
        the gradient.
    rotations
        Whether to record the angular momenta of the ``linear`` family's sites.
    momentum
        Which of the step's vectors is what they are the momenta of: ``buffer`` of SGD, ``rule`` of other rules.
    norms_of
        Of what to record the norms, tensor by tensor: ``gradient``, ``parameter``, ``update``.
    apart
        Those of the `rules`, in their order, where they have schedules of their own; then each row is told theirs.
    oscillation
        Whether to record the forms of half of what the update changed by since the step before.
    sides
        Whether to record how large both sides of the ``rescale`` family's charges are, and their gradients.
    """

    families: Sequence[str] | None = None
    extra: Sequence[str] = ()
    noise: bool = False
    block: int = 256
    full: int = FULL
    kept: Sequence[str] | None = None
    charges: str = "all"
    sample: int = 8
    parameters: int = 0
    work: bool = False
    ratios: Mapping[str, float] | None = None
    decays: Mapping[str, float] | None = None
    rules: Mapping[str, str] | None = None
    entries: bool = False
    rotations: bool = False
    momentum: str = "buffer"
    sides: bool = False
    oscillation: bool = False
    norms_of: Sequence[str] = ()
    apart: Sequence[str] = ()
