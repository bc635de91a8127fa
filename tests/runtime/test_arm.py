"""On 64-bit ARM: which instructions the kernels are made of, and that the answers are those of this processor.

The answers are played under qemu, which takes minutes. It needs ``qemu-aarch64-static``, and in the variable
DELTAFINE_ARM_ROOT a folder with an arm64 Debian in it that has this version of Python, NumPy and numba.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir
from numba import types

from deltafine import DeltaRuntime
from deltafine.runtime.kernels import byte_vectors, kernel
from deltafine.runtime.kernels.byte_vectors import ByteEmitter
from deltafine.runtime.kernels.tiles import channel_tile, row_tile
from deltafine.runtime.kernels.vectors import I64, LANES
from deltafine.runtime.lowering.lower import compile_model
from deltafine.runtime.plan import Plan
from tests.kept_plans import write_played_run
from tests.runtime import models
from tests.runtime.compile_for_arm import TRIPLE
from tests.runtime.int8.plans import random_plan, video
from tests.runtime.play_kept import FRESH, play_all

REPOSITORY = Path(__file__).parents[2]
QEMU, ROOT = shutil.which("qemu-aarch64-static"), os.environ.get("DELTAFINE_ARM_ROOT", "")
FEATURES = {"arm pairs": "+neon", "arm dots": "+neon,+dotprod"}
"""Those of a Raspberry Pi 3 or 4, and of a Raspberry Pi 5."""
CLOSE = 1e-5
"""Largest difference, relative to the largest value of a tensor."""


def assembly(code: str, features: str) -> str:
    """For ARM, of LLVM instructions that were made for this processor."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    code = re.sub(r"^target (triple|datalayout) = .*$", "", code, flags=re.MULTILINE)
    machine = llvm.Target.from_triple(TRIPLE).create_target_machine(features=features, opt=3)
    return machine.emit_assembly(llvm.parse_assembly(f'target triple = "{TRIPLE}"\n{code}'))


def test_convolutions_are_fused_vector_instructions() -> None:
    numbers, places, place = types.float32[::1], types.int64[::1], types.int64
    full, by_channel = row_tile(2, 1), channel_tile(9)

    @kernel
    def rows(arena, links, weights, out, at):  # type: ignore[no-untyped-def]
        full(arena, at, links, at, links, at, at, at, weights, at, out, at, at)

    @kernel
    def channels(arena, links, weights, out, at):  # type: ignore[no-untyped-def]
        by_channel(arena, at, links, at, at, links, at, weights, at, at, out, at, at)

    for function, products in ((rows, 2), (channels, 9)):
        function.compile((numbers, places, numbers, numbers, place))
        (code,) = function.inspect_llvm().values()
        found = assembly(code, "+neon")
        assert len(re.findall(r"\bfmla\s+v\d+\.4s", found)) >= products * LANES // 4  # loops may be unrolled
        assert not re.search(r"\bfmadd\s|\bfmaf?\b", found)


def code_on_bytes(
    made: Callable[[ByteEmitter, list[ir.Value]], ir.Value], result: Callable[[ByteEmitter], ir.Type]
) -> str:
    """LLVM instructions of one function of three vectors of bytes and three of numbers."""
    module = ir.Module()
    shape = ByteEmitter(None, None, None, (), 32)
    kinds = [*[shape.of_bytes] * 3, *[shape.of_numbers] * 4, ir.VectorType(byte_vectors.I16, 32), I64]
    function = ir.Function(module, ir.FunctionType(result(shape), kinds), "made")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(made(ByteEmitter(None, builder, None, function.args, 32), list(function.args)))
    return str(module)


