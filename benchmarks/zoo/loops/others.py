"""Lightning, accelerate and timm."""

import copy
import tempfile
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.loops import HALF, LEARNED, MEASURED, STEPS, goes_out, same_numbers
from qat_core import QATConfig, Schedule, convert, prepare


def lit(config: QATConfig) -> Any:
    import lightning

    class Lit(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.model = prepare(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)), config)
            self.schedule = Schedule(self.model, quantize_after=3, freeze_observers_after=9)

        def training_step(self, batch: Any, index: int) -> Tensor:
            x, label = batch
            return nn.functional.cross_entropy(self.model(x), label)

        def on_train_batch_end(self, *args: Any) -> None:
            self.schedule.step()

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["schedule"] = self.schedule.state_dict()

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            self.schedule.load_state_dict(checkpoint["schedule"])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), 1e-2)

    return Lit()


def points() -> Any:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16 * STEPS, 8, generator=generator)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, (x.sum(1) > 0).long()), 16)


def fit(module: Any, epochs: int, resume: str | None = None, **options: Any) -> Any:
    import lightning

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    options = {"enable_checkpointing": False} | options
    trainer = lightning.Trainer(max_epochs=epochs, **quiet, **options)
    trainer.fit(module, points(), ckpt_path=resume)
    return trainer


def lightning_resumes_to_the_bit() -> None:
    for config in (LEARNED, MEASURED):
        whole, first, second = lit(config), lit(config), lit(config)
        fit(whole, 2)
        with tempfile.TemporaryDirectory() as folder:
            fit(first, 1).save_checkpoint(f"{folder}/half.ckpt")
            fit(second, 2, f"{folder}/half.ckpt")
        same_numbers(second, whole)
        goes_out(second.model, torch.randn(4, 8))


def lightning_averages_in_bfloat16() -> None:
    from lightning.pytorch.callbacks import StochasticWeightAveraging

    module = lit(LEARNED)
    averaging = StochasticWeightAveraging(1e-2, swa_epoch_start=1)
    fit(module, 4, precision="bf16-mixed", accumulate_grad_batches=2, callbacks=[averaging])
    convert(module.model)


def accelerate_resumes_to_the_bit() -> None:
    from accelerate import Accelerator

    def run(model: nn.Module, first: int, last: int, load: str = "", save: str = "") -> nn.Module:
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        prepared, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters(), 1e-2))
        if load:
            accelerator.load_state(load)
        for x, label in list(points())[first:last]:
            with accelerator.accumulate(prepared):
                with torch.autocast("cpu", torch.bfloat16):
                    loss = nn.functional.cross_entropy(prepared(x), label)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
        if save:
            accelerator.save_state(save)
        unwrapped: nn.Module = accelerator.unwrap_model(prepared)
        return unwrapped

    for config in (LEARNED, MEASURED):
        with tempfile.TemporaryDirectory() as folder:
            expected = run(lit(config).model, 0, STEPS)
            run(lit(config).model, 0, HALF, save=folder)
            same_numbers(run(lit(config).model, HALF, STEPS, load=folder), expected)


def timm_averages() -> None:
    import timm
    from timm.utils import ModelEmaV2, ModelEmaV3

    for kind in (ModelEmaV2, ModelEmaV3):
        torch.manual_seed(0)
        model = prepare(timm.create_model("resnet10t", num_classes=4), LEARNED)
        ema, ours = kind(model, decay=0.5), copy.deepcopy(model.state_dict())
        optimizer = torch.optim.SGD(model.parameters(), 1e-2)
        for _ in range(3):
            model(torch.randn(4, 3, 32, 32)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            ema.update(model)
            for name, tensor in model.state_dict().items():
                ours[name] = ours[name].lerp(tensor, 0.5) if tensor.is_floating_point() else tensor
        for name, tensor in ema.module.state_dict().items():
            if tensor.is_floating_point():
                torch.testing.assert_close(tensor, ours[name])
        with torch.no_grad():
            y = ema.module.eval()(torch.randn(4, 3, 32, 32))
        assert torch.isfinite(y).all()
        convert(ema.module)
