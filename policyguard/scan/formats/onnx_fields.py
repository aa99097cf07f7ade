"""The messages of `onnx.proto`, IR version 13: number, name and kind of every field. A fact sheet, not code.

A kind that ends in `*` may come more than once; `int` is a varint, `f32` and `f64` are fixed, `bytes` is text or data,
anything else a message.
"""

from __future__ import annotations

from collections.abc import Mapping

Fields = Mapping[int, tuple[str, str]]

_NOTES = ("notes", "Note*")
MESSAGES: Mapping[str, Fields] = {
    "Model": {
        1: ("ir_version", "int"), 2: ("producer_name", "bytes"), 3: ("producer_version", "bytes"),
        4: ("domain", "bytes"), 5: ("model_version", "int"), 6: ("doc", "bytes"), 7: ("graph", "Graph"),
        8: ("opset_import", "OperatorSet*"), 14: _NOTES, 20: ("training_info", "Training*"),
        25: ("functions", "Function*"), 26: ("configuration", "Device*"),
    },
    "Graph": {
        1: ("node", "Node*"), 2: ("name", "bytes"), 5: ("initializer", "Tensor*"), 10: ("doc", "bytes"),
        11: ("input", "ValueInfo*"), 12: ("output", "ValueInfo*"), 13: ("value_info", "ValueInfo*"),
        14: ("quantization", "Annotation*"), 15: ("sparse_initializer", "SparseTensor*"), 16: _NOTES,
    },
    "Node": {
        1: ("input", "bytes*"), 2: ("output", "bytes*"), 3: ("name", "bytes"), 4: ("op_type", "bytes"),
        5: ("attribute", "Attribute*"), 6: ("doc", "bytes"), 7: ("domain", "bytes"), 8: ("overload", "bytes"),
        9: _NOTES, 10: ("devices", "NodeDevice*"),
    },
    "Attribute": {
        1: ("name", "bytes"), 2: ("f", "f32"), 3: ("i", "int"), 4: ("s", "bytes"), 5: ("t", "Tensor"),
        6: ("g", "Graph"), 7: ("floats", "f32*"), 8: ("ints", "int*"), 9: ("strings", "bytes*"),
        10: ("tensors", "Tensor*"), 11: ("graphs", "Graph*"), 13: ("doc", "bytes"), 14: ("tp", "Type"),
        15: ("type_protos", "Type*"), 20: ("type", "int"), 21: ("ref_attr_name", "bytes"),
        22: ("sparse_tensor", "SparseTensor"), 23: ("sparse_tensors", "SparseTensor*"),
    },
    "Tensor": {
        1: ("dims", "int*"), 2: ("data_type", "int"), 3: ("segment", "Segment"), 4: ("float_data", "f32*"),
        5: ("int32_data", "int*"), 6: ("string_data", "bytes*"), 7: ("int64_data", "int*"), 8: ("name", "bytes"),
        9: ("raw_data", "bytes"), 10: ("double_data", "f64*"), 11: ("uint64_data", "int*"), 12: ("doc", "bytes"),
        13: ("external_data", "Note*"), 14: ("data_location", "int"), 16: _NOTES,
    },
    "SparseTensor": {1: ("values", "Tensor"), 2: ("indices", "Tensor"), 3: ("dims", "int*")},
    "Segment": {1: ("begin", "int"), 2: ("end", "int")},
    "Function": {
        1: ("name", "bytes"), 4: ("input", "bytes*"), 5: ("output", "bytes*"), 6: ("attribute", "bytes*"),
        7: ("node", "Node*"), 8: ("doc", "bytes"), 9: ("opset_import", "OperatorSet*"), 10: ("domain", "bytes"),
        11: ("attribute_proto", "Attribute*"), 12: ("value_info", "ValueInfo*"), 13: ("overload", "bytes"), 14: _NOTES,
    },
    "Training": {
        1: ("initialization", "Graph"), 2: ("algorithm", "Graph"), 3: ("initialization_binding", "Note*"),
        4: ("update_binding", "Note*"),
    },
    "ValueInfo": {1: ("name", "bytes"), 2: ("type", "Type"), 3: ("doc", "bytes"), 4: _NOTES},
    "Type": {
        1: ("tensor", "TensorType"), 4: ("sequence", "Wrapped"), 5: ("map", "MapType"), 6: ("denotation", "bytes"),
        7: ("opaque", "Opaque"), 8: ("sparse_tensor", "TensorType"), 9: ("optional", "Wrapped"),
    },
    "TensorType": {1: ("elem_type", "int"), 2: ("shape", "Shape")},
    "Wrapped": {1: ("elem_type", "Type")},
    "MapType": {1: ("key_type", "int"), 2: ("value_type", "Type")},
    "Opaque": {1: ("domain", "bytes"), 2: ("name", "bytes")},
    "Shape": {1: ("dim", "Dimension*")},
    "Dimension": {1: ("value", "int"), 2: ("param", "bytes"), 3: ("denotation", "bytes")},
    "Annotation": {1: ("tensor_name", "bytes"), 2: ("quantization", "Note*")},
    "OperatorSet": {1: ("domain", "bytes"), 2: ("version", "int")},
    "Note": {1: ("key", "bytes"), 2: ("value", "bytes")},
    "Device": {1: ("name", "bytes"), 2: ("num_devices", "int"), 3: ("device", "bytes*")},
    "NodeDevice": {1: ("configuration_id", "bytes"), 2: ("sharding_spec", "Sharding*"), 3: ("pipeline_stage", "int")},
    "Sharding": {
        1: ("tensor_name", "bytes"), 2: ("device", "int*"), 3: ("index_to_group", "IntList*"),
        4: ("sharded_dim", "ShardedDim*"),
    },
    "IntList": {1: ("key", "int"), 2: ("value", "int*")},
    "ShardedDim": {1: ("axis", "int"), 2: ("simple", "SimpleSharding*")},
    "SimpleSharding": {1: ("dim_value", "int"), 2: ("dim_param", "bytes"), 3: ("num_shards", "int")},
}  # fmt: skip

