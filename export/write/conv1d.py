"""GPT-2's linear layer as any other: onnxruntime leaves a Gemm alone and rounds the input of a MatMul on its own."""

from torch import Tensor, nn

from qat_core.layers import QuantConv1D, QuantLinear, quantized_layers


def as_linear(converted: nn.Module) -> nn.Module:
    """Turn each QuantConv1D of a converted model, in place, into the QuantLinear of the same numbers.

    Not where groups share a scale: they lie along the outputs, and a Linear's along the inputs.
    """
    turned: dict[Tensor, nn.Parameter] = {}
    for _, layer in quantized_layers(converted):
        if not isinstance(layer, QuantConv1D) or layer.weight_quantizer.spec.granularity == "per_group":
            continue
        weight = layer.latent("weight")
        if weight not in turned:
            turned[weight] = nn.Parameter(weight.T.contiguous(), requires_grad=False)
            for buffer in layer.weight_quantizer.source.buffers():
                if buffer.dim() == 2:  # (1, out) -> (out, 1)
                    buffer.data = buffer.T.contiguous()
        layer.__class__ = QuantLinear  # type: ignore[assignment]
        layer._parameters["weight"] = turned[weight]
        outputs, inputs = turned[weight].shape
        layer.__dict__ |= {"in_features": inputs, "out_features": outputs}
    return converted
