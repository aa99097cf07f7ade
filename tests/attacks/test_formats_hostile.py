"""Tables and models that are no pickles: what is hostile is called so, what does not hold is not clean."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.scan.content import scan_content
from policyguard.scan.files import scan_file
from policyguard.scan.findings import Findings, Limits, Verdict
from policyguard.scan.formats.chat_template import check_template
from policyguard.scan.source import BytesSource
from tests.attacks.checkpoint_lab import EVIL, npy, tarred, zipped
from tests.attacks.formats_lab import BROKEN, GOOD, HOSTILE, keras, layer, page, parquet

FILES = Path(__file__).parents[1] / "data" / "scan" / "benign"
SUFFIXES = {".parquet", ".feather", ".arrow", ".gguf", ".onnx", ".h5", ".keras"}
WRITTEN = {path.name: path.read_bytes() for path in sorted(FILES.iterdir()) if path.suffix in SUFFIXES}
SMALL = {**GOOD, **{name: data for name, data in WRITTEN.items() if len(data) < 5_000}}
LIMITS = Limits(time_s=5, decompressed_bytes=2**24, free_ratio_bytes=2**24)


def scanned(data: bytes) -> Findings:
    findings = Findings(limits=LIMITS)
    scan_content(BytesSource(data), findings)
    return findings


def codes(data: bytes) -> set[str]:
    return {reason.code for reason in scanned(data).reasons}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_brings_code_or_deceives_is_hostile(name: str) -> None:
    """INVARIANT I18: each technique, in a file that its readers accept."""
    assert scanned(HOSTILE[name]()).verdict is Verdict.HOSTILE


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_hold_or_is_not_explained_is_not_clean(name: str) -> None:
    """INVARIANT I18: unknown fields, lying lengths, unlisted names; each says why."""
    findings = scanned(BROKEN[name]())
    assert findings.verdict is Verdict.UNKNOWN
    assert findings.reasons


@pytest.mark.parametrize("name", GOOD)
def test_the_file_without_the_technique_is_clean(name: str) -> None:
    """The twins: the same builders, nothing changed."""
    assert codes(GOOD[name]) == set()


@pytest.mark.parametrize(
    ("build", "code"),
    [
        (HOSTILE["parquet: a column that is unpickled"], "ckpt.arrow_unpickled"),
        (HOSTILE["parquet: one key twice"], "ckpt.metadata_duplicate"),
        (HOSTILE["parquet: a Java class"], "ckpt.java_class"),
        (HOSTILE["parquet: data in a file elsewhere"], "ckpt.external_path"),
        (HOSTILE["parquet: also a zip archive"], "ckpt.polyglot"),
        (HOSTILE["arrow: a column that only the footer unpickles"], "ckpt.arrow_mismatch"),
        (HOSTILE["gguf: a template with a hidden name"], "ckpt.template_code"),
        (HOSTILE["onnx: data above the folder"], "ckpt.external_path"),
        (HOSTILE["keras: a Lambda layer"], "ckpt.keras_lambda"),
        (HOSTILE["keras: a function of the system"], "ckpt.keras_module"),
        (BROKEN["parquet: a field that nobody knows"], "ckpt.parquet_layout"),
        (BROKEN["parquet: bytes that no column has"], "ckpt.archive_gap"),
        (BROKEN["parquet: encrypted columns"], "ckpt.archive_encrypted"),
        (BROKEN["parquet: a column of an unlisted type"], "ckpt.arrow_extension"),
        (BROKEN["parquet: a pickle as a value"], "ckpt.metadata_binary"),
        (BROKEN["parquet: a feature that is no class"], "ckpt.dataset_feature"),
        (BROKEN["parquet: data in another file"], "ckpt.external_data"),
        (BROKEN["arrow: a body longer than the file"], "ckpt.arrow_layout"),
        (BROKEN["gguf: a tensor over another"], "ckpt.gguf_layout"),
        (BROKEN["gguf: a template that computes a name"], "ckpt.template_unread"),
        (BROKEN["onnx: an operator of somebody's library"], "ckpt.onnx_operator"),
        (BROKEN["onnx: a message longer than the file"], "ckpt.onnx_layout"),
        (BROKEN["keras: a class of somebody's library"], "ckpt.keras_class"),
        (BROKEN["hdf5: nothing behind the signature"], "ckpt.hdf5_layout"),
    ],
)
def test_each_reason_has_its_code(build: Callable[[], bytes], code: str) -> None:
    """What a policy asks for is the code, not the words."""
    assert code in codes(build())


@pytest.mark.parametrize("name", SMALL)
def test_no_file_cut_short_is_clean(name: str) -> None:
    """INVARIANT I18: at every byte from the eighth on (less is a word of text)."""
    data = SMALL[name]
    assert [size for size in range(8, len(data)) if scanned(data[:size]).verdict is Verdict.CLEAN] == []


@pytest.mark.parametrize("name", sorted(set(WRITTEN) - set(SMALL)))
def test_no_large_file_cut_short_is_clean(name: str) -> None:
    """The same for the larger ones, at every 61st byte."""
    data = WRITTEN[name]
    assert [size for size in range(0, len(data), 61) if scanned(data[:size]).verdict is Verdict.CLEAN] == []


@pytest.mark.parametrize("seed", range(4))
def test_no_changed_file_raises(seed: int) -> None:
    """INVARIANT I18: bytes set, cut out and put in, at random; the answer is a verdict."""
    choose = random.Random(seed)
    files = sorted({**SMALL, **WRITTEN}.items())
    for _ in range(400):
        data = bytearray(choose.choice(files)[1])
        for _ in range(choose.randint(1, 4)):
            at = choose.randrange(len(data))
            cut = data[at : at + choose.choice([0, 1, 8])]
            data[at : at + len(cut)] = choose.choice(
                [b"", b"\0", b"\xff" * 4, bytes([choose.randrange(256)]), cut + cut]
            )
            if not data:
                break
        assert scanned(bytes(data)).verdict in Verdict


@pytest.mark.parametrize(
    "data", [b"\x08", b"\x08\x03", b"GGUF", b"PAR1", b"ARROW1", b"\xff\xff\xff\xff", b"\x89HDF\r\n\x1a\n"]
)
def test_a_signature_and_nothing_else_is_not_clean(data: bytes) -> None:
    """INVARIANT I18: the shortest files there are."""
    assert scanned(data).verdict is Verdict.UNKNOWN


def test_every_length_that_lies_is_seen() -> None:
    """Each byte of a Parquet footer that is a length or an offset, one more: the file is not clean."""
    data = parquet([(b"k", b"v")])
    for at in (data.index(page()) + 3, data.index(b"\x01k") + 0, data.index(b"root") - 1, len(data) - 8):
        changed = bytearray(data)
        changed[at] += 1
        assert scanned(bytes(changed)).verdict is not Verdict.CLEAN


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("parquet", ".gguf"), ("gguf", ".parquet"), ("onnx", ".h5"), ("arrow file", ".onnx"), ("keras", ".h5")],
)
def test_a_format_under_the_name_of_another_is_refused(name: str, suffix: str, tmp_path: Path) -> None:
    """INVARIANT I18: harmless in itself, and not what its name says."""
    (tmp_path / f"x{suffix}").write_bytes(GOOD[name])
    assert {reason.code for reason in scan_file(tmp_path / f"x{suffix}").reasons} == {"ckpt.format_spoof"}


def test_a_zip_with_a_comment_behind_other_data_is_a_polyglot() -> None:
    """INVARIANT I18: readers that look from the end find the archive, whatever stands behind it."""
    archive = zipped({"a.pkl": EVIL})
    for data in (archive + b"tail", archive[:-2] + b"\x04\0tail"):
        assert "ckpt.polyglot" in codes(npy(data, f"|S{len(data)}"))
    assert codes(npy(b"PK\x05\x06" + b"\0" * 20, "|S24")) == set()


def test_an_archive_as_the_last_member_of_a_tar_is_no_polyglot() -> None:
    """The twin: the member is looked at by itself, and HDF5 may begin where the first member does."""
    assert codes(tarred({"a.npy": npy(b"\0" * 8, "<f8"), "b.zip": zipped({"c.json": b"{}"})})) == set()
    assert codes(tarred({"default.h5": WRITTEN["default.h5"]})) == set()


@pytest.mark.parametrize(
    "code",
    [
        "{{ x.in['a' ~ 'b'] }}",
        "{{ x['__cla' 'x'] }}",
        "{% set length = y %}{{ x[length] }}",
        "{{ x|join(*y) }}",
        "{{ x|sort(attribute=y) }}",
        "{{ x|map(y) }}",
        "{{ '{}'.format(x) }}",
        "{{ lipsum.x }}",
        "{% raw %}{% endraw %}",
        "{% filter attr('x') %}{% endfilter %}",
        "{{ x._y }}",
        "{{ x['_y'] }}",
        "{# no end",
        "{{ ( ] }}",
        "{{ '\\x5' }}",
    ],
)
def test_a_template_that_computes_what_it_reaches_for_is_not_clean(code: str) -> None:
    """INVARIANT I18: only what is written out can be judged."""
    findings = Findings()
    check_template(code, findings)
    assert findings.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    "code", ["{{ x['__cla' 'ss__'] }}", "{{ x['_' '_class_' '_'] }}", "{{ x['__cl' ~ 'ass__'] }}", "{{ x.__class__ }}"]
)
def test_a_template_that_puts_the_name_together_is_hostile(code: str) -> None:
    """INVARIANT I18: texts beside each other are one name."""
    findings = Findings()
    check_template(code, findings)
    assert "ckpt.template_code" in {reason.code for reason in findings.reasons}


@pytest.mark.parametrize(
    "code",
    [
        "{{ messages[0]['role'] }}",
        "{{ x[loop.index0 - 1:] }}",
        "{% if x in ['a', 'b'] %}{% endif %}",
        "{{ x|selectattr('role', 'equalto', y)|list }}",
        "{{ x|map(attribute='content')|join(', ') }}",
        "{{ x|tojson(indent=4) }}",
        "{{ {'a': {'b': 1}} }}",
        "{# x.__class__ #}__init__",
        "{{ x.strip() }}",
        "{% macro m(x) -%}{{ x }}{%- endmacro %}",
        "{% for x in y recursive %}{{ loop(x) }}{% endfor %}",
    ],
)
def test_a_template_of_plain_data_is_clean(code: str) -> None:
    """The twin: what chat templates do."""
    findings = Findings()
    check_template(code, findings)
    assert findings.reasons == set()


def script(body: bytes) -> bytes:
    """What torch saves for a module whose forward is `body`; the pickle is that of an empty dictionary."""
    code = b"class M(Module):\n  def forward(self: __torch__.M, x: Tensor) -> Tensor:\n    " + body + b"\n"
    return zipped({"m/data.pkl": b"\x80\x02}.", "m/code/__torch__.py": code, "m/constants.pkl": b"\x80\x02)."})


@pytest.mark.parametrize("call", [b'torch.save(x, "/a")', b'torch.from_file("/a", True, 8)', b'ops.aten.save(x, "/a")'])
def test_script_that_opens_files_is_hostile(call: bytes) -> None:
    """torch itself registers two operators that take a file name."""
    assert codes(script(b"_0 = " + call)) == {"ckpt.torchscript", "ckpt.torchscript_file"}


def test_script_that_needs_a_library_says_which() -> None:
    """Its operators are that library's code; the harmless twin is TorchScript and no more."""
    assert codes(script(b"return ops.image.read_file(x)")) == {"ckpt.torchscript", "ckpt.torchscript_operator"}
    assert codes(script(b"return torch.linear(x, x, None)")) == {"ckpt.torchscript"}
    assert codes(script(b"return ops.prim.data(x)")) == {"ckpt.torchscript"}


@pytest.mark.parametrize("value", [[], {}, 1, True, None, [{"class_name": {}}]], ids=str)
def test_a_name_that_is_no_text_is_not_a_traceback(value: object) -> None:
    """INVARIANT I18: JSON puts anything where a name belongs."""
    for data in (
        keras({**layer("Dense"), "module": value, "registered_name": value, "class_name": value}),
        parquet([(b"huggingface", json.dumps({"_type": value}).encode())]),
        parquet([(b"avro.schema", json.dumps({"java-class": value}).encode())]),
    ):
        scanned(data)
    assert scanned(keras({**layer("Dense"), "class_name": [value]})).verdict is Verdict.UNKNOWN
