"""What families of charges are called; options are checked against it before anything needs NumPy."""

from typing import Literal

FamilyName = Literal["translation", "scale", "rescale", "linear"]
FAMILIES: tuple[FamilyName, ...] = ("translation", "scale", "rescale", "linear")
