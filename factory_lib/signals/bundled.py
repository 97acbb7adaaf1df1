"""Models whose weights lie inside a package of the extra `models`: which file, and that it is the one it should be.

Nothing here imports such a package: a graph loads, and its fingerprints are taken, whether they are installed or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from factory_lib.errors import SignalError
from factory_lib.signals.checkpoint import file_digest


def not_installed(what: str, package: str) -> SignalError:
    """The error of something that needs a package of the extra `models`.

    Args:
        what: is done by the package, as the beginning of a sentence.
        package: the distribution that is not there.
    """
    hint = 'Install it: pip install "dataset-factory[models]".'
    return SignalError(f"{what} by the package {package}, which is not installed.", hint)


def missing(packages: Iterable[str]) -> list[str]:
    """Of some distributions those that are not installed."""
    return [name for name in packages if _folder(name) is None]


@dataclass(frozen=True)
class BundledModel:
    """A file with weights, as the package that brings it has it.

    Attributes:
        name: of the model.
        package: the distribution that brings the file.
        file: where the file lies among what the distribution installs.
        sha256: of the file, 64 hexadecimal digits: values are of these weights and of no others.
        licence: of the weights, by its SPDX name.
        source: where the weights come from.
    """

    name: str
    package: str
    file: str
    sha256: str
    licence: str
    source: str

    @property
    def fingerprint_name(self) -> str:
        """The name of its components in the fingerprint of a signal."""
        return f"model:{self.name}"

    def __fingerprint__(self) -> dict[str, str]:
        """What the values of a signal depend on; not which release of the package brings the file."""
        return {"sha256": self.sha256, "package": self.package, "licence": self.licence, "source": self.source}

    def path(self) -> Path:
        """The file, its checksum compared.

        Raises:
            SignalError: the package is not installed, does not have the file, or has another one.
        """
        folder = _folder(self.package)
        if folder is None:
            raise not_installed(f"The model {self.name!r} is brought", self.package)
        path = folder / self.file
        if not path.is_file():
            raise SignalError(
                f"The model {self.name!r} is not at {path}, where {self.package} has it.",
                f"Install it anew: pip install --force-reinstall {self.package}.",
            )
        found = file_digest(path)
        if found != self.sha256:
            raise SignalError(
                f"{path} is not the model {self.name!r}: its sha256 is {found[:16]}…, not {self.sha256[:16]}….",
                f"pip install --force-reinstall {self.package}. Another release may have other weights.",
            )
        return path


def _folder(package: str) -> Path | None:
    """The folder that a distribution was installed into; None where it is not."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return Path(str(distribution(package).locate_file("")))
    except PackageNotFoundError:
        return None
