"""Hot loops of the kernels are packed: each one by itself, not any one of its kernel.

A loop that fell back to scalar costs two to ten times as much and changes no result. Here the machine code of each
kernel is cut into its innermost loops, and one of them must have all that a hot loop of the source does, in packed
instructions. That this tells is shown by copies of the kernels in which one hot loop cannot be packed.
"""

import ast
import inspect
import platform
import re
import textwrap
import types
from importlib import import_module

import numba
import pytest

pytestmark = [
    pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="needs compiled kernels"),
    pytest.mark.skipif(bool(numba.config.BOUNDSCHECK), reason="bounds checks keep loops scalar"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="looks for x86 instructions"),
]

SHUFFLE = r"p(shuf|erm|unpck|align|slldq|ack)|align[dq]|pmov[qdw]+[bwd]\b|(perm|unpck|shuf)\w*p[sd]"
# Per kernel the hot ones of its innermost for-loops, counted as they stand in the source, and what the machine code of
# each must have in one loop: SSE4.1, AVX and AVX-512 forms; what begins with "not" it must not have, which tells it
# from another loop of its kernel. "intrinsic" is a loop that is written in packed operations.
HOT = {
    "air_level": {1: ("mulps", "addpd")},
    "log_transmission": {0: ("mulps", "cvttps2dq", "not divps")},
    "median3": {0: ("pminuw", "pmaxuw")},
    "material_lookup": {0: ("ps[rl]ld", "(pand|pternlog|pblend)")},
    "prefix_sum": {"intrinsic": ("paddd", SHUFFLE)},
    "box_integral": {0: ("(pmul|pmadd)", "paddd", "not divps")},
    "box_z": {0: ("divps", "sqrtps", "psubd")},
    "find_runs": {0: ("pmaxub",)},
    "dual_energy": {0: ("divps",)},
    "on_one_grid": {0: ("(pmul|pmadd)", "paddd")},
    "bitshuffle16": {
        0: ("psrlq", "psllq", SHUFFLE),
        1: ("psrlq", "psllq", "not " + SHUFFLE),
        2: ("psrlq", "not psllq", SHUFFLE),
    },
    "fletcher32": {0: ("paddd", "pmovzx|punpck")},
    "repeat_bits": {0: ("psrlq", "paddq")},
    "lz4_matches": {0: ("(pshldq|psrlq)", "p(and|ternlog)", "not paddq"), 1: ("pcmpeqq",)},
}
#: Kernels that the fused pass calls itself for every column.
FUSED = ("log_transmission", "median3", "material_lookup", "box_integral", "box_z")
#: And those that are called by what it calls.
WITHIN = ("prefix_sum", "find_runs")


def _kernel(name):
    return getattr(import_module(f"triage.kernels.{name}"), name)


def _compiled(kernel, function):
    """Compile a function with a kernel's options, uncached: numba does not show the assembly of cached code."""
    options = {k: v for k, v in kernel.targetoptions.items() if k in ("nogil", "error_model", "boundscheck")}
    return numba.njit(kernel.signatures, **options)(function)


def _innermost_loops(assembly):
    """Return the instructions of every stretch from a label to a jump back to it that holds no other such stretch."""
    lines = assembly.splitlines()
    labels, loops = {}, []
    for at, line in enumerate(lines):
        if label := re.match(r"(\.L\w+):", line):
            labels[label[1]] = at
        elif (jump := re.match(r"\s+j\w+\s+(\.L\w+)", line)) and jump[1] in labels:
            loops.append((labels[jump[1]], at))
    return [
        [line.split()[0] for line in lines[a : b + 1] if re.match(r"\s+[a-z]", line)]
        for a, b in loops
        if not any((c, d) != (a, b) and a <= c and d <= b for c, d in loops)
    ]


def _does(loop, work):
    """Return whether a loop has all that `work` names."""

    def has(pattern):
        return any(re.match(f"v?({pattern})", instruction) for instruction in loop)

    return all(not has(part[4:]) if part.startswith("not ") else has(part) for part in work)


def _scalar_loops(compiled, names):
    """Return (kernel, loop) of every hot loop of the kernels named that no loop of the machine code does."""
    loops = _innermost_loops(compiled.inspect_asm(compiled.signatures[0]))
    return [
        (name, at) for name in names for at, work in HOT[name].items() if not any(_does(loop, work) for loop in loops)
    ]


def _broken(name, at):
    """Return a kernel's function with a break in hot loop `at` that depends on what is read: it cannot be packed."""
    function = _kernel(name).py_func
    source = textwrap.dedent(inspect.getsource(function))
    tree = ast.parse(source[source.index("def ") :])
    loops = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.For)
        and not any(isinstance(inner, ast.For | ast.While) for part in node.body for inner in ast.walk(part))
    ]
    loop = sorted(loops, key=lambda node: node.lineno)[at]
    read = next(
        node
        for node in ast.walk(loop)
        if isinstance(node, ast.Subscript)
        and isinstance(node.ctx, ast.Load)
        and any(isinstance(part, ast.Name) and part.id == loop.target.id for part in ast.walk(node.slice))
    )
    loop.body[:0] = ast.parse(f"if {ast.unparse(read)} == 77:\n    break").body
    space = dict(function.__globals__)
    code = compile(ast.fix_missing_locations(tree), f"<{name}>", "exec")
    exec(code, space)
    return space[name]


@pytest.fixture(autouse=True)
def _a_processor_with_vectors():
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    if numba.config.CPU_NAME == "generic" or not (features.get("avx2") or features.get("sse4.1")):
        pytest.skip("compiled for neither AVX2 nor SSE4.1")


@pytest.mark.parametrize("name", sorted(HOT))
def test_every_hot_loop_is_packed(name):
    kernel = _kernel(name)
    assert _scalar_loops(_compiled(kernel, kernel.py_func), [name]) == []


def test_every_hot_loop_of_the_fused_pass_is_packed():
    kernel = _kernel("screen_columns")
    assert _scalar_loops(_compiled(kernel, kernel.py_func), [*FUSED, *WITHIN]) == []


@pytest.mark.parametrize(("name", "at"), [(name, at) for name in HOT for at in HOT[name] if at != "intrinsic"])
def test_a_hot_loop_that_cannot_be_packed_is_told(name, at):
    assert _scalar_loops(_compiled(_kernel(name), _broken(name, at)), [name]) == [(name, at)]


@pytest.mark.parametrize("name", FUSED)
def test_a_hot_loop_that_cannot_be_packed_is_told_in_the_fused_pass(name):
    fused = _kernel("screen_columns")
    slow = _compiled(_kernel(name), _broken(name, 0))
    with_slow = types.FunctionType(fused.py_func.__code__, {**fused.py_func.__globals__, name: slow})
    assert _scalar_loops(_compiled(fused, with_slow), [*FUSED, *WITHIN]) == [(name, 0)]


def test_trailing_zeros_is_one_instruction():
    kernel = _kernel("trailing_zeros")
    compiled = _compiled(kernel, kernel.py_func)
    assert re.search(r"\b(tzcntq?|bsfq?)\b", compiled.inspect_asm(compiled.signatures[0]))
