"""Theories of how charges move, each one a small linear state-space system (Φ, Γ)."""

from neuralmech.laws.catalogue import LAWS, law

__all__ = ["LAWS", "law"]
