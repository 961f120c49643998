"""What is taken out of an image's configuration, so that the same source gives the same digest."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tarfile
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any


def _module() -> ModuleType:
    path = Path(__file__).parents[2] / "infra/docker/seal.py"
    spec = importlib.util.spec_from_file_location("image_seal", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


seal = _module().seal
EPOCH = 1_700_000_000


def saved(*, built: str, cached: str, container: str, layer: bytes = b"files") -> bytes:
    """An archive as `docker save` makes it, of an image that was built at some time, upon a base of one step."""
    config: dict[str, Any] = {
        "architecture": "amd64", "os": "linux", "created": built, "container": container, "docker_version": "20.10",
        "container_config": {"Hostname": container}, "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]},
        "config": {"Hostname": container, "User": "65532", "Image": f"sha256:{container}", "Env": ["A=b"]},
        "history": [
            {"created": "2020-01-01T00:00:00Z", "created_by": "base"},
            {"created": cached, "created_by": "COPY"},
            {"created": built, "created_by": "USER", "empty_layer": True},
        ],
    }  # fmt: skip
    manifest = [{"Config": "config.json", "RepoTags": ["agentflow/plan:dev"], "Layers": ["one/layer.tar"]}]
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in (
            ("one/layer.tar", layer), ("config.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
    return out.getvalue()


def sealed(archive: bytes) -> tuple[str, dict[str, Any]]:
    """The name of the configuration, which is the image's digest, and the configuration."""
    out = BytesIO()
    seal(BytesIO(archive), out, EPOCH, 1)
    with tarfile.open(fileobj=BytesIO(out.getvalue())) as found:
        (image,) = json.load(found.extractfile("manifest.json") or BytesIO())
        content = (found.extractfile(image["Config"]) or BytesIO()).read()
        assert image["RepoTags"] == ["agentflow/plan:dev"]
        assert [(found.extractfile(layer) or BytesIO()).read() for layer in image["Layers"]] == [b"files"]
    assert image["Config"] == f"{hashlib.sha256(content).hexdigest()}.json"
    return image["Config"], json.loads(content)


def test_builds_at_other_times_and_from_the_cache_come_to_the_same() -> None:
    first = saved(built="2023-12-01T10:00:00Z", cached="2023-12-01T10:00:00Z", container="a1")
    second = saved(built="2024-05-05T10:00:00Z", cached="2021-02-02T09:00:00Z", container="b2")
    assert sealed(first) == sealed(second)


def test_what_the_image_is_stays() -> None:
    _, config = sealed(saved(built="2024-05-05T10:00:00Z", cached="2024-05-05T10:00:00Z", container="b2"))
    assert config["config"] == {"User": "65532", "Env": ["A=b"]}
    assert config["rootfs"]["diff_ids"] == ["sha256:1"]
    assert [step["created_by"] for step in config["history"]] == ["base", "COPY", "USER"]
    dates = [step["created"] for step in config["history"]]
    assert dates == ["2020-01-01T00:00:00Z", "2023-11-14T22:13:20Z", "2023-11-14T22:13:20Z"]
    assert config["created"] == dates[-1]