OWN_DOMAINS = frozenset({
    "", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training", "ai.onnx.training",
    "com.microsoft.nchwc", "com.ms.internal.nhwc",
})  # fmt: skip
"""Domains whose operators compute and nothing else: ONNX's own, and the layouts that onnxruntime rewrites to."""

CONTRIBUTED = frozenset({
    "Attention", "AttnLSTM", "BeamSearch", "BiasAdd", "BiasDropout", "BiasGelu", "BiasSoftmax", "BiasSplitGelu",
    "BifurcationDetector", "BitmaskBiasDropout", "BitmaskDropout", "CDist", "CausalConvWithState", "ComplexMul",
    "ComplexMulConj", "ConvTransposeWithDynamicPads", "CropAndResize", "DecoderAttention",
    "DecoderMaskedMultiHeadAttention", "DecoderMaskedSelfAttention", "DequantizeBFP", "DequantizeLinear",
    "DequantizeWithOrder", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "DynamicTimeWarping",
    "EmbedLayerNormalization", "EngramGate", "ExpandDims", "FastGelu", "FusedConv", "FusedGemm", "FusedMatMul",
    "FusedMatMulActivation", "GatedAdd", "GatedDeltaNet", "GatedRMSNorm", "GatedRelativePositionBias",
    "GatherBlockQuantized", "GatherND", "Gelu", "GemmFastGelu", "GemmFloat8", "GemmaRotaryEmbedding", "GreedySearch",
    "GridSample", "GroupNorm", "GroupQueryAttention", "Inverse", "Irfft", "IsAllFinite", "LinearAttention",
    "LinearAttentionGate", "LongformerAttention", "MRotaryEmbedding", "MatMulBlockQuantizedFp4Weight",
    "MatMulBlockQuantizedFp8Weight", "MatMulBnb4", "MatMulFpQ4", "MatMulInteger16", "MatMulIntegerToFloat",
    "MatMulNBits", "MatMulNBitsMlp", "MatMulNBitsQkv", "MaxpoolWithMask", "MoE", "MulInteger", "MultiHeadAttention",
    "MurmurHash3", "NGramHashMapping", "NGramRepeatBlock", "NhwcConv", "NhwcFusedConv", "NhwcMaxPool",
    "PackedAttention", "PackedMultiHeadAttention", "Pad", "PagedAttention", "QAttention", "QEmbedLayerNormalization",
    "QGemm", "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearConv", "QLinearGlobalAveragePool",
    "QLinearLeakyRelu", "QLinearMul", "QLinearReduceMean", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QMoE",
    "QOrderedAttention", "QOrderedGelu", "QOrderedLayerNormalization", "QOrderedLongformerAttention",
    "QOrderedMatMul", "QuantizeBFP", "QuantizeLinear", "QuantizeWithOrder", "QuickGelu", "Range", "ReduceSumInteger",
    "RelativePositionBias", "RemovePadding", "RestorePadding", "Rfft", "RotaryEmbedding", "Sampling", "SkipGroupNorm",
    "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SparseAttention", "SparseToDenseMatMul",
    "Tokenizer", "TorchEmbedding", "TransposeMatMul", "Trilu", "UnfoldTensor", "Unique", "VarlenCausalConvWithState",
    "VarlenNGramHashMapping", "WhisperBeamSearch", "WordConvEmbedding",
})  # fmt: skip
"""Operators of `com.microsoft` that compute and nothing else; not `EPContext` and `Snpe`, which load compiled code or
name a file, nor `PythonOp` and `ATen`, which call what a process has registered."""
