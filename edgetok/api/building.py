"""Build: of a bundle what a device's TensorRT needs, as far as it can be made here, and the commands for the rest.

    DIR/build.json                    what was made, from which bundle, and what is to be done
    DIR/tensorrt/model.onnx           lowered for the device's TensorRT, of standard operators
    DIR/tensorrt-plugins/model.onnx   the same with operators as plugin nodes, which carry their kernels' PTX
    DIR/tensorrt-plugins/source/      the plugin library in C++, for TensorRT older than 10.9
    DIR/tensorrt-rtx/model.onnx, model.engine

A discrete tokenizer has a folder per graph: DIR/tensorrt/encode/model.onnx.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgetok.bundle import Bundle, open_bundle
from edgetok.engine import build as engines
from edgetok.engine import card
from edgetok.engine import order as orders
from edgetok.engine.session import BATCHES
from edgetok.errors import BuildError, DeviceError, MissingPackage, Refusal
from edgetok.files import check_folder, whole_folder
from edgetok.machine import Machine
from edgetok.verify import DECODER, ENCODER, MODEL, STREAMS

if TYPE_CHECKING:
    from edgetok.device import Device

MARK = "build.json"
JETPACK = "/usr/src/tensorrt/bin"  # where it puts TensorRT's programs
Form = Literal["tensorrt", "tensorrt-plugins", "tensorrt-rtx"]
Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Way:
    """One form in which the bundle can run there.

    Attributes:
        form: whose folder it is.
        runtime: "tensorrt 10.3.0".
        made: files in the folder of the whole build.
        plugins: how many nodes of which operator are plugins.
        to_do: commands to be typed on the device, in a folder that holds the bundle's and the build's.
        missing: why this form, or its engine, was not made; None where nothing is missing.
    """

    form: Form
    runtime: str
    made: tuple[str, ...] = ()
    plugins: dict[str, int] = field(default_factory=dict)
    to_do: tuple[str, ...] = ()
    missing: str | None = None

    @property
    def builder(self) -> orders.Builder:
        """What builds its engines."""
        return "tensorrt-rtx" if self.form == "tensorrt-rtx" else "tensorrt"


@dataclass(frozen=True)
class Build:
    """What a build made.

    Attributes:
        path: its folder.
        bundle: id of the bundle.
        device: name of the profile.
        ways: each form, made or not.
    """

    path: Path
    bundle: str
    device: str
    ways: tuple[Way, ...]


@dataclass(frozen=True)
class _There:
    """The device, with the bundle and this build side by side.

    Attributes:
        folder: the build's.
        again: the command that makes this build there.
    """

    folder: Path
    again: str


def build(
    bundle: str | Path, *, target: str, out: str | Path, force: bool = False, progress: Tell | None = None
) -> Build:
    """Make of a bundle what a device's TensorRT needs, as far as it can be made here.

    Args:
        bundle: the bundle's folder.
        target: a profile of devices/.
        out: the folder that is written: whole, or not at all.
        force: replace a build that is there.
        progress: told what is being done, and how much of it is done.

    Raises:
        Refusal: no runtime there takes the bundle, with the reasons.
        EdgetokError: see edgetok/errors.py.
    """
    from edgetok import devices

    say = progress or (lambda *_: None)
    device, out = devices.load(target), Path(out)
    forms = list(_forms(device))
    if not forms:
        way_out = "it runs bundles as they are: edgetok run"
        raise Refusal(f"nothing is built for {device.name}: it has no TensorRT", way_out=way_out)
    check_folder(out, MARK, force)
    opened = open_bundle(Path(bundle))
    with whole_folder(out, MARK, force) as folder:
        ways = []
        for form, runtime in forms:
            say(f"lowering for {form}", 0.0)
            ways.append(_lowered(opened, device.only(runtime), form, folder))
        if not any(way.made for way in ways):
            raise Refusal(" | ".join(f"{way.form}: {way.missing}" for way in ways))
        words = ["edgetok", "build", opened.path.name, "--for", device.name, "-o", out.name, "--force"]
        there = _There(Path(out.name), shlex.join(words))
        ways = [_with_engine(device, way, folder, there, say) if way.made else way for way in ways]
        told = {"bundle": opened.id, "device": device.name, "ways": [asdict(way) for way in ways]}
        (folder / MARK).write_text(json.dumps(told, indent=2), encoding="utf-8")
    return Build(out, opened.id, device.name, tuple(ways))


def _forms(device: Device) -> Iterator[tuple[Form, str]]:
    for offer in device.runtimes:
        if offer.name == "tensorrt":
            yield "tensorrt", offer.name
            yield "tensorrt-plugins", offer.name
        elif offer.name == "tensorrt-rtx":
            yield "tensorrt-rtx", offer.name


def _lowered(bundle: Bundle, device: Device, form: Form, folder: Path) -> Way:
    """Every graph of the bundle in a form; of none, if one of them cannot be had in it."""
    import onnx_ir as ir

    from edgetok import lowering
    from edgetok.api.plugins import kernel_of
    from edgetok.serialize import write_model

    (offer,) = device.runtimes
    way = Way(form, f"{offer.name} {offer.version}")
    made: list[str] = []
    counted: Counter[str] = Counter()
    try:
        for name, path in _graphs(bundle).items():
            model = ir.load(path)
            counts = lowering.for_tensorrt(model, device, kernel_of if form == "tensorrt-plugins" else None)
            place = Path(form) / name
            (folder / place).mkdir(parents=True)
            write_model(model, folder / place)
            _refuse(folder / place / MODEL, device)
            made += sorted(str(place / file.name) for file in (folder / place).iterdir())
            counted += counts
    except (Refusal, MissingPackage) as error:
        shutil.rmtree(folder / form, ignore_errors=True)
        return replace(way, missing=str(error))
    return replace(way, made=tuple(made), plugins=dict(counted))


def _graphs(bundle: Bundle) -> dict[str, Path]:
    """The bundle's graphs by the folder that they get: "" for model.onnx."""
    parts = (ENCODER, DECODER, *STREAMS.values())
    found = {Path(name).stem: bundle.path / name for name in parts if name in bundle.manifest.files}
    return found or {"": bundle.path / MODEL}


