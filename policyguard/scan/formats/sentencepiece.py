"""SentencePiece models (`tokenizer.model` of Llama, T5 and others): reads every field of the protobuf.

    model = 1*piece trainer-spec normalizer-spec [ self-test ] [ denormalizer-spec ]

A model contains pieces of text with scores, its training settings and a table of characters. The processor reads no
other file: the paths in the training settings only say where the training data was.

Source: `sentencepiece_model.proto` of SentencePiece 0.2.
"""

from __future__ import annotations

from policyguard.scan.fact_sheets import parse_fields
from policyguard.scan.findings import Exhausted, Findings, LayoutProblem
from policyguard.scan.formats.varints import read_varint
from policyguard.scan.source import Source

MAX_BYTES = 64 * 2**20
_MAX_FIELDS = 8_000_000
_VARINT, _BYTES, _FIXED32 = 0, 2, 5

MESSAGES = parse_fields("""
Model: pieces Piece*, trainer_spec Trainer, normalizer_spec Normalizer, self_test_data SelfTest, denormalizer_spec
  Normalizer
Piece: piece bytes, score f32, type int
Trainer: input bytes*, model_prefix bytes, model_type int, vocab_size int, accept_language bytes*,
  self_test_sample_size int, input_format bytes, 10 character_coverage f32, input_sentence_size int,
  mining_sentence_size int, training_sentence_size int, seed_sentencepiece_size int, shrinking_factor f32, num_threads
  int, num_sub_iterations int, max_sentence_length int, shuffle_input_sentence int, max_sentencepiece_length int,
  split_by_unicode_script int, split_by_whitespace int, split_by_number int, treat_whitespace_as_suffix int,
  split_digits int, allow_whitespace_only_pieces int, 30 control_symbols bytes*, user_defined_symbols bytes*,
  vocabulary_output_piece_score int, hard_vocab_limit int, use_all_vocab int, byte_fallback int, required_chars bytes,
  40 unk_id int, bos_id int, eos_id int, pad_id int, unk_surface bytes, unk_piece bytes, bos_piece bytes, eos_piece
  bytes, pad_piece bytes, train_extremely_large_corpus int, enable_differential_privacy int, noise_level f32,
  clipping_threshold int, pretokenization_delimiter bytes, seed_sentencepieces_file bytes
Normalizer: name bytes, precompiled_charsmap bytes, add_dummy_prefix int, remove_extra_whitespaces int,
  escape_whitespaces int, normalization_rule_tsv bytes
SelfTest: samples Sample*
Sample: input bytes, expected bytes
""")


def is_sentencepiece(head: bytes) -> bool:
    """Recognise a first piece: its length, a text, and then a score, a type or its end."""
    if len(head) < 6 or head[0] != 0x0A or head[2] != 0x0A or not 2 <= head[1] < 128 or head[3] > head[1] - 2:
        return False
    behind_text, behind_piece = 4 + head[3], 2 + head[1]
    rest = head[behind_text:behind_piece]
    return rest[:1] in (b"", b"\x15", b"\x18") and head[behind_piece : behind_piece + 1] in (b"\x0a", b"\x12")


def scan_sentencepiece(source: Source, findings: Findings) -> str:
    """Scan a SentencePiece model; return `sentencepiece`.

    Raises:
        Exhausted: larger than any vocabulary.
    """
    if source.size > MAX_BYTES:
        raise Exhausted("ckpt.too_large", "a SentencePiece model")
    walk = _Walk(source.read(0, source.size), findings)
    try:
        seen = walk.message("Model", walk.short_pieces(), source.size)
        if not {2, 3} <= seen:
            raise LayoutProblem("no trainer or normalizer")
    except LayoutProblem as problem:
        findings.add("ckpt.sentencepiece_layout", str(problem))
    return "sentencepiece"


class _Walk:
    """Reads the messages of the protobuf and stores nothing of them."""

    def __init__(self, data: bytes, findings: Findings) -> None:
        self.data, self.findings, self.at, self.fields = data, findings, 0, 0

    def short_pieces(self) -> int:
        """Skip pieces in the form every trainer writes: a short text, a score, a type. Some files have 256,000."""
        data, at, last = self.data, 0, len(self.data) - 256
        while at < last and data[at] == 0x0A and data[at + 1] < 128 and data[at + 2] == 0x0A:
            rest, end = data[at + 1] - 2 - data[at + 3], at + 2 + data[at + 1]
            typed = rest == 7 and data[end - 2] == 0x18 and data[end - 1] < 128
            if not (typed or rest == 5) or data[end - rest] != 0x15:
                break
            at = end
        self.findings.check_time()
        return at

    def message(self, name: str, start: int, end: int) -> set[int]:
        """Read the message between two offsets; return the numbers of its fields."""
        fields, seen = MESSAGES[name], set[int]()
        self.at = start
        while self.at < end:
            self.fields += 1
            if not self.fields & 4095:
                self.findings.check_time()
            if self.fields > _MAX_FIELDS:
                raise Exhausted("ckpt.too_large", f"more than {_MAX_FIELDS} fields")
            tag = self.varint(end)
            number, wire = tag >> 3, tag & 7
            if number not in fields:
                raise LayoutProblem(f"field {number} of {name}")
            label, kind = fields[number]
            if number in seen and not kind.endswith("*"):
                raise LayoutProblem(f"{name}.{label} twice")
            seen.add(number)
            self.value(kind.removesuffix("*"), wire, end, f"{name}.{label}")
        return seen

    def varint(self, end: int) -> int:
        def byte() -> int:
            if self.at >= end:
                raise LayoutProblem("a number that leaves its message")
            self.at += 1
            return self.data[self.at - 1]

        return read_varint(byte(), byte)

    def value(self, kind: str, wire: int, end: int, where: str) -> None:
        if wire != {"int": _VARINT, "f32": _FIXED32}.get(kind, _BYTES):
            raise LayoutProblem(f"{where} of wire type {wire}")
        if wire == _VARINT:
            self.varint(end)
            return
        length = 4 if wire == _FIXED32 else self.varint(end)
        if length > end - self.at:
            raise LayoutProblem(f"{where} that leaves its message")
        stop = self.at + length
        if kind not in ("bytes", "f32"):
            self.message(kind, self.at, stop)
        self.at = stop
