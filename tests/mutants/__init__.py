"""Mutants of the product: small wrong changes, to see which of them the tests find."""
