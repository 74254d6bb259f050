"""What the symmetries of time and data say: balances of the loss and of the first layer's momentum.

They hold for whole-batch losses at given parameters, so they are computed from a model and a batch, not from a record.
"""

from neuralmech.balance.data import angular_momentum, finite_change, orbit, rotations
from neuralmech.balance.time import GradientNorm, LossBalance, gradient_norm, loss_balance, tangent_kernel

__all__ = [
    "GradientNorm",
    "LossBalance",
    "angular_momentum",
    "finite_change",
    "gradient_norm",
    "loss_balance",
    "orbit",
    "rotations",
    "tangent_kernel",
]