def _refuse(lowered: Path, device: Device) -> None:
    """Hold a lowered graph against everything that is known of the runtime."""
    from edgetok.lint import lint

    for finding in lint(lowered, device):
        if finding.severity == "error":
            raise Refusal(finding.reason, node=finding.nodes[0] if finding.nodes else None, way_out=finding.rewrite)


def _with_engine(device: Device, way: Way, folder: Path, there: _There, say: Tell) -> Way:
    """With engines where they can be built here, or else with the commands that build them there.

    Args:
        device: the target.
        way: its graphs.
        folder: of the whole build.
        there: where the commands are typed.
        say: told how far it is.
    """
    from edgetok.lowering import plugins

    if by_library := way.form == "tensorrt-plugins" and plugins.form(device.only("tensorrt")) == "library":
        way = _with_library_source(way, folder, there.folder)
    made: list[Path] = []
    asked: list[orders.Order] = []
    try:
        asked = [_order(folder / file, device, way.builder) for file in way.made if Path(file).name == MODEL]
        name = _card(device, way)
        library = _library(folder / way.form) if by_library else None
        for order in asked:
            engine = engines.build(replace(order, card=name, library=library), say)
            made.append(shutil.copyfile(engine, order.model.with_name(engines.ENGINE)))
    except (MissingPackage, DeviceError) as error:  # what can be built elsewhere, or with more installed
        moved = [replace(order, model=there.folder / order.model.relative_to(folder)) for order in asked]
        commands = _commands(device, way, moved, there)
        return replace(way, to_do=(*way.to_do, *commands), missing=f"no engine: {error}")
    except (Refusal, BuildError) as error:
        return replace(way, to_do=(), missing=f"no engine: {error}")
    return replace(way, made=(*way.made, *(str(file.relative_to(folder)) for file in made)), to_do=())


def _card(device: Device, way: Way) -> str:
    """The name of the card that TensorRT measures on; TensorRT-RTX builds anywhere, for a compute capability.

    Raises:
        DeviceError: this machine is not the device.
    """
    if way.builder == "tensorrt-rtx":
        return ""
    if not Machine.read().is_a(device):
        raise DeviceError(f"{way.runtime} builds on the device itself, by timing it")
    return card.here().name


def _library(folder: Path) -> Path:
    from edgetok.api.plugins import operators
    from edgetok.tensorrt import library

    return library.build(folder, operators())


def _order(model: Path, device: Device, builder: orders.Builder) -> orders.Order:
    import onnx_ir as ir

    from edgetok.graph import specs

    assert device.sm is not None
    return orders.order(model, builder, device.sm, specs(ir.load(model).graph.inputs), batch=BATCHES)


def _with_library_source(way: Way, folder: Path, there: Path) -> Way:
    """With the plugin library's source, and what compiles it on a device that has g++ but no edgetok.

    `folder` is the whole build's here, `there` on the device.
    """
    from edgetok.api.plugins import operators
    from edgetok.tensorrt import library

    source, target = Path(way.form) / "source", Path(way.form) / library.LIBRARY
    (folder / source).mkdir()
    files = sorted(file for file in library.SOURCES.iterdir() if file.suffix in (".h", ".cpp"))
    for file in files:
        shutil.copyfile(file, folder / source / file.name)
    compiled = [there / source / file.name for file in files if file.suffix == ".cpp"]
    command = library.command("g++", compiled, there / target, operators(), [Path("/usr/local/cuda/include")])
    names = tuple(str(source / file.name) for file in files)
    return replace(way, made=(*way.made, *names), to_do=(shlex.join(command),))


def _commands(device: Device, way: Way, asked: Iterable[orders.Order], there: _There) -> tuple[str, ...]:
    """What builds the engines there; of the orders, the models lie there too."""
    from edgetok.lowering import plugins
    from edgetok.tensorrt.library import LIBRARY

    if way.builder == "tensorrt-rtx":
        return ("pip install 'edgetok[tensorrt-rtx]'", there.again)
    if way.form == "tensorrt-plugins" and plugins.form(device.only("tensorrt")) == "decorator":
        return (there.again,)  # Python registers the plugins while the engine is built; trtexec would not know them
    trtexec = "trtexec" if device.recognise.gpus else f"{JETPACK}/trtexec"  # which is not on JetPack's path
    types = "--stronglyTyped" if device.only("tensorrt").runtimes[0].at_least("10.0") else "--fp16"
    library = [f"--staticPlugins={there.folder / way.form / LIBRARY}"] if way.form == "tensorrt-plugins" else []
    return tuple(
        shlex.join([
            trtexec, f"--onnx={order.model}", f"--saveEngine={order.model.with_name(engines.ENGINE)}", types,
            *library, *_shapes(order),
        ])
        for order in asked
    )  # fmt: skip


def _shapes(order: orders.Order) -> Iterator[str]:
    """trtexec's options, where a shape is open."""
    for option, which in (("--minShapes", "least"), ("--optShapes", "usual"), ("--maxShapes", "most")):
        sizes = {name: getattr(shapes, which) for name, shapes in order.shapes.items() if shapes.least != shapes.most}
        if sizes:
            yield f"{option}={','.join(f'{name}:' + 'x'.join(map(str, shape)) for name, shape in sizes.items())}"
