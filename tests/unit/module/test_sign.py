# SPDX-License-Identifier: MIT
"""Signatures, verified by openssl; that they are the kernel's own, byte for byte, is tested with its sign-file."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from pylivepatch import BadDataError, ModuleFile
from pylivepatch.cli._main import group
from pylivepatch.elf.file import SIGNATURE
from pylivepatch.module.sign import PASSPHRASE, Signer, unsigned

SECRET = "correct horse"


def openssl(*words: str | Path, **options: object) -> bytes:
    """Run openssl."""
    done = subprocess.run(["openssl", *words], check=True, capture_output=True, **options)  # type: ignore[call-overload]
    return bytes(done.stdout)


def pair(folder: Path, name: str = "own", form: str = "PEM", *more: str) -> tuple[Path, Path]:
    """Make a key and its certificate."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.{form.lower()}"
    words = ["req", "-new", "-x509", "-newkey", "rsa:2048", "-subj", f"/CN={name}/", "-days", "3650"]
    openssl(*words, *(more or ("-nodes",)), "-keyout", key, "-outform", form, "-out", certificate)
    return key, certificate


def verify(module: bytes, certificate: Path, folder: Path) -> None:
    """Insist on a good signature over all that precedes it."""
    content = unsigned(module)
    signature = module[len(content) : -len(SIGNATURE) - 12]
    (folder / "p7").write_bytes(signature)
    (folder / "content").write_bytes(content)
    words = ["cms", "-verify", "-binary", "-inform", "DER", "-in", folder / "p7", "-content", folder / "content"]
    openssl(*words, "-certfile", certificate, "-nointern", "-noverify", "-out", "/dev/null")


def test_a_signed_module(tmp_path: Path, build_module: Callable[..., Path]) -> None:
    """It is read as signed, holds what it held, and the signature is verified; a changed byte is noticed."""
    key, certificate = pair(tmp_path)
    plain = build_module().read_bytes()
    signer = Signer(key, certificate)
    signed = signer.signed(plain)
    (tmp_path / "plp_tiny.ko").write_bytes(signed)
    assert ModuleFile.open(tmp_path / "plp_tiny.ko").signed
    assert unsigned(signed) == plain
    verify(signed, certificate, tmp_path)
    with pytest.raises(subprocess.CalledProcessError):
        verify(signed[:100] + bytes([signed[100] ^ 1]) + signed[101:], certificate, tmp_path)
    assert signer.signed(signed) == signed, "a signature replaces a signature"
    assert signer.signed(plain, "sha512") != signed
    with pytest.raises(BadDataError, match="not a digest"):
        signer.signed(plain, "md5")


def test_an_encrypted_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its passphrase is in the environment, as for the kernel's sign-file, or asked for."""
    key, certificate = pair(tmp_path, "own", "DER", "-passout", f"pass:{SECRET}")
    monkeypatch.delenv(PASSPHRASE, raising=False)
    with pytest.raises(BadDataError, match=f"is encrypted.*{PASSPHRASE}"):
        Signer(key, certificate)
    asked: list[str] = []
    Signer(key, certificate, passphrase=lambda words: asked.append(words) or SECRET)
    assert asked == [f"Passphrase of {key}: "]
    with pytest.raises(BadDataError, match="do not sign"):
        Signer(key, certificate, passphrase="wrong")
    monkeypatch.setenv(PASSPHRASE, SECRET)
    content = b"a module"
    verify(Signer(key, certificate).signed(content), certificate, tmp_path)


def test_what_does_not_sign(tmp_path: Path) -> None:
    """A key of another certificate, what is neither, and what is not there, are named before anything is built."""
    key, certificate = pair(tmp_path)
    other, _ = pair(tmp_path, "other")
    nothing = tmp_path / "nothing"
    for files, words in (
        ((certificate, certificate), "do not sign: Could not (read|find)"),
        ((key, key), "do not sign: Could not (read|find)"),
        ((other, certificate), "do not sign: [^:]*match[^:]*; nothing was signed"),
        ((nothing, certificate), f"the private key {nothing} cannot be read: No such file"),
        ((key, nothing), f"the certificate {nothing} cannot be read: No such file"),
    ):
        with pytest.raises(BadDataError, match=words):
            Signer(*files)
    result = CliRunner().invoke(group, ["build", "x.diff", "--sign", str(other), str(certificate)])
    assert result.exit_code == 2
    assert f"{other} and {certificate} do not sign" in result.stderr


def test_a_damaged_signature() -> None:
    """What says that it is longer than the module is not believed."""
    for about in (b"", b"\0" * 8 + b"\xff" * 4):
        with pytest.raises(BadDataError, match="is damaged"):
            unsigned(b"ELF" + about + SIGNATURE)
