"""Keys of one run: who holds one takes part, nobody else gets in."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

# A job lives for days; keys are made anew with every start of a coordinator.
_VALID = datetime.timedelta(days=366)
_NAMES = ("ca.pem", "certificate.pem", "key.pem")


def issue(folder: Path) -> None:
    """Make a certificate authority and one key signed by it, in a folder that only this user may enter.

    The authority's own key is never written: it signs once and is forgotten, so no further key can be made.

    Raises:
        OSError: the folder cannot be written.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    began = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)  # clocks of nodes differ

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def usage(*, authority: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip

    def certificate(
        subject: str, key: ec.EllipticCurvePublicKey, *, authority: bool
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("ntk run authority"))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(began)
            .not_valid_after(began + _VALID)
            .add_extension(
                x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True
            )
            .add_extension(usage(authority=authority), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )

    signer, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = certificate("ntk run authority", signer.public_key(), authority=True).sign(signer, hashes.SHA256())
    leaf = (
        certificate("ntk run", own.public_key(), authority=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .sign(signer, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    for file, content in zip(_NAMES, (root.public_bytes(pem), leaf.public_bytes(pem), secret), strict=True):
        write_private(folder / file, content)


def write_private(path: Path, content: bytes) -> None:
    """A file that only this user may read, from its first moment on; replaced in one step."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def dask_settings(folder: Path) -> dict[str, object]:
    """Dask's configuration with which everything uses these keys, and plain TCP is refused."""
    authority, certificate, key = (str(folder / name) for name in _NAMES)
    return settings_of(authority, certificate, key)


def settings_of(authority: str, certificate: str, key: str) -> dict[str, object]:
    """Dask's configuration for TLS with these files in every role; plain TCP is refused."""
    settings: dict[str, object] = {
        "distributed.comm.require-encryption": True,
        "distributed.comm.default-scheme": "tls",
        "distributed.comm.tls.ca-file": authority,
        "distributed.comm.tls.min-version": 1.3,
    }
    for role in ("scheduler", "worker", "client"):
        settings[f"distributed.comm.tls.{role}.cert"] = certificate
        settings[f"distributed.comm.tls.{role}.key"] = key
    return settings
