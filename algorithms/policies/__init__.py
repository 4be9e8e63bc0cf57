"""Policies: networks in NumPy over one flat parameter vector, and the distributions on top of them."""
