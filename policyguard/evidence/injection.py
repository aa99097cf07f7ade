"""Variables and options by which a program runs other code, or loads data as code: one table, with what is done.

How each is treated:

- refused: no job needs it; the example policies deny every job that has it.
- restricted: listed, and denied from nine GPUs on.
- measured: listed and bound to the decision with its value.
- passed: known to load nothing, although its family does; not listed.

A second word is the treatment where a path in the value leads elsewhere: neither to a folder of the system that only
root can write, nor to the job's environment or repository.

Sources: ld.so(8), environ(7), `python --help-env` and `--help-xoptions`, bash(1), git(1), openssl-env(7), perlrun(1),
the NCCL user guide, and the documentation of the named programs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

import msgspec

from policyguard.program.grammar import NotFollowed
from policyguard.program.interpreters import PYTHON, X_OPTIONS, read_python
from policyguard.text import printable_name
from policyguard.values import sha256_digest

REFUSED, RESTRICTED, MEASURED, PASSED = "refused", "restricted", "measured", "passed"


class Injection(msgspec.Struct, frozen=True):
    """A row of the table; `elsewhere` is the treatment of paths that lead elsewhere, "" if the value is no path."""

    treatment: str
    elsewhere: str
    effect: str


_TABLE = """
LD_PRELOAD refused refused a library loaded into every process before its own
LD_AUDIT refused refused a library the dynamic linker calls for every symbol
LD_LIBRARY_PATH measured restricted folders that are searched for libraries first
LD_ORIGIN_PATH restricted - what libraries take for the folder of their program
LD_HWCAP_MASK restricted - which variant of a library is loaded
LD_PROFILE restricted - a library that is profiled, into a file
LD_PROFILE_OUTPUT restricted - where such a file is written
LD_DEBUG_OUTPUT restricted - where the dynamic linker writes what it does
LD_* restricted - another variable of the dynamic linker
LD_BIND_NOW passed - resolves symbols at the start
LD_BIND_NOT passed - resolves symbols at each call
LD_DEBUG passed - prints what the dynamic linker does
LD_DYNAMIC_WEAK passed - how weak symbols are resolved
LD_SHOW_AUXV passed - prints what the kernel passes
LD_WARN passed - warns of unresolved symbols
LD_VERBOSE passed - prints versions of symbols
LD_USE_LOAD_BIAS passed - how prelinked programs are placed
LD_PREFER_MAP_32BIT_EXEC passed - maps code in low memory
DYLD_* refused refused the same as LD_* on macOS
GLIBC_TUNABLES restricted - settings of the C library, which choose variants of libraries, too
GCONV_PATH refused refused where the C library finds character converters, which are code
LOCPATH measured restricted where the C library finds locales, which name character converters
NLSPATH measured restricted where the C library finds message texts, formats among them
OPENSSL_CONF measured refused settings of OpenSSL, libraries to load among them
OPENSSL_MODULES measured refused where OpenSSL loads its providers from
OPENSSL_ENGINES measured refused where OpenSSL loads its engines from
PYTHONPATH refused refused folders whose modules come before the installed ones
PYTHONHOME refused refused another standard library
PYTHONSTARTUP refused refused a file that an interactive interpreter runs first
PYTHONPYCACHEPREFIX refused refused where byte code is taken from instead of from beside its source
PYTHON_PRESITE refused - a module that a debug build imports before anything else
PYTHON_EXEC refused refused the interpreter that torchrun starts for every worker
PYTHONINSPECT restricted - an interactive prompt when the program ends
PYTHONUSERBASE restricted restricted another user site, with its own .pth files
PYTHONEXECUTABLE restricted restricted the path from which the interpreter derives its prefix (macOS)
PYTHONPLATLIBDIR restricted - another folder for the standard library's extensions
PYTHONBREAKPOINT restricted - a function called at every `breakpoint()`
PYTHONWARNINGS restricted - may import a module named as a category
PYTHONCASEOK restricted - imports modules whose names differ in case
PYTHON_FROZEN_MODULES restricted - whether the standard library is taken from the program or from files
PYTHON* restricted - another variable of Python
PYTHON_* passed - settings of newer interpreters, and versions that images name
PYTHONASYNCIODEBUG passed - checks of asyncio
PYTHONCOERCECLOCALE passed - the locale of text
PYTHONDEBUG passed - output of the parser
PYTHONDEVMODE passed - more checks and warnings
PYTHONDONTWRITEBYTECODE passed - writes no byte code
PYTHONDUMPREFS passed - prints objects at the end
PYTHONDUMPREFSFILE passed - writes objects at the end
PYTHONFAULTHANDLER passed - prints tracebacks of crashes
PYTHONHASHSEED passed - the order of sets
PYTHONINTMAXSTRDIGITS passed - the length of numbers
PYTHONIOENCODING passed - the encoding of text
PYTHONLEGACYWINDOWSFSENCODING passed - the encoding of file names (Windows)
PYTHONLEGACYWINDOWSSTDIO passed - the encoding of text (Windows)
PYTHONMALLOC passed - the allocator
PYTHONMALLOCSTATS passed - prints statistics of the allocator
PYTHONNODEBUGRANGES passed - byte code without columns
PYTHONNOUSERSITE passed - leaves the user site out
PYTHONOPTIMIZE passed - leaves assertions out
PYTHONPERFSUPPORT passed - names functions for perf
PYTHONPROFILEIMPORTTIME passed - prints times of imports
PYTHONSAFEPATH passed - leaves the folder of the script out
PYTHONTHREADDEBUG passed - output of threads
PYTHONTRACEMALLOC passed - traces of allocations
PYTHONUNBUFFERED passed - writes text at once
PYTHONUTF8 passed - the encoding of text
PYTHONVERBOSE passed - prints imports
COVERAGE_PROCESS_* restricted restricted settings with which coverage starts in every Python, plug-ins among them
COVERAGE_RCFILE measured restricted settings of coverage, plug-ins that it imports among them
BASH_ENV refused refused a file that every non-interactive bash runs first
BASH_FUNC_module%% measured - the command that loads modules of a cluster
BASH_FUNC_ml%% measured - the same, shorter
BASH_FUNC_* restricted - a function that replaces a command in every bash below
BASH_LOADABLES_PATH restricted restricted where bash loads its own commands from
ENV restricted restricted a file that an interactive POSIX shell runs first
SHELLOPTS restricted - options, xtrace among them, of every bash below
BASHOPTS restricted - more options of every bash below
PS4 restricted - text that bash expands, commands in it too, when xtrace is on
PROMPT_COMMAND restricted - a command that an interactive bash runs before each prompt
ZDOTDIR restricted restricted the folder of the files that every zsh runs first
PERL5OPT restricted - options of every perl, modules to load among them
PERL5LIB restricted restricted folders whose modules perl takes first
PERLLIB restricted restricted the same, if PERL5LIB is not set
PERL5DB restricted - code that perl's debugger runs
RUBYOPT restricted - options of every ruby, files to load among them
RUBYLIB restricted restricted folders that ruby loads from first
NODE_OPTIONS restricted - options of every node, modules to load among them
NODE_PATH restricted restricted folders that node loads modules from
JULIA_LOAD_PATH restricted restricted folders that julia loads from
JULIA_DEPOT_PATH measured restricted where julia finds packages and its startup file
LUA_INIT* restricted - code that every lua runs first
LUA_PATH* restricted - where lua loads modules from
LUA_CPATH* restricted - where lua loads libraries from
R_PROFILE* measured restricted a file that R runs first
R_ENVIRON* measured restricted a file that sets variables for R
R_LIBS* measured restricted where R loads packages from
TCLLIBPATH measured restricted where Tcl loads packages from
JAVA_TOOL_OPTIONS restricted - options of every Java machine, agents among them
JDK_JAVA_OPTIONS restricted - options of every `java`, agents among them
_JAVA_OPTIONS restricted - options of every Java machine, agents among them
CLASSPATH measured restricted where Java loads classes from
DOTNET_STARTUP_HOOKS refused refused libraries that every .NET program runs first
CORECLR_PROFILER_PATH* refused refused a library that every .NET program loads
GIT_SSH restricted - a program that git starts to connect
GIT_SSH_COMMAND restricted - a command that git starts to connect
GIT_PROXY_COMMAND restricted - a command that git starts to connect
GIT_ASKPASS restricted - a program that git starts to ask for a password
SSH_ASKPASS restricted - a program that ssh and git start to ask for a password
GIT_EDITOR restricted - a command that git starts to edit
GIT_SEQUENCE_EDITOR restricted - a command that git starts to edit a rebase
GIT_PAGER restricted - a command that git starts to show text
GIT_EXTERNAL_DIFF restricted - a command that git starts to compare files
GIT_EXEC_PATH restricted restricted where git finds its own programs
GIT_TEMPLATE_DIR restricted restricted where git takes the hooks of new repositories from
GIT_CONFIG* restricted - settings of git, commands among them
CUDA_INJECTION64_PATH refused refused a library every CUDA process loads
CUDA_INJECTION32_PATH refused refused a library every 32-bit CUDA process loads
NVTX_INJECTION* refused refused a library every process that uses NVTX loads
NVPROF_* restricted - options of the CUDA profiler
NCCL_NET_PLUGIN measured restricted a library NCCL loads for its network
NCCL_TUNER_PLUGIN measured restricted a library NCCL loads for tuning
NCCL_PROFILER_PLUGIN restricted restricted a library NCCL loads for profiling
NCCL_ENV_PLUGIN restricted restricted a library NCCL loads for its settings
NCCL_GIN_PLUGIN restricted restricted a library NCCL loads for the network of its kernels
NCCL_*PLUGIN* restricted restricted another library NCCL loads
NCCL_CONF_FILE restricted restricted a file that sets all of NCCL's variables, plug-ins among them
ROCP_TOOL_LIB refused refused a library every ROCm process loads
ROCPROFILER_* restricted - options of the ROCm profiler, libraries among them
HSA_TOOLS_LIB refused refused a library every ROCm process loads
HSA_TOOLS_* restricted - options of that library
OMP_TOOL_LIBRARIES refused refused libraries every OpenMP program loads
KMP_*_PLUGIN* restricted restricted a library of the OpenMP runtime
SLURM_CONF measured restricted settings of Slurm, libraries that srun loads among them
DS_ENV_FILE restricted restricted a file of variables that DeepSpeed sets on every node
OMPI_MCA_* measured restricted settings of Open MPI, libraries and programs among them
PMIX_MCA_* measured restricted settings of PMIx, libraries and programs among them
UCX_MODULE_DIR measured restricted where UCX loads its libraries from
UCX_MODULES measured restricted which libraries UCX loads
FI_PROVIDER_PATH measured restricted where libfabric loads its providers from
IBV_DRIVERS measured restricted libraries that InfiniBand programs load
RDMAV_DRIVERS measured restricted the same, for older ones
MKL_RT_LIB* measured restricted the library of MKL that is loaded
MAGMA_PLUGIN* restricted restricted a library of MAGMA
TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD refused - torch.load unpickles again, code in a checkpoint runs
TORCH_FORCE_WEIGHTS_ONLY_LOAD measured - torch.load of weights only, whatever the program asked
TORCH_DEVICE_BACKEND_AUTOLOAD measured - whether `import torch` imports back ends from installed packages
TORCHINDUCTOR_CACHE_DIR measured measured where compiled kernels are taken from
TORCHINDUCTOR_*_CACHE measured - whether compiled kernels are taken from a cache, also a remote one
TORCH_EXTENSIONS_DIR restricted restricted where built C++ extensions are taken from
TRITON_CACHE_DIR measured measured where compiled kernels are taken from
NUMBA_CACHE_DIR measured measured where compiled functions are taken from
CUPY_CACHE_DIR measured measured where compiled kernels are taken from
CUDA_CACHE_PATH measured measured where the CUDA driver takes compiled kernels from
JAX_COMPILATION_CACHE_DIR measured measured where compiled programs are taken from
TRITON_HOME measured measured the folder above that cache
TRITON_CACHE_MANAGER restricted - a class that triton imports for its cache
TRITON_*_PATH restricted restricted a program or library that triton starts or loads to compile
TRITON_OVERRIDE_DIR restricted restricted kernels that replace compiled ones
TRITON_PLUGIN* restricted restricted a library that triton loads
XLA_FLAGS measured restricted options of XLA, folders and files of kernels among them
PJRT_* measured restricted libraries of devices that JAX loads
TPU_LIBRARY_PATH measured restricted a library that JAX loads
TF_PLUGGABLE_DEVICE_LIBRARY_PATH restricted restricted where TensorFlow loads its devices from
HF_MODULES_CACHE restricted restricted where remote model code is imported from
HF_DATASETS_TRUST_REMOTE_CODE restricted - scripts of datasets run
HF_HOME measured measured where models are taken from, and remote model code is imported from
HF_ENDPOINT measured - the server that models come from
VLLM_PLUGINS restricted - which installed plug-ins vLLM imports
CC measured restricted the compiler of kernels and extensions
CXX measured restricted the C++ compiler of kernels and extensions
NVCC_PREPEND_FLAGS restricted - options of the CUDA compiler
NVCC_APPEND_FLAGS restricted - options of the CUDA compiler
GI_TYPELIB_PATH measured restricted where GLib finds descriptions of libraries to load
GIO_EXTRA_MODULES measured restricted where GLib loads libraries from
GTK_MODULES measured restricted libraries every GTK program loads
GTK_PATH measured restricted where GTK loads libraries from
QT_PLUGIN_PATH measured restricted where Qt loads libraries from
QT_QPA_PLATFORM_PLUGIN_PATH measured restricted where Qt loads its platform from
LADSPA_PATH measured restricted where audio programs load plug-ins from
GST_PLUGIN_* measured restricted where GStreamer loads plug-ins from
GDAL_DRIVER_PATH measured restricted where GDAL loads its drivers from
HDF5_PLUGIN_PATH measured restricted where HDF5 loads its filters from
OPENCV_*PLUGIN* measured restricted where OpenCV loads plug-ins from
MPLBACKEND measured restricted a module that matplotlib imports, if it is no name of its own
-X.pycache_prefix refused refused the option for where byte code is taken from
-X.presite refused - the option for a module that a debug build imports first
-X.* restricted - another option of Python that is not known to be harmless
-W.* restricted - an option that imports a module named as a category
-i restricted - an option that reads more of the program from standard input
--check-hash-based-pycs restricted - an option for byte code that is not compared with its source
"""

INJECTIONS: Mapping[str, Injection] = {
    name: Injection(treatment, "" if elsewhere == "-" else elsewhere, effect)
    for name, treatment, elsewhere, effect in (line.split(" ", 3) for line in _TABLE.strip().splitlines())
}
"""By name; a star matches any text. The longest name that matches counts. `-X.` and `-W.` are options of Python."""

INJECTION_VARIABLES: Mapping[str, str] = {
    name: row.effect for name, row in INJECTIONS.items() if row.treatment != PASSED and not name.startswith("-")
}
"""The variables that are listed, with what they do."""

_FAMILIES = sorted((name for name in INJECTIONS if "*" in name), key=len, reverse=True)


def row_of(name: str) -> Injection | None:
    """Return the row for a variable or option; None for one that is in no row, and for one that passes."""
    row = INJECTIONS.get(name)
    if row is None:
        family = next((family for family in _FAMILIES if _matches(name, family)), None)
        row = INJECTIONS[family] if family is not None else None
    return None if row is None or row.treatment == PASSED else row


def injection_variables(
    environment: Mapping[str, str], argv: Sequence[str] = (), options: Iterable[tuple[str, str]] = ()
) -> dict[str, str]:
    """List the variables and options of `INJECTIONS` that are set and not empty, with printable values.

    An argument such as `LD_PRELOAD=x.so` counts as one that is set: `env` and many launchers take it so.

    Args:
        environment: the variables.
        argv: the command.
        options: those of interpreters, which the command was followed to.
    """
    # The text of `bash -c` and `env -S` is one argument with several tokens; the same name may be given twice.
    tokens = [word for argument in argv for word in dict.fromkeys((argument, *argument.split()))]
    assigned = [word.split("=", 1) for word in tokens if "=" in word and not word.startswith("-")]
    listed = {
        printable_name(name): _recorded(name, value)
        for name, value in (*environment.items(), *assigned)
        # INVARIANT I17: every known injection variable that is set is reported; an empty one has no effect.
        if value and not name.startswith("-") and row_of(name) is not None
    }
    lines = (argv, tokens, *(argument.split() for argument in argv))
    read = [*options, *(option for line in lines for option in _python_options(line))]
    listed.update((printable_name(name), printable_name(value)) for name, value in _listed_options(read))
    return listed


def treatments(injected: Mapping[str, str], directory: str, leads_elsewhere: Callable[[str], bool]) -> dict[str, str]:
    """Say how each of `injection_variables` is treated.

    Args:
        injected: names and values.
        directory: the folder that the job runs in.
        leads_elsewhere: returns True for a path that is neither of the system nor of the job.
    """
    result = {}
    for name, value in injected.items():
        row = row_of(name)
        if row is not None:
            is_elsewhere = row.elsewhere and any(map(leads_elsewhere, paths_of(value, directory)))
            result[name] = row.elsewhere if is_elsewhere else row.treatment
    return result


def paths_of(value: str, directory: str) -> list[str]:
    """List the paths in a value: between colons, semicolons and spaces; an empty one is the job's folder.

    A word without a slash is a path if there is such a file, because the name of a library may be one word as well.
    """
    parts = [part for text in value.replace(";", ":").split(":") for part in (text.split() or ["."])]
    paths = dict.fromkeys(part.rpartition("=")[2] for part in parts)
    return [path for path in paths if "/" in path or os.path.lexists(os.path.join(directory, path))]


def _python_options(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the options of each Python that is named in a command line."""
    for index, word in enumerate(argv):
        if PYTHON.match(os.path.basename(word)):
            with suppress(NotFollowed):
                yield from read_python(tuple(argv[index + 1 :])).read


def _listed_options(read: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield those options of Python that are in the table, by its names."""
    for name, value in read:
        key = f"{name}.{value.partition('=')[0]}" if name in ("-X", "-W") else name
        is_harmless = (name == "-X" and key[3:] in X_OPTIONS) or (name == "-W" and "." not in value)
        if not is_harmless and row_of(key) is not None:
            yield key, value.partition("=")[2] or value or "set"


def _recorded(name: str, value: str) -> str:
    # Settings of git can hold passwords of servers.
    if name.startswith("GIT_CONFIG"):
        return f"sha256:{sha256_digest(value.encode('utf-8', 'surrogateescape'))}"
    return printable_name(value)


def _matches(name: str, family: str) -> bool:
    first, *parts = family.split("*")
    if not name.startswith(first) or not name.endswith(parts[-1]):
        return False
    position = len(first)
    for part in parts[:-1]:
        position = name.find(part, position) + len(part)
        if position < len(part):
            return False
    return position + len(parts[-1]) <= len(name)
