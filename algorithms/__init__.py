"""The algorithms and the parts they share, written on :mod:`rlflow.engine`'s public names only."""
