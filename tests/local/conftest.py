"""Fixtures of the samples' tests: see house."""

from house import house as house
