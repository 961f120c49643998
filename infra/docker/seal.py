"""Take out of images what says when and where they were built: the same source gives the same digest then.

    docker save IMAGE... | seal.py EPOCH STEPS | docker load

EPOCH is the date they get, STEPS how many steps of their history are the base image's, and stay as they are.

The layers come out of the Dockerfile the same each time (layer.sh); what differs is in the configuration: dates, and
the names of intermediate containers, which the classic builder writes there. BuildKit does this by itself
(SOURCE_DATE_EPOCH, rewrite-timestamp).
"""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
import tempfile
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import IO, Any

# Of the build's containers, not of the image.
BUILD_ONLY = ("container", "container_config", "docker_version")
HOST_ONLY = ("Hostname", "Domainname", "Image", "AttachStdin", "AttachStdout", "AttachStderr")


def sealed(config: dict[str, Any], epoch: int, base_steps: int) -> dict[str, Any]:
    """An image's configuration without what differs from build to build."""
    date = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kept = {name: value for name, value in config.items() if name not in BUILD_ONLY}
    kept["created"] = date
    kept["config"] = {name: value for name, value in config["config"].items() if name not in HOST_ONLY}
    # A step that was found in the cache has the date of the build that it was made in.
    ours = [{**step, "created": date} for step in config["history"][base_steps:]]
    kept["history"] = config["history"][:base_steps] + ours
    return kept


def seal(incoming: IO[bytes], outgoing: IO[bytes], epoch: int, base_steps: int) -> None:
    """Rewrite an archive of ``docker save``."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=incoming, mode="r|") as archive:
            if hasattr(tarfile, "data_filter"):  # Python 3.11.4; the archive is our own engine's
                archive.extraction_filter = tarfile.data_filter
            archive.extractall(folder)
        root = Path(folder)
        with tarfile.open(fileobj=outgoing, mode="w|", format=tarfile.USTAR_FORMAT) as archive:
            manifest = []
            written: set[str] = set()
            for image in json.loads((root / "manifest.json").read_bytes()):
                made = json.loads((root / image["Config"]).read_bytes())
                config = json.dumps(sealed(made, epoch, base_steps), sort_keys=True)
                name = f"{hashlib.sha256(config.encode()).hexdigest()}.json"
                layers = []
                for layer in image["Layers"]:
                    path = (root / layer).resolve()
                    layers.append(f"{path.parent.name}/{path.name}")
                    if layers[-1] not in written:
                        written.add(layers[-1])
                        archive.add(path, layers[-1])
                _add(archive, name, config.encode())
                manifest.append({"Config": name, "RepoTags": image["RepoTags"], "Layers": layers})
            _add(archive, "manifest.json", json.dumps(manifest).encode())


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, BytesIO(content))


if __name__ == "__main__":
    seal(sys.stdin.buffer, sys.stdout.buffer, int(sys.argv[1]), int(sys.argv[2]))
