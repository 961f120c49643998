"""What tests of manifests need."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .manifests import CRDS, KNATIVE, Manifest, built, kustomize, manifests, rendered


@pytest.fixture
def programs(require: Callable[[object, str], None]) -> None:
    """kustomize, and the definitions of the kinds that it is to render."""
    require(kustomize(), "kustomize: infra/from-trixie.sh kustomize")
    require(CRDS.is_dir(), f"the definitions of Knative's kinds: AGENTFLOW_CRDS, or {CRDS}")


@pytest.fixture
def flavours(programs: None) -> dict[str, list[Manifest]]:
    """Every overlay, and the production overlay with the components it does not take."""
    overlays = KNATIVE / "overlays"
    text = (overlays / "production" / "kustomization.yaml").read_text()
    changed = text.replace("gvisor-operator   # or ../../components/gvisor-podspec", "gvisor-podspec")
    changed = changed.replace("# - ../../components/", "- ../../components/")
    assert all(changed.count(f"  - ../../components/{each.name}") == (each.name != "gvisor-operator")
               for each in (KNATIVE / "components").iterdir())  # fmt: skip
    found = {name: rendered(overlays / name) for name in ("dev", "production")} | {"other": built(changed)}
    return {name: manifests(text) for name, text in found.items()}
