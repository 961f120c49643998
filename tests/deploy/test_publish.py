"""infra/supply-chain: publish.sh and verify.sh with cosign, at Debian's own registry on this machine.

The image is a small one, pushed in no time; how it is signed does not depend on what is in it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from supply import Files, archive, deb

pytestmark = [pytest.mark.docker, pytest.mark.history, pytest.mark.xdist_group("publish")]
ROOT = Path(__file__).parents[2]
CHAIN = ROOT / "infra" / "supply-chain"
NAME = f"supply-test-{os.getpid()}"
HEAD = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()


@dataclass(frozen=True, slots=True)
class Place:
    """A registry, two keys, and an image that can be published."""

    folder: Path
    registry: str
    environment: dict[str, str]

    def run(self, *words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment | more
        return subprocess.run(
            list(map(str, words)), capture_output=True, text=True, timeout=120, cwd=self.folder, env=environment
        )

    def publish(self, tag: str = NAME, **more: str) -> subprocess.CompletedProcess[str]:
        return self.run(CHAIN / "publish.sh", "plan", **{"TAG": tag, "SBOMS": tag} | more)

    def verify(self, image: str, key: str = "cosign.pub", **more: str) -> subprocess.CompletedProcess[str]:
        return self.run(CHAIN / "verify.sh", image, key, **more)

    def make(self, tag: str, revision: str = HEAD, **files: str) -> str:
        """An image as images.sh makes them, but small: the base's one layer, or another one. Its id."""
        labels = {"revision": revision, "version": "0.1.0", "title": "agentflow/plan"}
        changes = [f"LABEL org.opencontainers.image.{name}={value}" for name, value in labels.items()]
        return imported(f"agentflow/plan:{tag}", "ENV AGENTFLOW_FUNCTION=plan", *changes, **files)

    def push(self, image: str, there: str) -> str:
        """Push past publish.sh: the image by its digest."""
        subprocess.run(["docker", "tag", image, there], check=True)
        pushed = self.run("docker", "push", there)
        subprocess.run(["docker", "image", "rm", there], capture_output=True)
        digest = re.search(r"sha256:[0-9a-f]{64}", pushed.stdout)
        assert digest is not None, pushed.stderr
        return f"{there.rpartition(':')[0]}@{digest[0]}"


