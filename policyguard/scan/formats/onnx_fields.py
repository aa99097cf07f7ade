"""The messages of `onnx.proto`, IR version 13: number, name and kind of every field. A table, not code.

A kind that ends in `*` can be repeated; `int` is a varint, `f32` and `f64` are fixed, `bytes` is text or data, and any
other kind is a message.
"""

from __future__ import annotations

from collections.abc import Mapping

from policyguard.scan.fact_sheets import names, parse_fields

Fields = Mapping[int, tuple[str, str]]

MESSAGES: Mapping[str, Fields] = parse_fields("""
Model: ir_version int, producer_name bytes, producer_version bytes, domain bytes, model_version int, doc bytes, graph
  Graph, opset_import OperatorSet*, 14 notes Note*, 20 training_info Training*, 25 functions Function*, configuration
  Device*
Graph: node Node*, name bytes, 5 initializer Tensor*, 10 doc bytes, input ValueInfo*, output ValueInfo*, value_info
  ValueInfo*, quantization Annotation*, sparse_initializer SparseTensor*, notes Note*
Node: input bytes*, output bytes*, name bytes, op_type bytes, attribute Attribute*, doc bytes, domain bytes, overload
  bytes, notes Note*, devices NodeDevice*
Attribute: name bytes, f f32, i int, s bytes, t Tensor, g Graph, floats f32*, ints int*, strings bytes*, tensors
  Tensor*, graphs Graph*, 13 doc bytes, tp Type, type_protos Type*, 20 type int, ref_attr_name bytes, sparse_tensor
  SparseTensor, sparse_tensors SparseTensor*
Tensor: dims int*, data_type int, segment Segment, float_data f32*, int32_data int*, string_data bytes*, int64_data
  int*, name bytes, raw_data bytes, double_data f64*, uint64_data int*, doc bytes, external_data Note*, data_location
  int, 16 notes Note*
SparseTensor: values Tensor, indices Tensor, dims int*
Segment: begin int, end int
Function: name bytes, 4 input bytes*, output bytes*, attribute bytes*, node Node*, doc bytes, opset_import
  OperatorSet*, domain bytes, attribute_proto Attribute*, value_info ValueInfo*, overload bytes, notes Note*
Training: initialization Graph, algorithm Graph, initialization_binding Note*, update_binding Note*
ValueInfo: name bytes, type Type, doc bytes, notes Note*
Type: tensor TensorType, 4 sequence Wrapped, map MapType, denotation bytes, opaque Opaque, sparse_tensor TensorType,
  optional Wrapped
TensorType: elem_type int, shape Shape
Wrapped: elem_type Type
MapType: key_type int, value_type Type
Opaque: domain bytes, name bytes
Shape: dim Dimension*
Dimension: value int, param bytes, denotation bytes
Annotation: tensor_name bytes, quantization Note*
OperatorSet: domain bytes, version int
Note: key bytes, value bytes
Device: name bytes, num_devices int, device bytes*
NodeDevice: configuration_id bytes, sharding_spec Sharding*, pipeline_stage int
Sharding: tensor_name bytes, device int*, index_to_group IntList*, sharded_dim ShardedDim*
IntList: key int, value int*
ShardedDim: axis int, simple SimpleSharding*
SimpleSharding: dim_value int, dim_param bytes, num_shards int
""")

OWN_DOMAINS = frozenset(
    {
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.preview",
        "ai.onnx.preview.training",
        "ai.onnx.training",
        "com.microsoft.nchwc",
        "com.ms.internal.nhwc",
    }
)
"""Domains whose operators compute and nothing else: ONNX's own, and the layouts that onnxruntime rewrites to."""

CONTRIBUTED = names("""
    Attention AttnLSTM BeamSearch BiasAdd BiasDropout BiasGelu BiasSoftmax BiasSplitGelu BifurcationDetector
    BitmaskBiasDropout BitmaskDropout CDist CausalConvWithState ComplexMul ComplexMulConj ConvTransposeWithDynamicPads
    CropAndResize DecoderAttention DecoderMaskedMultiHeadAttention DecoderMaskedSelfAttention DequantizeBFP
    DequantizeLinear DequantizeWithOrder DynamicQuantizeLSTM DynamicQuantizeMatMul DynamicTimeWarping
    EmbedLayerNormalization EngramGate ExpandDims FastGelu FusedConv FusedGemm FusedMatMul FusedMatMulActivation
    GatedAdd GatedDeltaNet GatedRMSNorm GatedRelativePositionBias GatherBlockQuantized GatherND Gelu GemmFastGelu
    GemmFloat8 GemmaRotaryEmbedding GreedySearch GridSample GroupNorm GroupQueryAttention Inverse Irfft IsAllFinite
    LinearAttention LinearAttentionGate LongformerAttention MRotaryEmbedding MatMulBlockQuantizedFp4Weight
    MatMulBlockQuantizedFp8Weight MatMulBnb4 MatMulFpQ4 MatMulInteger16 MatMulIntegerToFloat MatMulNBits MatMulNBitsMlp
    MatMulNBitsQkv MaxpoolWithMask MoE MulInteger MultiHeadAttention MurmurHash3 NGramHashMapping NGramRepeatBlock
    NhwcConv NhwcFusedConv NhwcMaxPool PackedAttention PackedMultiHeadAttention Pad PagedAttention QAttention
    QEmbedLayerNormalization QGemm QLinearAdd QLinearAveragePool QLinearConcat QLinearConv QLinearGlobalAveragePool
    QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere QMoE QOrderedAttention
    QOrderedGelu QOrderedLayerNormalization QOrderedLongformerAttention QOrderedMatMul QuantizeBFP QuantizeLinear
    QuantizeWithOrder QuickGelu Range ReduceSumInteger RelativePositionBias RemovePadding RestorePadding Rfft
    RotaryEmbedding Sampling SkipGroupNorm SkipLayerNormalization SkipSimplifiedLayerNormalization SparseAttention
    SparseToDenseMatMul Tokenizer TorchEmbedding TransposeMatMul Trilu UnfoldTensor Unique VarlenCausalConvWithState
    VarlenNGramHashMapping WhisperBeamSearch WordConvEmbedding
""")
"""Operators of `com.microsoft` that compute and nothing else; not `EPContext` and `Snpe`, which load compiled code or
name a file, nor `PythonOp` and `ATen`, which call what a process has registered."""
