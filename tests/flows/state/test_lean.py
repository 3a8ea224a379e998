"""Kernels without reference counts: each compiles, allocates nothing and returns no array."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[3]

COMPILED = textwrap.dedent(
    """
    import sys
    from numba.core.dispatcher import Dispatcher
    from flows.compile import compile_kernels

    compile_kernels()
    lean = {
        kernel
        for name, module in list(sys.modules.items())
        if name.startswith(("flows.", "connectors."))
        for kernel in vars(module).values()
        if isinstance(kernel, Dispatcher) and kernel.targetoptions.get("_nrt") is False
    }
    from flows.rows.packing import packed
    lean.add(packed)  # it allocates: were this not found, nothing would be
    for kernel in lean:
        for signature in kernel.signatures:
            text = kernel.inspect_llvm(signature)
            counts = "NRT_incref" in text or "NRT_MemInfo_alloc" in text
            returned = str(kernel.overloads[signature].signature.return_type)
            print(kernel.py_func.__module__, kernel.py_func.__name__, int(counts), int("array" in returned))
    """
)


def test_a_lean_kernel_neither_counts_references_nor_allocates(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        cwd=ROOT, env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    kernels = [
        line.split() for line in done.stdout.splitlines() if line.startswith(("flows.", "connectors."))
    ]
    assert ["flows.plays.cohort", "apply", "0", "0"] in kernels
    assert ["flows.intake.scanner", "scan", "0", "0"] in kernels
    assert len(kernels) > 60
    assert {kernel[1] for kernel in kernels if kernel[2:] != ["0", "0"]} == {"packed"}
