"""The key pair that seals bundles. The control plane signs; gateways only read the public half."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from relevo.errors import Corrupted, Unavailable
from relevo.platform.files import write_once

PRIVATE_FILE = "signing.key"
PUBLIC_FILE = "signing.pub"


def load_signing_key(folder: Path) -> Ed25519PrivateKey:
    """The private key in ``folder``, made with mode 0600 when it is missing; safe when several start at once.

    The public half is written beside it.

    Raises:
        Corrupted: A file is no key, or the public one belongs to another private one.
    """
    path = folder / PRIVATE_FILE
    if not path.exists():
        made = Ed25519PrivateKey.generate()
        write_once(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise Corrupted(f"{path} is no key: {error}. Restore it from a backup.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise Corrupted(f"{path} holds a key of another kind than Ed25519.")
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_once(folder / PUBLIC_FILE, public)
    if (folder / PUBLIC_FILE).read_bytes() != public:
        raise Corrupted(f"{folder / PUBLIC_FILE} does not belong to {path}.")
    return key


def load_public_key(folder: Path) -> Ed25519PublicKey:
    """The public key in ``folder``.

    Raises:
        Unavailable: There is none yet.
        Corrupted: The file is no key.
    """
    path = folder / PUBLIC_FILE
    try:
        key = load_pem_public_key(path.read_bytes())
    except FileNotFoundError:
        raise Unavailable(f"There is no {path} yet; the control plane writes it when it starts.") from None
    except ValueError as error:
        raise Corrupted(f"{path} is no key: {error}.") from None
    if not isinstance(key, Ed25519PublicKey):
        raise Corrupted(f"{path} holds a key of another kind than Ed25519.")
    return key


def is_signed(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    """Whether ``signature`` was made for ``content`` by the private half of ``key``."""
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True
