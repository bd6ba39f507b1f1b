"""How the buttons of a chapter reach its handlers.

Values are not preprocessed: `Settings` checks them, and its sentences say what was expected. "multiple" is for clicks
that come before the last event is over: Gradio would drop them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.runs.run import pause_run, stop

VISITORS_AT_ONCE = 256  # each holds a thread while it trains, which mostly waits
THREADS = VISITORS_AT_ONCE + 40  # of the server

QUIET: dict[str, Any] = {"show_progress": "hidden", "preprocess": False}
MANY: dict[str, Any] = {
    "trigger_mode": "multiple",
    "concurrency_id": "training",
    "concurrency_limit": VISITORS_AT_ONCE,
}


@dataclass(frozen=True)
class Handlers:
    """The handlers of a chapter that trains: all get the same inputs, and answer for the same outputs.

    So whatever ends a run can hand it the last frame.

    Attributes:
        name: of the chapter, in the names of its handlers for programs.
        inputs: what a handler is given.
        outputs: what it answers for.
        js: what the browser puts in the place of the first input; nothing by default.
    """

    name: str
    inputs: Sequence[gr.components.Component]
    outputs: Sequence[gr.components.Component]
    js: str | None = None

    def run(self, button: gr.Button, train: Callable[..., Any]) -> None:
        """A generator that trains; many visitors have one at once."""
        button.click(train, **self._common, **MANY, api_name=f"{self.name}_run")

    def after_the_run(self, button: gr.Button, act: Callable[..., Any], name: str, **more: Any) -> None:
        """What needs the visitor's state: the run at work is paused first."""
        paused = self.pause(button)
        options = {**self._common, "trigger_mode": "multiple", "concurrency_limit": 1, **more}
        paused.then(act, **options, api_name=f"{self.name}_{name}")

    def pause(self, button: gr.Button) -> Any:
        """End the run; what may follow the event."""
        return button.click(pause, trigger_mode="multiple", show_progress="hidden", queue=False)

    def change(self, listener: Callable[..., Any], act: Callable[..., Any]) -> None:
        """The last of many changes counts."""
        listener(act, **self._common, trigger_mode="always_last")

    @property
    def _common(self) -> dict[str, Any]:
        return {"inputs": self.inputs, "outputs": self.outputs, "js": self.js, **QUIET}


def show(request: gr.Request, outputs: tuple[Any, ...], chapter: str) -> tuple[Any, ...]:
    """Outputs for the page, unless a run of the chapter is at work: it shows them then as its last frame."""
    return unchanged(len(outputs)) if stop(request.session_hash, outputs, chapter) else outputs


def unchanged(outputs: int) -> tuple[Any, ...]:
    """The outputs of a handler that leaves the page as it is, or to the run at work."""
    return (gr.skip(),) * outputs


def pause(request: gr.Request) -> None:
    """End the visitor's run; it shows its last frame itself."""
    pause_run(request.session_hash)
