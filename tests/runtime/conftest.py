"""Fixtures of the runtime's tests: see house."""

from house import house as house
