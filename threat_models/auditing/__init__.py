"""Empirical epsilon: lower bounds from canaries, each with the assumption that it stands on."""
