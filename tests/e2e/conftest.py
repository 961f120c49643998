"""Fixtures of the end-to-end tests: see conftest_e2e."""

from house import house as house
