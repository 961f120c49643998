"""Write the provenance of an image: the predicate of an SLSA v1 attestation (`cosign attest` adds the subject).

    provenance.py IMAGE --base BASE [--builder URI] [--source URI] [--invocation ID] [--out FILE]

Says from which commit, Dockerfile, lock and base the image was made, and by whom. The files' digests are those of
the commit that the image names, whatever the checkout holds now. An image that was not made upon BASE, or of a
checkout with changes that no commit has, gets none.

Exit status 0: written; 2: nothing true can be said.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from contents import Image, inspect
from findings import Unreadable, run

ROOT = Path(__file__).parents[2]
BUILD_TYPE = "https://agentflow.dev/builds/image/v1"
DOCKERFILE = "infra/docker/Dockerfile"
INPUTS = (DOCKERFILE, "infra/docker/images.sh", "infra/docker/layer.sh", "infra/docker/seal.py", "requirements.lock")


def predicate(image: Image, base: Image, builder: str, source: str, invocation: str) -> dict[str, Any]:
    """What is known of how an image was made."""
    commit = image.labels.get("org.opencontainers.image.revision", "")
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        source = commit or "nobody knows what"
        raise Unreadable(f"{image.name} was made of no commit but of {source}: commit, then build")
    if image.layers[: len(base.layers)] != base.layers:
        raise Unreadable(f"{image.name} was not made upon {base.name}: name its base with --base")
    function = image.environment.get("AGENTFLOW_FUNCTION", "")
    version = image.labels.get("org.opencontainers.image.version", "")
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "source": source,
                "dockerfile": DOCKERFILE,
                "buildArgs": {"FUNCTION": function, "VERSION": version, "REVISION": commit, "BASE": base.name},
            },
            "internalParameters": {"created": image.created, "standIn": base.labels.get("agentflow.stand-in", "")},
            "resolvedDependencies": [
                {"uri": source, "digest": {"gitCommit": commit}},
                *({"uri": f"{source}#{path}", "digest": {"sha256": _digest(commit, path)}} for path in INPUTS),
                {"uri": f"pkg:docker/{base.name.replace(':', '@')}", "digest": {"sha256": _sha256(base)}},
            ],
        },
        "runDetails": {"builder": {"id": builder}, "metadata": {"invocationId": invocation} if invocation else {}},
    }


def _sha256(image: Image) -> str:
    """At its registry, or else the image's own."""
    return (image.digest or image.id).removeprefix("sha256:")


def _digest(commit: str, path: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), "show", f"{commit}:{path}"], capture_output=True)
    if done.returncode != 0:
        raise Unreadable(f"commit {commit[:12]} has no {path}, or is not in this checkout: fetch it")
    return hashlib.sha256(done.stdout).hexdigest()


def main(arguments: list[str]) -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("image")
    made.add_argument("--base", default="python:3.12-slim")
    made.add_argument("--builder", default="https://agentflow.dev/builders/by-hand", help="who builds, as a URI")
    made.add_argument("--source", default="git:agentflow", help="the repository, as a URI")
    made.add_argument("--invocation", default="", help="the run of the builder")
    made.add_argument("--out", type=Path, help="standard output otherwise")
    given = made.parse_args(arguments)
    said = predicate(inspect(given.image), inspect(given.base), given.builder, given.source, given.invocation)
    text = json.dumps(said, indent=1, sort_keys=True) + "\n"
    if given.out:
        given.out.write_text(text)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    run("provenance", main)
