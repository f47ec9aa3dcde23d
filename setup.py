"""The compiled kernels: one source, compiled once for each level of processor; all else is in ``pyproject.toml``.

They are optional: without a C++ compiler, or on a processor without these flags, the installation goes on without them.
"""

from pathlib import Path

from setuptools import Extension, setup

HERE = "src/tombola/sparse/kernels"
FLAGS = [
    "-std=c++17",
    "-O3",
    "-g0",
    "-fvisibility=hidden",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
]
LEVELS = {
    "plain": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx2", "-mfma", "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"],
}

setup(
    ext_modules=[
        Extension(
            f"tombola.sparse.kernels._{level}",
            [f"{HERE}/kernels.cpp"],
            depends=sorted(str(path) for path in Path(HERE).glob("*.h")),
            extra_compile_args=[*FLAGS, *flags],
            language="c++",
            optional=True,
        )
        for level, flags in LEVELS.items()
    ]
    + [
        Extension(
            "tombola.strong.kernels._subset",
            ["src/tombola/strong/kernels/subset.cpp"],
            extra_compile_args=FLAGS,
            language="c++",
            optional=True,
        )
    ]
)