def imported(name: str, *changes: str, **files: str) -> str:
    """An image of one layer: a package of Debian, and ``files``."""
    more: Files = {path: (text.encode(), 0o644) for path, text in files.items()}
    layer = archive(deb("hello", "2.10-3", hello="x") | more, {"etc/os-release": "../usr/lib/os-release"})
    command = ["docker", "import", *(word for each in changes for word in ("--change", each)), "-", name]
    return subprocess.run(command, input=layer, check=True, capture_output=True).stdout.decode().strip()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, require: Callable[[object, str], None]) -> Iterator[Place]:
    require(shutil.which("docker-registry"), "docker-registry: apt-get install docker-registry")
    require(shutil.which("cosign"), "cosign: infra/from-trixie.sh cosign")
    require(shutil.which("jq"), "jq: apt-get install jq")
    folder = tmp_path_factory.mktemp("registry")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    (folder / "config.yml").write_text(
        json.dumps({"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
                    "http": {"addr": address}, "log": {"level": "error"}})
    )  # fmt: skip
    environment = os.environ | {
        "REGISTRY": address, "KEY": "cosign.key", "PUBLIC_KEY": "cosign.pub",
        "COSIGN_PASSWORD": "a word", "BASE": f"{NAME}-base", "PYTHON": sys.executable, "HOME": str(folder),
    }  # fmt: skip
    made = Place(folder, address, environment)
    imported(f"{NAME}-base")
    server = subprocess.Popen(["docker-registry", "serve", folder / "config.yml"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        for prefix in ("cosign", "other"):
            assert made.run("cosign", "generate-key-pair", "--output-key-prefix", prefix).returncode == 0
        answers(server, f"http://{address}/v2/")
        made.make(NAME)
        done = made.run(sys.executable, CHAIN / "sbom.py", f"agentflow/plan:{NAME}", "--out", folder / NAME)
        assert done.returncode == 0, done.stderr
        yield made
    finally:
        server.terminate()
        server.wait(10)
        for pattern in (f"agentflow/plan:{NAME}*", f"{NAME}-*"):
            command = ["docker", "images", "--quiet", "--filter", f"reference={pattern}"]
            listed = set(subprocess.run(command, capture_output=True, text=True).stdout.split())
            subprocess.run(["docker", "image", "rm", "--force", *listed], capture_output=True)


def answers(server: subprocess.Popen[bytes], url: str) -> None:
    """A server that does not say when it is ready has to be asked."""
    until = time.monotonic() + 30
    while time.monotonic() < until and server.poll() is None:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail(f"docker-registry did not come up at {url}")


@pytest.fixture(scope="module")
def published(place: Place) -> str:
    """The image at the registry, by its digest."""
    done = place.publish()
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"{place.registry}/agentflow/plan@sha256:[0-9a-f]{{64}}\n", done.stdout)
    return done.stdout.strip()


def test_what_was_published_verifies_with_its_sbom_and_provenance(place: Place, published: str) -> None:
    done = place.verify(published, SBOM_TO="sbom.json", PROVENANCE_TO="provenance.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((place.folder / "sbom.json").read_text()) == json.loads(
        (place.folder / NAME / "plan.cdx.json").read_text()
    )
    said = json.loads((place.folder / "provenance.json").read_text())
    definition = said["buildDefinition"]
    assert definition["externalParameters"]["buildArgs"]["FUNCTION"] == "plan"
    digests = {each["uri"]: each["digest"] for each in definition["resolvedDependencies"]}
    assert digests["git:agentflow"] == {"gitCommit": HEAD}
    lock = subprocess.run(["git", "show", f"{HEAD}:requirements.lock"], cwd=ROOT, capture_output=True).stdout
    summed = subprocess.run(["sha256sum"], input=lock, capture_output=True).stdout.decode().split()[0]
    assert digests["git:agentflow#requirements.lock"] == {"sha256": summed}
    assert any(uri.startswith("pkg:docker/") for uri in digests)
    assert said["runDetails"]["builder"]["id"]


def test_another_key_verifies_nothing(place: Place, published: str) -> None:
    done = place.verify(published, "other.pub")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "its signature does not verify by other.pub" in line


def test_a_changed_image_does_not_verify_not_even_with_the_signature_of_the_genuine_one(
    place: Place, published: str
) -> None:
    place.make(f"{NAME}-bad", issue="changed")
    bad = place.push(f"agentflow/plan:{NAME}-bad", f"{place.registry}/agentflow/plan:{NAME}")  # the genuine one's tag
    assert bad != published
    done = place.verify(bad)
    assert done.returncode == 1 and "its signature does not verify" in done.stderr
    # Who may write to the registry may also copy what lies there.
    genuine = published.partition("@")[2].replace(":", "-")
    for kind in ("sig", "att"):
        url = f"http://{place.registry}/v2/agentflow/plan/manifests/"
        found = httpx.get(f"{url}{genuine}.{kind}", headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
        put = httpx.put(
            f"{url}{bad.partition('@')[2].replace(':', '-')}.{kind}", content=found.content,
            headers={"Content-Type": found.headers["Content-Type"]},
        )  # fmt: skip
        assert put.status_code == 201
    done = place.verify(bad)
    assert done.returncode == 1 and "its signature does not verify" in done.stderr
    assert place.verify(published).returncode == 0


def test_a_signature_alone_is_not_enough(place: Place) -> None:
    image = place.push(f"agentflow/plan:{NAME}", f"{place.registry}/agentflow/bare:x")
    signed = place.run("cosign", "sign", "--yes", "--key", "cosign.key", "--tlog-upload=false", image)
    assert signed.returncode == 0, signed.stderr
    done = place.verify(image)
    assert done.returncode == 1 and "its SBOM does not verify" in done.stderr


def test_an_image_whose_origin_cannot_be_told_is_not_published(place: Place) -> None:
    made = place.make(f"{NAME}-changed", f"{HEAD}-changed")
    (place.folder / f"{NAME}-changed").mkdir()
    (place.folder / f"{NAME}-changed" / "plan.cdx.json").write_text(f'"bom-ref": "{made}"')
    done = place.publish(f"{NAME}-changed")
    assert done.returncode == 2 and "was made of no commit but of" in done.stderr
    imported(f"{NAME}-other", issue="another base")
    done = place.publish(BASE=f"{NAME}-other")
    assert done.returncode == 2 and f"was not made upon {NAME}-other" in done.stderr


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"KEY": "none.key"}, "publish.sh: cannot read the key none.key"),
        ({"PUBLIC_KEY": ""}, "publish.sh: set KEY and PUBLIC_KEY"),
        ({"REGISTRY": ""}, "publish.sh: where to?"),
        ({"SBOMS": "/nowhere"}, "publish.sh: no SBOM of agentflow/plan at /nowhere/plan.cdx.json: make sbom"),
        ({"tag": "none"}, "publish.sh: no image agentflow/plan:none: make images TAG=none"),
        ({"SBOMS": "elsewhere"}, "elsewhere/plan.cdx.json is of another image than"),
        ({"COSIGN_PASSWORD": "wrong"}, "publish.sh: cosign sign of agentflow/plan failed"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_one_line(place: Place, published: str, changed: dict[str, str], said: str) -> None:
    (place.folder / "elsewhere").mkdir(exist_ok=True)
    (place.folder / "elsewhere" / "plan.cdx.json").write_text("{}")
    done = place.publish(**changed)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]


def test_only_a_digest_can_be_verified(place: Place, published: str) -> None:
    done = place.verify(published.partition("@")[0] + ":latest")
    assert done.returncode == 2 and "name it by its digest" in done.stderr
    done = place.verify(published, "none.pub")
    assert done.returncode == 2 and "cannot read the public key none.pub" in done.stderr
