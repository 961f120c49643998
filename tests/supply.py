"""The programs of infra/supply-chain, and what tests of them are made with: files of an image, and documents."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

CHAIN = Path(__file__).parents[1] / "infra" / "supply-chain"
sys.path.append(str(CHAIN))  # its modules import each other by name

SITE = "opt/agentflow/lib/python3.12/site-packages"
OS_RELEASE = 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n'

Files = dict[str, tuple[bytes, int]]  # path -> content, mode


def run(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """One of the programs, as a user starts it."""
    return subprocess.run(
        [sys.executable, CHAIN / name, *words], capture_output=True, text=True, timeout=120, check=False
    )


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    return done.stderr.splitlines()


def wheel(name: str, version: str, licence: str = "MIT", needs: str = "", **modules: str) -> Files:
    """A package as an installer leaves it."""
    info = f"{SITE}/{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nLicense-Expression: {licence}\n"
    metadata += f"Requires-Dist: {needs}\n" if needs else ""
    files: Files = {f"{SITE}/{module}.py": (text.encode(), 0o644) for module, text in modules.items()}
    files[f"{info}/METADATA"] = (metadata.encode(), 0o644)
    rows = [
        f"{path.removeprefix(SITE + '/')},sha256={_record(content)},{len(content)}"
        for path, (content, _) in files.items()
    ]
    rows.append(f"{name}-{version}.dist-info/RECORD,,")
    files[f"{info}/RECORD"] = ("\n".join(rows).encode(), 0o644)
    return files


def _record(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def deb(name: str, version: str, section: str = "utils", licence: str = "Expat", **programs: str) -> Files:
    """dpkg's records of the one package of an image, and its files."""
    content = {f"usr/bin/{program}": text.encode() for program, text in programs.items()}
    if licence:
        header = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
        text = f"{header}\nFiles: *\nCopyright: somebody\nLicense: {licence}\n words\n"
        content[f"usr/share/doc/{name}/copyright"] = text.encode()
    status = (
        f"Package: {name}\nStatus: install ok installed\nSection: {section}\nArchitecture: amd64\nVersion: {version}\n"
        "Description: a package\n"
    )
    files: Files = {path: (data, 0o755 if "/bin/" in path else 0o644) for path, data in content.items()}
    sums = "".join(f"{hashlib.md5(data).hexdigest()}  {path}\n" for path, data in content.items())
    files["var/lib/dpkg/status"] = (status.encode(), 0o644)
    files[f"var/lib/dpkg/info/{name}.md5sums"] = (sums.encode(), 0o644)
    files["usr/lib/os-release"] = (OS_RELEASE.encode(), 0o644)
    files[f"var/lib/dpkg/info/{name}.list"] = (
        "".join(f"/{path}\n" for path in [*content, "usr/lib/os-release", "etc/os-release"]).encode(), 0o644,
    )  # fmt: skip
    return files


def archive(files: Files, links: dict[str, str] | None = None) -> bytes:
    """Files as one tar archive, as the engine exports them."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for path, (content, mode) in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
        for path, target in (links or {}).items():
            member = tarfile.TarInfo(path)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return stream.getvalue()


def document(path: Path, *purls: str, stand_in: str = "", licence: str = "MIT", section: str = "utils") -> Path:
    """An SBOM that names packages and nothing else."""

    def component(purl: str) -> dict[str, Any]:
        name, _, version = purl.partition("?")[0].rpartition("/")[2].partition("@")
        properties = [{"name": "agentflow:section", "value": section}] if "pkg:deb" in purl else []
        return {
            "type": "library", "bom-ref": purl, "name": name, "version": version,
            "licenses": [{"license": {"name": licence}}] if licence else [], "properties": properties,
            **({"purl": purl} if purl.startswith("pkg:") else {}),
        }  # fmt: skip

    codename = [{"name": "agentflow:codename", "value": "bookworm"}]
    system = {
        "type": "operating-system", "bom-ref": "os", "name": "debian", "version": "12", "properties": codename,
    }  # fmt: skip
    root: dict[str, Any] = {"type": "container", "name": "agentflow/plan", "version": "0.1.0", "bom-ref": "root"}
    if stand_in:
        root["properties"] = [{"name": "agentflow:stand-in", "value": stand_in}]
    written = {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": {"component": root},
        "components": [system, *map(component, purls)],
    }  # fmt: skip
    path.write_text(json.dumps(written))
    return path


def excuses(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"exceptions": list(entries)}))  # JSON is YAML
    return path
