# SPDX-License-Identifier: MIT
"""Signing modules for kernels that load signed ones only, as the kernel's own ``scripts/sign-file`` does."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pylivepatch.elf.file import SIGNATURE
from pylivepatch.errors import BadDataError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Signer"]

PASSPHRASE = "KBUILD_SIGN_PIN"
"""The variable in which the kernel's sign-file, too, looks for the key's passphrase."""

DIGEST = "sha256"
"""What Debian's kernels are configured for. A signature names its digest: the kernel takes each that it has."""

_NOTHING = "nothing was signed"
_PKCS7 = 2
_DIGEST = re.compile(r"(sha|sha3-)(224|256|384|512)\Z")


class Signer:
    """A key and its certificate, with which modules are signed.

    Whether a kernel trusts the certificate is for that kernel to say.

    Args:
        key: The private key, as PEM.
        certificate: Its X.509 certificate, as PEM or DER: the one that the machine's owner has enrolled.
        passphrase: Of an encrypted key, or what asks for it; None for what is in the environment's KBUILD_SIGN_PIN.

    Attributes:
        encrypted: Whether the key is.

    Raises:
        BadDataError: One of the files cannot be read, they do not belong together, or the passphrase is wrong.
        UnsupportedError: openssl is not installed.

    Source: scripts/sign-file.c and kernel/module/signing.c (struct module_signature).
    """

    def __init__(
        self,
        key: str | os.PathLike[str],
        certificate: str | os.PathLike[str],
        *,
        passphrase: str | Callable[[str], str] | None = None,
    ) -> None:
        self.key: Path = Path(key)
        self.certificate: Path = Path(certificate)
        program = shutil.which("openssl")
        if program is None:
            raise UnsupportedError("openssl is not installed", feature="sign", remedy="apt-get install openssl")
        self._program = program
        self._passphrase = ""
        self.encrypted: bool = b"ENCRYPTED" in _read(self.key, "private key")
        if self.encrypted:
            self._passphrase = os.environ.get(PASSPHRASE, "")
            if not self._passphrase and passphrase is not None:
                asked = f"Passphrase of {self.key}: "
                self._passphrase = passphrase if isinstance(passphrase, str) else passphrase(asked)
            if not self._passphrase:
                raise BadDataError(
                    f"{self.key} is encrypted, and its passphrase is not known",
                    after=_NOTHING,
                    remedy=f"give it in the environment variable {PASSPHRASE}",
                )
        _read(self.certificate, "certificate")
        # What is wrong with them is said now, not after a build.
        self._pkcs7(b"", DIGEST)

    def __repr__(self) -> str:
        return f"<Signer {self.certificate}>"

    def signed(self, module: bytes, digest: str = DIGEST) -> bytes:
        """Return a module's content with a signature appended.

        Args:
            module: The module, not compressed. A signature that it has is replaced.
            digest: The name of the kernel's hash, as CONFIG_MODULE_SIG_HASH has it: "sha256".

        Raises:
            BadDataError: openssl cannot sign it so.
        """
        if not _DIGEST.match(digest):
            raise BadDataError(f"{digest!r} is not a digest that a kernel verifies", after=_NOTHING, remedy="sha256")
        module = unsigned(module)
        signature = self._pkcs7(module, digest)
        # algo, hash, id_type, signer_len, key_id_len, three bytes, and the length, big endian.
        about = struct.pack(">BBBBB3xI", 0, 0, _PKCS7, 0, 0, len(signature))
        return module + signature + about + SIGNATURE

    def _pkcs7(self, data: bytes, digest: str) -> bytes:
        """A detached signature, without certificates and attributes, as the kernel's own has neither."""
        with tempfile.TemporaryFile() as secret:
            secret.write(self._passphrase.encode() + b"\n")
            secret.seek(0)
            words = ["cms", "-sign", "-binary", "-noattr", "-nocerts", "-nosmimecap", "-outform", "DER"]
            words += ["-md", digest, "-signer", str(self.certificate), "-inkey", str(self.key)]
            words += ["-passin", f"fd:{secret.fileno()}"]
            done = subprocess.run(
                [self._program, *words], input=data, capture_output=True, check=False, pass_fds=[secret.fileno()]
            )
        if done.returncode:
            reason = _reason(done.stderr.decode(errors="replace"))
            raise BadDataError(
                f"{self.key} and {self.certificate} do not sign: {reason}",
                after=_NOTHING,
                remedy="give a private key as PEM, its own certificate as PEM or DER, and its passphrase in "
                f"{PASSPHRASE} if it is encrypted",
            )
        return done.stdout


def _reason(said: str) -> str:
    """What openssl said, without where in its source; the last of its errors is the nearest to what was asked."""
    lines = said.strip().splitlines() or ["openssl said nothing"]
    errors = [line.split(":") for line in lines if re.match(r"[0-9A-F]+:error:", line)]
    told = [line for line in lines if ":error:" not in line]
    return told[0] if told else errors[-1][5]


def unsigned(module: bytes) -> bytes:
    """Return a module's content without the signature that is appended.

    Raises:
        BadDataError: What is appended says that it is longer than the module.
    """
    if not module.endswith(SIGNATURE):
        return module
    about = module[-len(SIGNATURE) - 12 : -len(SIGNATURE)]
    end = len(module) - len(SIGNATURE) - 12 - int.from_bytes(about[8:], "big")
    if len(about) < 12 or end <= 0:
        raise BadDataError("the signature of the module is damaged", after=_NOTHING, remedy="build it again")
    return module[:end]


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadDataError(
            f"the {what} {path} cannot be read: {error.strerror}",
            after=_NOTHING,
            remedy="give a file that you may read",
        ) from None
