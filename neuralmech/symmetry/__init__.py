"""Which transformations of the parameters leave the loss unchanged, and the charges they imply."""
