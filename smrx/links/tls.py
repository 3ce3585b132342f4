"""Make the TLS 1.3 contexts of links: a new self-signed certificate for each process, and no check of the other's.

TLS encrypts. Who the other end is, the greeting proves (greeting.py): its proofs cover the certificate, so a process
between two members needs a certificate of its own and is found. No name, date or issuer of a certificate is looked at,
there is no file of keys beside those of smrx.key_files, and no session is resumed.
"""

import datetime
import os
import ssl
import tempfile
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class ServerTls(NamedTuple):
    """The context of listening sockets, and their certificate in DER."""

    context: ssl.SSLContext
    certificate: bytes


def server() -> ServerTls:
    """Make a key and a certificate for this process, and a context that uses them."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "smrx")])
    year = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(year)
        .not_valid_after(year.replace(year=2120))
        .sign(key, None)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _load(context, pem + certificate.public_bytes(Encoding.PEM))
    return ServerTls(context, certificate.public_bytes(Encoding.DER))


def client() -> ssl.SSLContext:
    """Make a context for the side that dials."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Load a key and a certificate. The library reads only files: one in memory where the system has that."""
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        with open(os.memfd_create("smrx-tls"), "wb", buffering=0) as file:
            file.write(pem)
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
