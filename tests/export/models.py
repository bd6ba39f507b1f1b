"""Small models of every kind of layer, and what is asked of each file."""

import onnx
import onnxruntime as ort
import torch
from torch import nn

from export import check_parity, export_onnx
from export.read.distance import output_range
from qat_core import QATConfig, QuantSpec, calibrate, prepare

A8 = QuantSpec.activation()
W4, W4A8 = QATConfig(), QATConfig(activation=A8)
GROUPS = QATConfig(QuantSpec(granularity="per_group", group_size=5))


def prepared(model, config, inputs):
    """A prepared model whose activation quantizers have seen the inputs."""
    return calibrate(prepare(model, config), [inputs]).eval()


def export_and_compare(model, config, inputs, path, other_inputs, **options):
    """Export on one batch, compare on another; returns the prepared model."""
    model = prepared(model, config, inputs)
    export_onnx(model, inputs, path, **options)
    report = check_parity(model, path, other_inputs)
    report.raise_if_broken()
    with torch.no_grad():
        answers = model.eval()(*other_inputs)
    answers = [answers] if isinstance(answers, torch.Tensor) else answers
    spread = max(output_range(answer.double().numpy()) for answer in answers)
    assert [level.level for level in report.levels] == ["disable_all", "basic", "extended", "all"]
    if report.divergence is None:  # else it was shown to begin at rounding ties, which some processors meet
        assert max(level.max_abs_diff for level in report.levels) <= 2e-6 * spread
    return model


def tensors(path, names, inputs, level=ort.GraphOptimizationLevel.ORT_DISABLE_ALL):
    """Values inside the graph, in an onnxruntime session that optimizes nothing."""
    model = onnx.load(path)
    wanted = [onnx.ValueInfoProto(name=name) for name in names]
    model.graph.output.extend(wanted)
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {node.name: x.numpy() for node, x in zip(session.get_inputs(), inputs, strict=True)}
    return session.run(names, feed)


class Tagger(nn.Module):
    """Embedding, recurrence, one answer a word: (batch, length) -> (batch, length, 3)."""

    def __init__(self, kind=nn.LSTM, **options):
        super().__init__()
        self.words = nn.Embedding(10, 8)
        self.memory = kind(8, 6, batch_first=True, **options)
        self.tags = nn.Linear(12 if options.get("bidirectional") else 6, 3)

    def forward(self, words):
        return self.tags(self.memory(self.words(words))[0])


class Bag(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.words, self.head = nn.EmbeddingBag(10, 8, mode=mode), nn.Linear(8, 3)

    def forward(self, words):
        return self.head(self.words(words))


class Tied(nn.Module):
    """Embedding classifier whose head is its table."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(10, 8), nn.Linear(8, 10, bias=False)
        self.head.weight = self.words.weight

    def forward(self, words):
        return self.head(self.words(words).mean(1))


class Lookup(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, query, memory):
        return self.attention(query, memory, memory)


class Residual(nn.Module):
    """(n, 8) -> (n, 4) with one connection past two layers."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x):
        x = torch.relu(self.a(x))
        return self.d(x + self.c(torch.relu(self.b(x))))


def lab_model(bits=4, granularity="per_tensor", seed=0):
    """1-64-64-1 with outputs of a sensible size, prepared."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    return prepare(model, QATConfig(QuantSpec(bits=bits, granularity=granularity)))


class Around(nn.Module):
    """A linear layer, called by a function."""

    def __init__(self, call):
        super().__init__()
        self.layer, self.call = nn.Linear(4, 4), call

    def forward(self, x):
        return self.call(self.layer, x)


class TakesOutput(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, output):
        return self.layer(output)
