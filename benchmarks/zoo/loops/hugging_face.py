"""transformers' Trainer, and peft's adapters."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.loops import HALF, LEARNED, MEASURED, STEPS, goes_out, same_numbers
from qat_core import Schedule, convert, prepare
from qat_core.layers import quantized_layers


def bert() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return BertForSequenceClassification(BertConfig(vocab_size=50, max_position_embeddings=32, **sizes))


def sentences(count: int = 96) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, 50, (count, 8), generator=generator)
    mask = torch.ones(8, dtype=torch.long)
    return [{"input_ids": row, "attention_mask": mask, "labels": (row.sum() % 2)} for row in tokens]


def hugging_face(model: nn.Module, folder: str, steps: int, resume: bool = False, **options: Any) -> nn.Module:
    """Trainer with a schedule that follows its steps, saved at half of them."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    schedule = Schedule(model, quantize_after=3, freeze_observers_after=9)

    class Follows(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            schedule.steps = state.global_step

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            schedule.step()

    arguments = TrainingArguments(
        folder,
        max_steps=steps,
        save_steps=HALF,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        logging_strategy="no",
        **options,
    )
    trainer = Trainer(model, arguments, train_dataset=sentences(), callbacks=[Follows()])
    trainer.train(resume_from_checkpoint=resume)
    return model


def trainer_resumes_to_the_bit() -> None:
    for config in (LEARNED, MEASURED):
        with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as parts:
            expected = hugging_face(prepare(bert(), config), whole, STEPS)
            hugging_face(prepare(bert(), config), parts, HALF)
            same_numbers(hugging_face(prepare(bert(), config), parts, STEPS, resume=True), expected)
        batch = {k: v[None] for k, v in sentences(1)[0].items() if k != "labels"}
        goes_out(expected, batch)


def trainer_accumulates_in_bfloat16() -> None:
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"bf16": True, "gradient_accumulation_steps": 2, "gradient_checkpointing": True}
        model = hugging_face(prepare(bert(), LEARNED), folder, STEPS, **options)
        assert all(torch.isfinite(p).all() for p in model.parameters())
        assert all(p.dtype == torch.float32 for p in model.state_dict().values() if p.is_floating_point())
        convert(model)


def pretrained_folder_loads() -> None:
    """save_pretrained of a prepared model, and its state into a freshly prepared one."""
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        model = hugging_face(prepare(bert(), LEARNED), folder, STEPS)
        model.save_pretrained(folder)  # type: ignore[operator]
        again = prepare(bert(), LEARNED)
        again.load_state_dict(load_file(Path(folder, "model.safetensors")))
        same_numbers(again, model)


def adapted(model: nn.Module) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    return get_peft_model(model, LoraConfig(r=4, target_modules=["query", "value"], lora_dropout=0.0))


def steps_of(model: nn.Module, count: int = STEPS) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    losses = []
    rows = sentences()
    for step in range(count):
        batch = {k: torch.stack([row[k] for row in rows[8 * step : 8 * step + 8]]) for k in rows[0]}
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def adapters_on_a_quantized_base() -> None:
    base = prepare(bert(), MEASURED)
    frozen = {name: p.detach().clone() for name, p in base.named_parameters()}
    model = adapted(base)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names
    assert all("lora_" in name for name in names), names
    before = {name: p.detach().clone() for name, p in model.named_parameters() if name in names}
    steps_of(model.train())
    moved = [name for name, p in model.named_parameters() if name in names and not torch.equal(p, before[name])]
    assert len(moved) == len(names), names - set(moved)
    for name, p in base.named_parameters():
        plain = name.replace(".base_layer", "")
        assert plain not in frozen or torch.equal(p, frozen[plain]), f"{name} has moved"
    convert(model)


def quantized_adapters() -> None:
    model = prepare(adapted(bert()), LEARNED)
    adapters = [name for name, _ in quantized_layers(model) if "lora_" in name]
    assert len(adapters) == 8, adapters
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    steps_of(model.train())
    still = [name for name, p in model.named_parameters() if name in before and torch.equal(p, before[name])]
    assert not still, still
    batch = {k: v[None] for k, v in sentences(1)[0].items() if k != "labels"}
    goes_out(model, batch)