@pytest.mark.parametrize(("instructions", "expected"), [("arm pairs", "sadalp"), ("arm dots", "sdot"), ("any", "mul")])
def test_bytes_take_no_instruction_of_another_processor(
    instructions: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_vectors, "INSTRUCTIONS", instructions)
    monkeypatch.setattr(byte_vectors, "ON_X86", False)
    dot = code_on_bytes(lambda emit, args: emit.dot(args[3], args[0], args[1]), lambda emit: emit.of_numbers)
    packed = code_on_bytes(lambda emit, args: emit.packed(args[3:7]), lambda emit: emit.of_bytes)
    squares = code_on_bytes(lambda emit, args: emit.sum_of_squares(args[0], args[7], args[8]), lambda emit: I64)
    for code in (dot, packed, squares):
        assert "llvm.x86" not in code
        assert "made" in assembly(code, FEATURES.get(instructions, "+neon"))
    assert expected in assembly(dot, FEATURES.get(instructions, "+neon"))


@pytest.mark.parametrize(
    ("machine", "features", "instructions"),
    [
        ("aarch64", {"neon"}, "arm pairs"),
        ("arm64", {"neon", "dotprod"}, "arm dots"),
        ("riscv64", {"v"}, "any"),
        ("x86_64", {"avx2"}, "pairs"),
        ("AMD64", set(), "any"),
    ],
)
def test_the_processor_says_which_instructions_there_are(
    machine: str, features: set[str], instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(byte_vectors, "_features", lambda: features)
    assert byte_vectors._instructions() == instructions


def write_run(folder: Path, plan: Plan, frames: list[np.ndarray]) -> None:
    run = write_played_run(folder, plan)
    np.save(run / "frames.npy", np.stack(frames))
    DeltaRuntime(run, engine="numpy", precision="int8").calibrate(frames[:8])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks of layers that all have a form in 8 bits, and of others; without delta layers and with each rule."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(100, 108):
        plan = random_plan(seed)
        write_run(folder / f"random-{seed}", plan, list(video(plan.input_shape, 12, seed)))
    frames = [frame.astype(np.uint8) for frame in models.video(models.SIZE, 40)][20:38]
    for name in ("convolutions", "depthwise", "pools", "sums"):
        model = models.MODELS[name]()
        write_run(folder / f"{name}-plain", compile_model(model).plan, frames)
        clips = models.refined(model, "send-on-delta", "pixel")
        write_run(folder / f"{name}-refined", compile_model(clips).plan, frames)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not QEMU or not ROOT, reason="needs qemu-aarch64-static, and an arm64 root in DELTAFINE_ARM_ROOT")
@pytest.mark.parametrize("instructions", FEATURES)
def test_arm_gives_the_same_bytes_and_nearly_the_same_numbers(instructions: str, runs: Path, tmp_path: Path) -> None:
    ours = play_all(runs, "numba")
    own = {
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": FEATURES[instructions],
        "NUMBA_CACHE_DIR": str(tmp_path / "numba"),
        "PYTHONPATH": str(REPOSITORY),
    }
    compiling = [sys.executable, "-m", "tests.runtime.compile_for_arm"]
    subprocess.run(compiling, env=os.environ | own, check=True, cwd=REPOSITORY)
    for engine in ("numba", "numpy"):
        emulated = [str(QEMU), "-L", ROOT, f"{ROOT}/usr/bin/python3", "-m", "tests.runtime.play_kept"]
        kept = tmp_path / f"{engine}.npz"
        done = subprocess.run(
            [*emulated, str(runs), engine, str(kept)], env=own, check=False, cwd=REPOSITORY, capture_output=True,
            text=True,
        )  # fmt: skip
        taken = instructions if engine == "numba" else "none"
        assert done.stdout.strip() == f"aarch64, {taken}, without Keras", done.stderr
        with np.load(kept) as theirs:
            assert set(theirs.files) == set(ours)
            for name, expected in ours.items():
                if expected.dtype == np.uint8:
                    np.testing.assert_array_equal(theirs[name], expected, name)
                else:
                    far = np.abs(theirs[name] - expected).max() / max(np.abs(expected).max(), 1e-6)
                    assert far < CLOSE, (name, far)
                run, precision, when, tensor = name.split()
                if engine == "numba" and when == FRESH and run.endswith("plain"):
                    last = len(np.load(runs / run / "frames.npy")) - 1
                    np.testing.assert_array_equal(theirs[f"{run} {precision} {last} {tensor}"], theirs[name], name)
