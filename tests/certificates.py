"""An authority of a test's own, and certificates that it has signed: good ones, and ones whose time is over."""

from __future__ import annotations

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = timedelta(days=1)


class Authority:
    """Signs; whoever has its ``certificate`` (PEM) trusts what it has signed."""

    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        made = _builder(self._name, self._name, self._key.public_key(), now - 9 * DAY, now + 9 * DAY)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        own = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        made = made.add_extension(usage, critical=True).add_extension(own, critical=False)
        self.certificate = _pem(made.sign(self._key, hashes.SHA256()))

    def write(self, folder: Path, *names: str, expired: bool = False, owner: int | None = None) -> None:
        """A server's ca.crt, tls.crt and tls.key, for these names or addresses; ``owner`` alone may read the key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
        now = datetime.now(UTC)
        until = now - DAY if expired else now + DAY
        made = _builder(subject, self._name, key.public_key(), now - 3 * DAY, until)
        made = made.add_extension(x509.SubjectAlternativeName([_name(each) for each in names]), critical=False)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        made = made.add_extension(signer, critical=False)
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        folder.mkdir(parents=True, exist_ok=True)
        _put(folder / "ca.crt", self.certificate, 0o444, owner)
        _put(folder / "tls.crt", _pem(made.sign(self._key, hashes.SHA256())), 0o444, owner)
        _put(folder / "tls.key", secret, 0o600, owner)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, since: datetime, until: datetime
) -> x509.CertificateBuilder:
    named = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    numbered = named.serial_number(x509.random_serial_number())
    return numbered.not_valid_before(since).not_valid_after(until)


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _put(path: Path, content: bytes, mode: int, owner: int | None) -> None:
    """In one step, as a Secret that is mounted changes."""
    fresh = path.with_name(f".{path.name}")
    fresh.write_bytes(content)
    fresh.chmod(mode)
    if owner is not None:
        os.chown(fresh, owner, owner)
    fresh.replace(path)
