"""Fixtures of the end-to-end tests: see conftest_e2e."""

from conftest_e2e import house as house
