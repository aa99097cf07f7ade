"""The three verdicts, and every reason code with its verdict and explanation."""

from __future__ import annotations

import enum


class Verdict(enum.StrEnum):
    """The three verdicts, ordered: a file is as bad as its worst part."""

    CLEAN = "clean"
    UNKNOWN = "unknown"
    HOSTILE = "hostile"


_UNKNOWN = {
    "ckpt.archive_broken": "the archive does not parse",
    "ckpt.archive_crc": "a member does not match its checksum",
    "ckpt.archive_encrypted": "a member is encrypted",
    "ckpt.archive_gap": "bytes before, between or after the members belong to no member",
    "ckpt.archive_member": "a member is nothing that this format stores",
    "ckpt.archive_name": "a member whose name readers may read differently",
    "ckpt.arrow_extension": "a column type that a library defines and no list names",
    "ckpt.arrow_layout": "the Arrow messages do not fit together",
    "ckpt.changed": "the file changed while it was read",
    "ckpt.code_file": "the file is source code or an executable, not a checkpoint",
    "ckpt.compression_unknown": "compressed in a way that is not read here",
    "ckpt.dataset_feature": "a dataset feature that is no class of its library's list",
    "ckpt.empty": "the file is empty",
    "ckpt.external_data": "the data lies in another file, which this one only names",
    "ckpt.format_opaque": "a known format that can carry code and is not read further",
    "ckpt.format_unknown": "no format that is known here",
    "ckpt.gguf_layout": "the parts of the GGUF file do not fit together",
    "ckpt.hdf5_layout": "the structures of the HDF5 file do not hold or are not read here",
    "ckpt.hdf5_pickles": "holds pickled objects that are not read here",
    "ckpt.hdf5_plugin": "data that is unpacked by a library loaded for it",
    "ckpt.keras_class": "a Keras class that is on no list",
    "ckpt.keras_config": "a Keras configuration that does not parse",
    "ckpt.metadata_binary": "a metadata value that is not what its key promises",
    "ckpt.missing": "there is no such file",
    "ckpt.not_regular": "not a regular file",
    "ckpt.npy_header": "the array header does not hold",
    "ckpt.numpy_dtype": "an array or dtype of numpy that is computed or not read here",
    "ckpt.onnx_layout": "the messages of the ONNX model do not fit together",
    "ckpt.onnx_operator": "an ONNX operator that is on no list needs a library of its own",
    "ckpt.parquet_layout": "the parts of the Parquet file do not fit together",
    "ckpt.pickle_broken": "the pickle does not parse to its end",
    "ckpt.pickle_buffer": "the pickle asks for buffers that are not in the file",
    "ckpt.pickle_expansion": "the pickle is small and its objects are enormous",
    "ckpt.pickle_name": "named like a pickle, and not read as one",
    "ckpt.pickle_number": "a number of the pickle is written so that interpreters differ about it",
    "ckpt.pickle_persistent_id": "the pickle asks its reader for objects this format does not have",
    "ckpt.pickle_sequence": "more than one pickle in a file of one",
    "ckpt.pickle_state": "the pickle treats an object as something else than it is",
    "ckpt.pickle_unlisted": "the pickle names a class on no list; `--class`, a manifest or an approval accepts it",
    "ckpt.pickle_unresolved": "the pickle computes the name of what it imports",
    "ckpt.safetensors_header": "the safetensors header does not hold",
    "ckpt.sentencepiece_layout": "the parts of the SentencePiece model do not fit together",
    "ckpt.skops_class": "a skops model that imports a class on no list",
    "ckpt.skops_schema": "a skops schema that does not parse",
    "ckpt.sparse_index": "the indexes of a sparse or nested tensor lead outside, or are not read",
    "ckpt.symlink": "a symbolic link that leaves the scanned folder",
    "ckpt.target_unlisted": "the configuration names a library's function to call",
    "ckpt.template_unread": "a chat template that computes what it reaches for",
    "ckpt.timeout": "the scan took longer than it may",
    "ckpt.too_compressed": "decompresses to suspiciously much",
    "ckpt.too_deep": "archives nested deeper than is read",
    "ckpt.too_large": "more data, members or opcodes than is read",
    "ckpt.torchscript": "the archive carries TorchScript code",
    "ckpt.torchscript_operator": "TorchScript code that needs a library of its own",
    "ckpt.trailing_bytes": "bytes after the end of the data",
    "ckpt.truncated": "the file ends before its data does",
    "ckpt.unreadable": "the file cannot be opened or read",
    "hub.foreign_code": "the configuration takes code from another repository",
    "hub.own_code": "the configuration names code that comes with the model",
    "hub.remote_kernels": "the configuration fetches kernels by name",
}
_HOSTILE = {
    "ckpt.archive_duplicate": "two members share one name, readers differ in which they load",
    "ckpt.archive_link": "a member is a link or a device",
    "ckpt.archive_mismatch": "the archive describes one member in two ways",
    "ckpt.archive_path": "a member's name leaves the folder it is unpacked to",
    "ckpt.arrow_mismatch": "the footer of the Arrow file names other data than its messages",
    "ckpt.arrow_unpickled": "a column type that readers unpickle",
    "ckpt.export_call": "an exported program that calls a function of Python's modules",
    "ckpt.external_path": "names a file outside of its folder",
    "ckpt.format_spoof": "the name says a data-only format, the content is another",
    "ckpt.java_class": "names a Java class that a reader instantiates",
    "ckpt.keras_lambda": "a Keras layer that carries Python bytecode",
    "ckpt.keras_module": "a Keras configuration that imports what can run code",
    "ckpt.metadata_duplicate": "one key twice, readers differ in which they believe",
    "ckpt.numpy_pointer": "a numpy dtype or array that makes numpy read the bytes of the file as addresses",
    "ckpt.pickle_build": "the pickle changes a class or function instead of an object",
    "ckpt.pickle_extension": "the pickle imports by number from the extension registry",
    "ckpt.pickle_frame": "an argument reaches over the end of its frame, readers differ in what follows",
    "ckpt.pickle_global": "the pickle imports a function or class that can run code",
    "ckpt.pickle_indirect_call": "the pickle calls something that is no import",
    "ckpt.pickle_reader": "the pickle hands bytes to a second unpickler where they cannot be followed",
    "ckpt.polyglot": "the same bytes are also a file of another format",
    "ckpt.second_opinion": "another scanner, asked as well, finds an import that can run code",
    "ckpt.skops_call": "a skops model that imports a function that can run code",
    "ckpt.storage_mismatch": "a tensor claims more or less data than its storage has",
    "ckpt.target_call": "the configuration names a function to call that can run code",
    "ckpt.template_code": "a chat template reaches for the interpreter",
    "ckpt.torchscript_file": "TorchScript code that reads or writes files",
}
REASONS: dict[str, tuple[Verdict, str]] = {
    **{code: (Verdict.UNKNOWN, text) for code, text in _UNKNOWN.items()},
    **{code: (Verdict.HOSTILE, text) for code, text in _HOSTILE.items()},
}
"""Every reason code, the verdict it forces, and what it says; `docs/scan.md` lists the same."""
