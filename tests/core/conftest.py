"""Hypothesis for the core: no deadlines, because the machines that run these share their cores."""

from hypothesis import HealthCheck, settings

settings.register_profile("core", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("core")
