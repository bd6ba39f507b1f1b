"""Files that are not what they were."""

import onnx
from onnx import numpy_helper


def change(path, edit):
    """Load, edit in place, write back."""
    model = onnx.load(path)
    edit(model)
    path.write_bytes(model.SerializeToString())


def flip_one_code(model):
    (tensor,) = (t for t in model.graph.initializer if t.name == "2.weight")
    codes = numpy_helper.to_array(tensor).copy()
    codes[0, 0] = 1 if codes[0, 0] != 1 else 2
    tensor.CopyFrom(numpy_helper.from_array(codes, tensor.name))
