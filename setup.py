"""Builds the compiled core; everything static stands in pyproject.toml.

Switches, read from the environment:
FASTLSTM_DEBUG=1     bounds checks in Cython, asserts in C, symbols, no optimisation.
FASTLSTM_OPENMP=0    leave OpenMP out even where the compiler has it.
"""

import os
import platform
import sys
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("FASTLSTM_DEBUG", "0") not in ("", "0")
WANT_OPENMP = os.environ.get("FASTLSTM_OPENMP", "1") not in ("", "0")
MSVC = sys.platform == "win32"

# Flags for each instruction set beside plain C, by the machine's architecture.
ISA_FLAGS = {
    "x86_64": {
        "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"],
        "avx2": ["-mavx2", "-mfma"],
    },
    "aarch64": {"neon": []},
}
MSVC_ISA_FLAGS = {"x86_64": {"avx512": ["/arch:AVX512"], "avx2": ["/arch:AVX2"]}, "aarch64": {}}
ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}

# No -ffast-math, and none at the link: it would set flush-to-zero for the whole process. No
# contraction: every fused multiply-add is written out, so that a tail rounds like a full vector.
GCC_FLAGS = ["-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
GCC_FLAGS += ["-O1", "-g", "-UNDEBUG"] if DEBUG else ["-O3", "-DNDEBUG", "-g0"]
MSVC_FLAGS = ["/std:c11", "/fp:precise"] + (["/Od", "/Zi"] if DEBUG else ["/O2", "/DNDEBUG"])


def isa_flags() -> dict[str, list[str]]:
    """Instruction sets that can be built for this machine, each with its flags."""
    architecture = ARCHITECTURES.get(platform.machine().lower(), "")
    return (MSVC_ISA_FLAGS if MSVC else ISA_FLAGS).get(architecture, {})


class BuildCore(build_ext):
    """build_ext that tries OpenMP first and compiles the kernels once per instruction set."""

    def build_extensions(self) -> None:
        openmp_compile, openmp_link = self.openmp_flags()
        flags = (MSVC_FLAGS if MSVC else GCC_FLAGS) + openmp_compile
        for extension in self.extensions:
            extension.extra_compile_args = list(flags)
            extension.extra_link_args = list(openmp_link)
            if extension.name == "fastlstm._core.kernels":
                extension.extra_objects = self.kernel_objects()
                extension.define_macros += self.build_description(flags)
        super().build_extensions()

    def kernel_objects(self) -> list[str]:
        """csrc/kernels.c once per instruction set, and the dispatcher that knows which there are.

        Only a kernel's own object gets wider instructions than the machine's baseline.
        """
        flags = MSVC_FLAGS if MSVC else GCC_FLAGS
        sets = {"generic": [], **isa_flags()}
        objects = []
        for isa, wider in sets.items():
            objects += self.compiler.compile(
                ["csrc/kernels.c"],
                output_dir=str(Path(self.build_temp) / isa),
                macros=[(f"FASTLSTM_ISA_{isa.upper()}", None)],
                extra_postargs=flags + wider,
                depends=[str(header) for header in Path("csrc").glob("*.h")],
            )
        have = [(f"FASTLSTM_HAVE_{isa.upper()}", None) for isa in sets if isa != "generic"]
        return objects + self.compiler.compile(
            ["csrc/dispatch.c"],
            output_dir=self.build_temp,
            macros=have,
            extra_postargs=flags,
            depends=["csrc/dispatch.h", "csrc/kernels.h"],
        )

    def openmp_flags(self) -> tuple[list[str], list[str]]:
        """Compile and link flags with which a small OpenMP program builds; empty ones if none."""
        if MSVC:
            candidates = [(["/openmp"], [])]
        elif sys.platform == "darwin":
            candidates = [(["-Xpreprocessor", "-fopenmp"], ["-lomp"])]
        else:
            candidates = [(["-fopenmp"], ["-fopenmp"])]
        for compile_flags, link_flags in candidates if WANT_OPENMP else []:
            if self.compiles_openmp(compile_flags, link_flags):
                return compile_flags, link_flags
        print("fastlstm: building without OpenMP: one thread", file=sys.stderr)
        return [], []

    def compiles_openmp(self, compile_flags: list[str], link_flags: list[str]) -> bool:
        program = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "openmp.c"
            source.write_text(program)
            try:
                objects = self.compiler.compile(
                    [str(source)], output_dir=folder, extra_postargs=compile_flags
                )
                self.compiler.link_executable(
                    objects, "openmp", output_dir=folder, extra_postargs=link_flags
                )
            except Exception as error:  # noqa: BLE001, each compiler has errors of its own
                print(f"fastlstm: the compiler has no OpenMP ({error})", file=sys.stderr)
                return False
        return True

    def build_description(self, flags: list[str]) -> list[tuple[str, str]]:
        """Macros with which fastlstm.show_config() tells how it was built."""
        command = getattr(self.compiler, "compiler_so", None) or [self.compiler.compiler_type]
        return [
            ("FASTLSTM_COMPILER", f'"{command[0]}"'),
            ("FASTLSTM_FLAGS", '"' + " ".join(flags) + '"'),
        ]


DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "initializedcheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "embedsignature": True,
}
# Modules of the compiled core. Only kernels is linked with csrc/'s objects (BuildCore does it), the
# others include its headers: a change of csrc/ builds all of them anew.
EXTENSIONS = [
    Extension(
        f"fastlstm._core.{name}",
        [f"src/fastlstm/_core/{name}.pyx"],
        include_dirs=["csrc"],
        depends=[str(source) for source in sorted(Path("csrc").glob("*.[ch]"))],
    )
    for name in (
        "blas",
        "kernels",
        "time_loop",
        "recompute",
        "variants",
        "dense",
        "optimise",
        "stream",
        "ctc",
        "beam",
    )
]

setup(
    ext_modules=cythonize(
        EXTENSIONS,
        include_path=["src"],
        compiler_directives=DIRECTIVES,
        # What Cython leaves behind must not mix with a build of the other kind.
        build_dir=f"build/cython-{'debug' if DEBUG else 'release'}",
    ),
    cmdclass={"build_ext": BuildCore},
)
