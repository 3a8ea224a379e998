"""Hostile input at every door of the product: made by seed, counted, and shrunk where it does harm."""
