"""What is known of operations: how they treat the axis that units are on."""

from typing import Final

from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


EACH: Final = _words(
    "relu relu_ relu6 gelu tanh tanh_ sigmoid sigmoid_ silu elu selu celu leaky_relu hardtanh hardswish hardsigmoid "
    "mish softplus logsigmoid dropout dropout1d dropout2d dropout3d alpha_dropout contiguous clone detach float double "
    "half to type_as abs exp neg square sqrt pow clamp clamp_ sin cos erf"
)
"""Functions and methods that take each entry for itself."""

MEETING: Final = _words("add add_ iadd sub sub_ isub mul mul_ imul truediv div div_ maximum minimum")
SPATIAL: Final = frozenset(
    f"{kind}_pool{sides}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max", "lp") for sides in (1, 2, 3)
) | {"interpolate", "pad"}
RESHAPING: Final = _words("flatten reshape view squeeze unsqueeze view_as")
REDUCING: Final = _words("mean sum amax amin")
MIXING: Final = _words(
    "cat concat stack chunk split unbind matmul bmm einsum softmax log_softmax layer_norm group_norm rms_norm "
    "normalize scaled_dot_product_attention baddbmm cumsum argmax max min sort topk"
)

EACH_MODULES: Final = (
    nn.ReLU, nn.ReLU6, nn.GELU, nn.Tanh, nn.Sigmoid, nn.SiLU, nn.ELU, nn.SELU, nn.CELU, nn.LeakyReLU, nn.Hardtanh,
    nn.Hardswish, nn.Hardsigmoid, nn.Mish, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Identity, nn.Dropout,
    nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Threshold, nn.Hardshrink,
    nn.Softshrink, nn.Tanhshrink,
)  # fmt: skip
SPATIAL_MODULES: Final = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.LPPool1d, nn.LPPool2d, nn.Upsample, nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ConstantPad2d,
)  # fmt: skip
MIXING_MODULES: Final = (
    nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm, nn.Softmax, nn.LogSoftmax, nn.Softmax2d,
    nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.Embedding, nn.EmbeddingBag, nn.Bilinear, nn.RNNBase,
    _ConvTransposeNd,
)  # fmt: skip
