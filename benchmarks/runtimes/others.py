"""What else runs ONNX files: onnx's own reference in numpy, and OpenVINO. Each makes a function of a file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Answer = Callable[[NDArray[np.generic]], NDArray[np.generic]]


def reference(path: Path) -> Answer:
    import onnx
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(onnx.load(path))

    def answer(x: NDArray[np.generic]) -> NDArray[np.generic]:
        (y,) = evaluator.run(None, {evaluator.input_names[0]: x})
        return np.asarray(y)

    return answer


def openvino(path: Path) -> Answer:
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": 1})

    def answer(x: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.asarray(compiled([x])[0])

    return answer


OTHERS = {"reference": reference, "openvino": openvino}
