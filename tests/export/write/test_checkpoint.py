"""There and back: every tensor, the config, and a sentence for what is not a checkpoint."""

import json

import pytest
import torch
from torch import nn

from export import FileError
from export.write.checkpoint import CONFIG, WEIGHTS, load_checkpoint, save_checkpoint
from qat_core import QATConfig, QuantSpec, prepare
from tests.export.models import Tied

LEARNED = QATConfig(QuantSpec(bits=3, scale="learned"), QuantSpec.activation(8, scale="learned"))
MIXED = QATConfig(
    QuantSpec(granularity="per_group", group_size=3),
    QuantSpec.activation(8),
    overrides={"words": None, "head": QATConfig(QuantSpec(bits=8))},
)


@pytest.mark.parametrize("config", [LEARNED, MIXED])
def test_a_checkpoint_answers_as_the_model_did(tmp_path, config):
    model, words = Tied(), torch.randint(0, 10, (3, 4))
    prepared = prepare(model, config)
    prepared(words).square().sum().backward()
    torch.optim.SGD(prepared.parameters(), lr=0.1).step()
    save_checkpoint(prepared, config, tmp_path / "deep" / "er")
    loaded, same = load_checkpoint(Tied(), tmp_path / "deep" / "er")
    assert same == config
    assert loaded.head.weight is loaded.words.weight
    assert torch.equal(loaded.eval()(words), prepared.eval()(words))
    assert sorted(p.name for p in (tmp_path / "deep" / "er").iterdir()) == [WEIGHTS, CONFIG]


def test_what_is_not_a_checkpoint_gets_a_sentence(tmp_path):
    with pytest.raises(FileError, match="cannot read"):
        load_checkpoint(Tied(), tmp_path)
    save_checkpoint(prepare(Tied(), LEARNED), LEARNED, tmp_path)
    with pytest.raises(FileError, match="does not hold a checkpoint of this model"):
        load_checkpoint(nn.Linear(3, 3), tmp_path)
    data = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(FileError, match="does not hold"):
        load_checkpoint(Tied(), tmp_path)
    (tmp_path / CONFIG).write_text(json.dumps({"weight": {"bits": 7}}))
    with pytest.raises(FileError, match="bits=7 is not supported"):
        load_checkpoint(Tied(), tmp_path)
    (tmp_path / CONFIG).write_text("{}")
    with pytest.raises(FileError, match="is not a QATConfig"):
        load_checkpoint(Tied(), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot write"):
        save_checkpoint(prepare(Tied()), QATConfig(), tmp_path / "file")
