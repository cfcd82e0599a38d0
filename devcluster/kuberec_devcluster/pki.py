"""Keys, certificates and the admin's kubeconfig of one cluster, made on first start and kept in its folder.

Every file is readable by its owner only; nothing is shared between two clusters, and clients verify the server
(no `insecure-skip-tls-verify`, which would also hide a wrong server in a test).
"""

import base64
import datetime
import ipaddress
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = datetime.timedelta(days=365)


def write_private(path: Path, content: bytes | str) -> Path:
    """Writes a file that only its owner can read, never readable in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    data = content.encode() if isinstance(content, str) else content
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    return path


@dataclass(frozen=True)
class Pki:
    """Where one cluster's keys are."""

    folder: Path

    @property
    def ca(self) -> Path:
        """Certificate that signs the API server's."""
        return self.folder / "ca.crt"

    @property
    def server_cert(self) -> Path:
        return self.folder / "apiserver.crt"

    @property
    def server_key(self) -> Path:
        return self.folder / "apiserver.key"

    @property
    def accounts_key(self) -> Path:
        """Key that signs service account tokens."""
        return self.folder / "accounts.key"

    @property
    def accounts_public(self) -> Path:
        return self.folder / "accounts.pub"

    @property
    def kubelet_client_cert(self) -> Path:
        """Certificate by which the API server may ask the kubelet for logs, exec and port-forward."""
        return self.folder / "kubelet-client.crt"

    @property
    def kubelet_client_key(self) -> Path:
        return self.folder / "kubelet-client.key"

    @property
    def tokens(self) -> Path:
        """The API server's token file: one line, the admin's."""
        return self.folder / "tokens.csv"

    @property
    def admin_token(self) -> str:
        return self.tokens.read_text().split(",")[0]

    def create(self, addresses: Sequence[str], names: Sequence[str]) -> None:
        """Makes what is missing.

        Args:
            addresses: IP addresses under which clients reach the API server.
            names: DNS names likewise.
        """
        if self.tokens.exists():  # written last: all or nothing
            return
        ca_key, ca_name = ec.generate_private_key(ec.SECP256R1()), _name("kuberec-devcluster-ca")
        ca = _certificate(ca_name, ca_name, ca_key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        write_private(self.ca, _pem(ca.sign(ca_key, hashes.SHA256())))

        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(it)) for it in addresses]
        alternatives += [x509.DNSName(it) for it in names]
        server = _certificate(_name("kube-apiserver"), ca_name, key.public_key())
        server = server.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        server = server.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        write_private(self.server_cert, _pem(server.sign(ca_key, hashes.SHA256())))
        write_private(self.server_key, _key_pem(key))

        key = ec.generate_private_key(ec.SECP256R1())
        client = _certificate(_name("kube-apiserver-kubelet-client", "system:masters"), ca_name, key.public_key())
        client = client.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        write_private(self.kubelet_client_cert, _pem(client.sign(ca_key, hashes.SHA256())))
        write_private(self.kubelet_client_key, _key_pem(key))

        accounts = ec.generate_private_key(ec.SECP256R1())
        write_private(self.accounts_key, _key_pem(accounts))
        write_private(
            self.accounts_public,
            accounts.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
        )
        write_private(self.tokens, f'{secrets.token_urlsafe(24)},admin,admin,"system:masters"\n')

    def write_kubeconfig(self, path: Path, server: str, namespace: str = "default") -> Path:
        """Writes the admin's kubeconfig, everything inlined so that it can be copied."""
        authority = base64.b64encode(self.ca.read_bytes()).decode()
        name = "kuberec-devcluster"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": authority}}],
            "users": [{"name": name, "user": {"token": self.admin_token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
            "current-context": name,
        }
        return write_private(path, yaml.safe_dump(config))


def _name(common: str, organization: str = "kuberec") -> x509.Name:
    attributes = {NameOID.ORGANIZATION_NAME: organization, NameOID.COMMON_NAME: common}
    return x509.Name([x509.NameAttribute(key, value) for key, value in attributes.items()])


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + _LIFE)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
