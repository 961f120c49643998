"""What is in an image: every file with its digests, and the texts that name packages. Nothing of the image is run.

The engine makes a container of it that is never started, exports its files as one stream, and removes it.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from findings import Unreadable

# What packages are known by. Anything else is only hashed.
TEXTS = re.compile(
    r"^(etc/os-release|usr/lib/os-release|var/lib/dpkg/status"
    r"|var/lib/dpkg/info/[^/]+\.(list|md5sums)"
    r"|usr/share/doc/[^/]+/copyright"
    r"|.*\.dist-info/(METADATA|RECORD))$"
)
EMPTY = hashlib.sha256().digest()
MOST_BYTES_OF_A_TEXT = 16 * 1024 * 1024


class NoImage(Unreadable):
    """An image cannot be looked into; says why in one line."""


@dataclass(frozen=True, slots=True)
class File:
    """What a path is. ``sha256`` and ``md5`` are those of a regular file, ``target`` is where a link leads;
    ``program``: it may be executed, or is machine code."""

    sha256: str = ""
    md5: str = ""
    target: str = ""
    program: bool = False


@dataclass(frozen=True, slots=True)
class Contents:
    """The files of an image by path, without the leading slash; folders are not listed."""

    files: dict[str, File]
    texts: dict[str, bytes]
    folders: dict[str, str]  # links that are used as folders: bin -> usr/bin

    def place(self, path: str) -> str:
        """Where a path leads: packages know /bin/sh, which is at usr/bin/sh."""
        path = posixpath.normpath(path.lstrip("/"))
        first, _, rest = path.partition("/")
        return f"{self.folders[first]}/{rest}" if rest and first in self.folders else path

    def text(self, path: str) -> str:
        """A text, or nothing where there is none; a link is followed once, and so is one that its folder is."""
        folder, name = posixpath.split(path)
        path = posixpath.join(self._behind(folder), name)
        return self.texts.get(self._behind(path), b"").decode(errors="replace")

    def _behind(self, path: str) -> str:
        target = self.files.get(path, File()).target
        return self.place(posixpath.join("/", posixpath.dirname(path), target)) if target else path


@dataclass(frozen=True, slots=True)
class Image:
    """What the engine knows of an image."""

    name: str
    id: str
    created: str
    architecture: str
    labels: dict[str, str]
    environment: dict[str, str]
    layers: tuple[str, ...]
    digest: str  # at its registry; empty unless it was pushed or pulled


def _docker(*words: str) -> str:
    try:
        done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        raise NoImage("there is no docker on this machine: install the Docker engine") from None
    except subprocess.TimeoutExpired:
        raise NoImage("the Docker engine does not answer: is it running?") from None
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        if "No such" in said:
            raise NoImage(f"no image {words[-1]}: `make images` builds ours")
        raise NoImage(f"docker {words[0]}: {said}")
    return done.stdout


def inspect(name: str) -> Image:
    """An image by its name or id."""
    (found,) = json.loads(_docker("image", "inspect", name))
    config: dict[str, Any] = found["Config"] or {}
    digests = [each.partition("@")[2] for each in found.get("RepoDigests") or []]
    return Image(
        name=name,
        id=found["Id"],
        created=found["Created"],
        architecture=found["Architecture"],
        labels=config.get("Labels") or {},
        environment=dict(each.partition("=")[::2] for each in config.get("Env") or []),
        layers=tuple(found["RootFS"]["Layers"]),
        digest=digests[0] if digests else "",
    )


def read(image: Image) -> Contents:
    """All files of an image; some seconds per 100 MB."""
    container = _docker("create", "--network", "none", image.id, "true").strip()
    try:
        with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
            assert export.stdout is not None
            contents = unpack(export.stdout)
        if export.returncode != 0:
            raise NoImage(f"docker export of {image.name} ended with {export.returncode}")
        return contents
    finally:
        _docker("rm", "--force", container)


def unpack(stream: IO[bytes]) -> Contents:
    """The files of a tar archive."""
    files: dict[str, File] = {}
    texts: dict[str, bytes] = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            path = posixpath.normpath(member.name.lstrip("/"))
            if member.isdir():
                continue
            if member.issym():
                files[path] = File(target=member.linkname)
            elif member.islnk():
                # A second name of a file; the first one came before it.
                first = posixpath.normpath(member.linkname.lstrip("/"))
                files[path] = files[first]
                if first in texts and TEXTS.match(path):
                    texts[path] = texts[first]
            elif member.isreg():
                files[path] = _digests(_pieces(archive, member, texts), bool(member.mode & 0o111))
            else:
                files[path] = File(target="a device or pipe")
    folders = {
        path: posixpath.normpath(each.target.lstrip("/"))
        for path, each in files.items()
        if each.target and "/" not in path
    }
    return Contents(files, texts, folders)


def _pieces(archive: tarfile.TarFile, member: tarfile.TarInfo, texts: dict[str, bytes]) -> Iterator[bytes]:
    """A file's content piece by piece; a text is kept on the way."""
    content = archive.extractfile(member)
    assert content is not None
    path = posixpath.normpath(member.name.lstrip("/"))
    kept: list[bytes] | None = [] if TEXTS.match(path) and member.size <= MOST_BYTES_OF_A_TEXT else None
    while piece := content.read(1 << 20):
        if kept is not None:
            kept.append(piece)
        yield piece
    if kept is not None:
        texts[path] = b"".join(kept)


def _digests(pieces: Iterator[bytes], executable: bool) -> File:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    for piece in pieces:
        executable = executable or (piece.startswith(b"\x7fELF") and sha256.digest() == EMPTY)
        sha256.update(piece)
        md5.update(piece)
    return File(sha256.hexdigest(), md5.hexdigest(), program=executable and sha256.digest() != EMPTY)
