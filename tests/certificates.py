"""Certificates for tests: an authority, and the files and contexts made with it."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Authority:
    """Somebody who issues certificates, and what servers and clients need that trust it.

    Args:
        directory: Where the files go that servers read.
    """

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA(organization_name="trionats tests")
        self._directory = directory
        self._count = 0
        self.file = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def trusting(self) -> ssl.SSLContext:
        """A client's context that trusts this authority and nobody else."""
        return ssl.create_default_context(cafile=str(self.file))

    def client(self, name: str = "client@tests.example") -> ssl.SSLContext:
        """A client's context with a certificate of its own."""
        context = self.trusting()
        self._ca.issue_cert(name).configure_cert(context)
        return context

    def server(self, *names: str) -> ssl.SSLContext:
        """A server's context, its certificate for these names and addresses."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert(*names).configure_cert(context)
        return context

    def files(self, *names: str, stem: str = "") -> tuple[Path, Path]:
        """A certificate and its key as files; the same `stem` overwrites the last ones."""
        self._count += 1
        stem = stem or f"pair{self._count}"
        issued = self._ca.issue_cert(*(names or ("client@tests.example",)))
        certificate, key = self._directory / f"{stem}.pem", self._directory / f"{stem}.key"
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        return certificate, key

    def config(self, *names: str, more: str = "", stem: str = "") -> str:
        """The `tls` block of a server's configuration."""
        certificate, key = self.files(*names, stem=stem)
        return f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{self.file}"{", " if more else ""}{more} }}\n'
