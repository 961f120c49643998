"""What tests of manifests need."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .manifests import CRDS, kustomize


@pytest.fixture
def programs(require: Callable[[object, str], None]) -> None:
    """kustomize, and the definitions of the kinds that it is to render."""
    require(kustomize(), "kustomize: infra/from-trixie.sh kustomize")
    require(CRDS.is_dir(), f"the definitions of Knative's kinds: AGENTFLOW_CRDS, or {CRDS}")
