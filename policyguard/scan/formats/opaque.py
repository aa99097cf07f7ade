"""Formats that are recognised and not read further, because what reads them can run code: never clean.

R restores promises and byte code from its data (CVE-2024-27322); XML names files, extensions and entities; TensorFlow
Lite, CatBoost and MATLAB files are read by parsers of their own.
"""

from __future__ import annotations

import re

_R_DATA = re.compile(rb"(?:RD[XAB][23]\n|[XB]\n\0\0\0[\2\3]|A\n[23]\n\d+\n\d+\n)")
_XML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml|<!DOCTYPE(?!\s+html\b)|<(?:PMML|net|mujoco|robot|sdf|svg|MiningSchema)[\s>])",
    re.IGNORECASE,
)
MATLAB = (b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file")


def is_r_data(head: bytes) -> bool:
    """Return True for what `saveRDS` and `save` of R write, binary or as text."""
    return _R_DATA.match(head) is not None


def is_xml(head: bytes) -> bool:
    """Return True for XML that is no page: with its declaration, a document type, or a root that model formats have."""
    return _XML.match(head) is not None


def is_tflite(head: bytes) -> bool:
    """Return True for the flatbuffer of TensorFlow Lite."""
    return head[4:8] == b"TFL3"
