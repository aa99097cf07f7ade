"""Keras configurations: the classes a model is rebuilt from, each by name; a Lambda layer brings Python bytecode.

Keras builds whatever its configuration names: `module` and `class_name` were imported from anywhere before 3.9
(CVE-2025-1550), functions of Keras itself fetch and write files (CVE-2025-8747), and a Lambda layer holds marshalled
code (CVE-2024-3660).

Source: the Keras 3 serialization library and the Keras 2 HDF5 format; the lists are Keras' public classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from policyguard.evidence.checkpoint_report import Findings, Verdict
from policyguard.evidence.pickle_allowlist import judged

MAX_CONFIG = 64 * 2**20
_CODE = {"Lambda", "__lambda__"}
_MODULES = {
    "keras", "keras.activations", "keras.constraints", "keras.dtype_policies", "keras.initializers", "keras.layers",
    "keras.losses", "keras.metrics", "keras.models", "keras.optimizers", "keras.optimizers.schedules",
    "keras.quantizers", "keras.random", "keras.regularizers",
}  # fmt: skip
_OPERATIONS = tuple(f"keras.src.ops.{name}" for name in ("image", "linalg", "math", "nn", "numpy"))
"""Modules of operations on tensors; not `core`, whose operations take functions."""
_CLASSES = frozenset(
    (
        # models and what holds them together
        "Functional Model Sequential InputLayer Input DTypePolicy QuantizedDTypePolicy QuantizedFloat8DTypePolicy "
        "FloatDTypePolicy DTypePolicyMap Policy SeedGenerator __tensor__ __numpy__ __keras_tensor__ __ellipsis__ "
        "__slice__ __tuple__ TensorShape "
        # layers
        "Activation ActivityRegularization Add AdditiveAttention AlphaDropout Attention AugMix AutoContrast Average "
        "AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization Bidirectional CategoryEncoding "
        "CenterCrop Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D "
        "ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D Cropping3D CutMix Dense DepthwiseConv1D DepthwiseConv2D "
        "Discretization Dot Dropout ELU EinsumDense Embedding Equalization Flatten GELU GRU GRUCell GaussianDropout "
        "GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D "
        "GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention HashedCrossing Hashing Identity "
        "IntegerLookup LSTM LSTMCell LayerNormalization LeakyReLU Masking MaxNumBoundingBoxes MaxPooling1D "
        "MaxPooling2D MaxPooling3D Maximum MelSpectrogram Minimum MixUp MultiHeadAttention Multiply Normalization "
        "PReLU Permute Pipeline RMSNormalization RNN RandAugment RandomBrightness RandomColorDegeneration "
        "RandomColorJitter RandomContrast RandomCrop RandomErasing RandomFlip RandomGrayscale RandomHeight RandomHue "
        "RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness "
        "RandomShear RandomTranslation RandomWidth RandomZoom ReLU RepeatVector Rescaling Reshape Resizing "
        "ReversibleEmbedding STFTSpectrogram SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell Softmax "
        "Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells "
        "StringLookup Subtract TextVectorization ThresholdedReLU TimeDistributed UnitNormalization UpSampling1D "
        "UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D "
        # initializers, regularizers, constraints
        "Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer LecunNormal LecunUniform "
        "Ones OrthogonalInitializer Orthogonal RandomNormal RandomUniform STFT TruncatedNormal VarianceScaling Zeros "
        "L1 L2 L1L2 OrthogonalRegularizer MaxNorm MinMaxNorm NonNeg UnitNorm "
        # optimizers, schedules
        "Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lamb Lion LossScaleOptimizer Muon Nadam RMSprop SGD "
        "CosineDecay CosineDecayRestarts ExponentialDecay InverseTimeDecay PiecewiseConstantDecay PolynomialDecay "
        # losses, metrics
        "AUC Accuracy BinaryAccuracy BinaryCrossentropy BinaryFocalCrossentropy BinaryIoU CTC CategoricalAccuracy "
        "CategoricalCrossentropy CategoricalFocalCrossentropy CategoricalHinge Circle CosineSimilarity Dice "
        "F1Score FBetaScore FalseNegatives FalsePositives Hinge Huber IoU KLDivergence LogCosh LogCoshError Mean "
        "MeanAbsoluteError MeanAbsolutePercentageError MeanIoU MeanMetricWrapper MeanSquaredError "
        "MeanSquaredLogarithmicError OneHotIoU OneHotMeanIoU Poisson Precision PrecisionAtRecall R2Score Recall "
        "RecallAtPrecision RootMeanSquaredError SensitivityAtSpecificity SparseCategoricalAccuracy "
        "SparseCategoricalCrossentropy SparseTopKCategoricalAccuracy SpecificityAtSensitivity SquaredHinge Sum "
        "TopKCategoricalAccuracy TrueNegatives TruePositives Tversky"
    ).split()
)
"""Not listed although Keras has them: `Lambda` (code), `TorchModuleWrapper` (a pickle), `TFSMLayer` (a file),
`JaxLayer`, `FlaxLayer`, `TFOpLambda` and `SlicingOpLambda` (functions by name)."""


def check_config_text(data: bytes, findings: Findings) -> None:
    """Findings hold what rebuilding this configuration would run or read."""
    if len(data) > MAX_CONFIG:
        findings.add("ckpt.too_large", "a Keras configuration")
        return
    try:
        config = json.loads(data)
    except (ValueError, RecursionError):
        findings.add("ckpt.keras_config", "no JSON")
        return
    if not isinstance(config, dict):
        findings.add("ckpt.keras_config", "no map")
    for item in _maps(config):
        _check(item, findings)


def _maps(config: object) -> Iterator[dict[str, object]]:
    pending = [config]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield item
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _check(item: dict[str, object], findings: Findings) -> None:
    # INVARIANT I212: a class that a configuration names is on the list, or the model is not clean.
    name, module, registered = item.get("class_name"), item.get("module"), item.get("registered_name")
    if name in _CODE:
        findings.add("ckpt.keras_lambda", str(name))
    elif module is not None and module not in _MODULES and not _is_own(item):
        custom = (module, name) == ("builtins", "function") or judged(str(module), str(name)) is Verdict.UNKNOWN
        findings.add("ckpt.keras_class" if custom else "ckpt.keras_module", f"{module}.{name}")
    elif "class_name" in item and name not in _CLASSES:
        findings.add("ckpt.keras_class", str(name))
    if registered is not None and registered != name:
        findings.add("ckpt.keras_class", str(registered))
    if any(isinstance(item.get(key), str) and item.get(key) for key in ("vocabulary", "idf_weights", "filepath")):
        findings.add("ckpt.external_data", "a vocabulary or a model in another file")


def _is_own(item: dict[str, object]) -> bool:
    """Keras' own classes below `keras.src`, and values of builtin types, which it restores without an import."""
    module, name = str(item.get("module")), item.get("class_name")
    is_operation = module.startswith(_OPERATIONS) and str(name)[:1].isupper() and str(name).isidentifier()
    return is_operation or (module.startswith(("keras.src.", "keras.engine.", "builtins")) and name in _CLASSES)
