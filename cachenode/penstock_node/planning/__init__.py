"""Capacity advice: `penstock plan`. What other capacities would have found of what was read."""
