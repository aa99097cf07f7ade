"""Which imports accuse: what runs code, reads or writes is hostile, what ordinary programs pickle is not."""

from __future__ import annotations

import pytest

from policyguard.scan.content import scan_content
from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.pickles.ordinary import judge_import
from policyguard.scan.source import BytesSource
from tests.attacks.checkpoint_lab import calls

GADGETS = """
    os.system posix.system nt.system subprocess.Popen subprocess.run builtins.eval builtins.exec builtins.getattr
    builtins.__import__ __builtin__.eval runpy._run_code importlib.import_module sys.modules types.CodeType
    types.FunctionType operator.attrgetter operator.methodcaller functools.reduce shutil.rmtree socket.socket
    webbrowser.open ctypes.CDLL pickle.loads marshal.loads pip.main cloudpickle.cloudpickle._make_function
    dill._dill._create_function torch.load torch.save torch.hub.load torch.jit.load torch.utils.collect_env.run
    torch.utils.data.datapipes.utils.decoder.basichandlers torch._inductor.codecache.compile_file torch.compile
    torch.utils.cpp_extension.load_inline torch.package.PackageImporter torch.fx.graph_module.reduce_graph_module
    torch.serialization.load torch.distributed.rpc.rpc_sync torch.distributed.run.main torch.from_file
    numpy.load numpy.save numpy.fromfile numpy.memmap numpy.f2py.crackfortran.getlincoef numpy.loadtxt
    numpy.testing._private.utils.runstring numpy.lib._datasource.DataSource numpy._core._internal._ctypes
    pandas.read_pickle pandas.eval pandas.io.pickle.read_pickle pandas.HDFStore pandas.DataFrame.to_pickle
    joblib.load joblib.Memory joblib.memory.Memory sklearn.datasets.fetch_openml scipy.io.loadmat
    scipy.LowLevelCallable transformers.pipelines.pipeline transformers.dynamic_module_utils.get_class_in_module
    transformers.AutoModel.from_pretrained huggingface_hub.hf_hub_download accelerate.launchers.debug_launcher
    tensorflow.io.read_file tensorflow.python.ops.script_ops.py_func keras.src.saving.saving_lib.load_model
    torch.serialization.os.system numpy.os.system torch.nn.modules.module.sys.modules mylib.os.system
    torch.nn.Module.load_state_dict.__globals__ sklearn.utils.os.popen typing.sys.modules datetime.sys.modules
    zoneinfo.os.system logging.os.system logging.Logger.__init__.__globals__ re.Pattern.__class__
"""
ORDINARY = """
    types.SimpleNamespace re._compile time.struct_time array.array array._array_reconstructor logging.getLogger
    typing.Any zoneinfo.ZoneInfo functools.partial builtins.ValueError io.BytesIO ipaddress.IPv4Address
    torch.nn.functional.relu torch.nn.modules.linear.Linear torch.optim.adamw.AdamW torch.relu numpy.log1p
    torch.distributed.tensor.DTensor torch.nn.parallel.distributed.DistributedDataParallel
    sklearn.ensemble._hist_gradient_boosting.binning._BinMapper sklearn.neighbors._kd_tree.newObj
    sklearn.metrics._dist_metrics.newObj sklearn.linear_model._logistic.LogisticRegression
    scipy.interpolate._interpolate.interp1d scipy.sparse._csr.csr_matrix scipy.spatial._kdtree.KDTree
    pandas.DataFrame pandas.core.frame.DataFrame pandas.core.indexes.base._new_Index pandas.StringDtype
    pandas._libs.internals._unpickle_block pandas._libs.arrays.__pyx_unpickle_NDArrayBacked
    pandas.core.internals.managers.BlockManager
    deepspeed.runtime.zero.config.ZeroStageEnum megatron.core.enums.ModelType omegaconf.dictconfig.DictConfig
    transformers.training_args.TrainingArguments lightning.pytorch.callbacks.ModelCheckpoint mylib.Outer.Inner
    __main__.Settings xgboost.core.Booster lightgbm.basic.Booster torchvision.models.resnet.ResNet
"""


def pair(name: str) -> tuple[str, str]:
    """Split at the first part that is no module: the last, unless a class comes before."""
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts) if i and part.strip("_")[:1].isupper()), len(parts) - 1)
    return ".".join(parts[:at]), ".".join(parts[at:])


@pytest.mark.parametrize("name", GADGETS.split())
def test_a_gadget_is_hostile_under_every_split_of_its_name(name: str) -> None:
    """INVARIANT I18: a dotted name reaches what a module imported; the class before it is no excuse."""
    parts = name.split(".")
    for at in range(1, len(parts)):
        verdict = judge_import(".".join(parts[:at]), ".".join(parts[at:]))
        assert verdict is Verdict.HOSTILE or (parts[0] == "mylib" and at > 1), parts[:at]


@pytest.mark.parametrize("name", ORDINARY.split())
def test_what_ordinary_programs_pickle_is_unknown(name: str) -> None:
    """No accusation, and no all-clear: the reason says what makes it acceptable."""
    assert judge_import(*pair(name)) is Verdict.UNKNOWN


def test_a_listed_class_is_accepted() -> None:
    """What the reason says works: the operator lists the class."""
    assert judge_import("lab", "Settings", frozenset({("lab", "Settings")})) is Verdict.CLEAN


def test_picklescan_agrees_about_gadgets() -> None:
    """Every function that picklescan calls dangerous is hostile here."""
    scanner = pytest.importorskip("picklescan.scanner")
    for module, listed in scanner._unsafe_globals.items():
        for name in ["anything"] if listed == "*" else [listed] if isinstance(listed, str) else listed:
            # Optimizers are pickled as partial functions; a partial function runs when a program calls it.
            ordinary = (module, name) == ("functools", "partial")
            assert ordinary or judge_import(module, name) is Verdict.HOSTILE, (module, name)


def codes(data: bytes) -> set[str]:
    findings = Findings()
    scan_content(BytesSource(data), findings)
    return {reason.code for reason in findings.reasons}


def test_getattr_is_an_import_of_a_dotted_name() -> None:
    """Older protocols write methods and inner classes so; anything else by `getattr` is hostile."""
    harmless = b"cbuiltins\ngetattr\n(czoneinfo\nZoneInfo\nV_unpickle\ntR."
    assert codes(harmless) == {"ckpt.pickle_unlisted"}
    assert "ckpt.pickle_global" in codes(b"cbuiltins\ngetattr\n(czoneinfo\nZoneInfo\nV__class__\ntR.")
    assert "ckpt.pickle_global" in codes(b"cbuiltins\ngetattr\n(cos\npath\nVsystem\ntR.")
    assert "ckpt.pickle_global" in codes(b"cbuiltins\ngetattr\n(ctorch\nserialization\nVos\ntR.")
    assert "ckpt.pickle_global" in codes(b"cbuiltins\ngetattr\n.")
    assert "ckpt.pickle_global" in codes(calls("builtins", "getattr"))


def test_type_of_a_constant_is_how_pickle_writes_it() -> None:
    """`type(None)` is harmless, a class made by `type` is not."""
    assert codes(b"cbuiltins\ntype\n(NtR.") == set()
    assert codes(b"cbuiltins\ntype\n(VX\n)}tR.") == {"ckpt.pickle_global"}
