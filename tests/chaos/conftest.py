"""Fixtures of the chaos tests: see house."""

from house import house as house
