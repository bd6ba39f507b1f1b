"""Files of every kind on every onnxruntime: what is written, what answers, and where."""
