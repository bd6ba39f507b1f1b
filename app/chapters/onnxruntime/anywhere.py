"""The lines that run an exported file on any machine: Python, numpy and onnxruntime, nothing of this repository."""


def answer(path: str, x: list[float]) -> list[float]:
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    batch = np.array(x, dtype=np.float32).reshape(-1, *entry.shape[1:])
    (y,) = session.run(None, {entry.name: batch})
    return [float(number) for number in y.ravel()]
