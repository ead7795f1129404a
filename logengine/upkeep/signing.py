"""Keys that sign seals: Ed25519 (RFC 8032), in PEM files as openssl writes them."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from logengine.disk.directory import sync_directory
from logengine.disk.writes import write_all
from logengine.errors import InvalidKey


def generate_key(path: Path) -> str:
    """Writes a new private key to a new file that only its owner can read; returns the public key.

    Both are PEM. The file is durable on return. Raises `InvalidKey` if the file exists.
    """
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise InvalidKey(f"{path} already exists; a key is never overwritten") from None
    try:
        write_all(descriptor, [pem])
        os.fsync(descriptor)
        sync_directory(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(descriptor)
    return (
        private.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def load_signer(path: Path) -> Callable[[bytes], str]:
    """Returns a function that signs bytes with the private key in `path`, in hexadecimal.

    Raises `InvalidKey`.
    """
    key = _load(path, lambda pem: serialization.load_pem_private_key(pem, None))
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidKey(f"{path}: expected an Ed25519 private key, as `logengine keygen` makes it")
    return lambda signed: key.sign(signed).hex()


def load_verifier(path: Path) -> Callable[[bytes, str], bool]:
    """Returns a function that checks signatures with the public key in `path`.

    Raises `InvalidKey`.
    """
    key = _load(path, serialization.load_pem_public_key)
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidKey(f"{path}: expected an Ed25519 public key, as `logengine keygen` prints it")

    def is_signed(signed: bytes, signature: str) -> bool:
        try:
            raw = bytes.fromhex(signature)
            key.verify(raw, signed)
        except (InvalidSignature, ValueError):
            return False
        # `fromhex` accepts capitals and spaces: otherwise a signature could be written in many
        # ways, each of which changes the hash of the header.
        return raw.hex() == signature

    return is_signed


def _load(path: Path, load: Callable[[bytes], object]) -> object:
    """Returns the key in `path`, of any kind; None if the file contains no key."""
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise InvalidKey(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
