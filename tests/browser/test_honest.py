"""What the scripts of the page say beside what is there; module by module, without the page around them."""

from collections.abc import Callable
from typing import Any

from app.chapters import FOLDER
from app.components.module import STATIC
from app.runs.diagnosis import times


def test_ratios_are_those_of_the_server(in_module: Callable[..., Any]) -> None:
    pairs = [[52.4, 4.34], [1.233, 0.004093], [250.4, 99.6], [3.04e-8, 1.96e-8], [0.5, 0.5]]
    ask = "({ times }, pairs) => pairs.map(([value, other]) => times(value, other))"
    assert in_module(STATIC / "widgets" / "format.js", ask, pairs) == [times(*pair) for pair in pairs]


def test_words_of_another_run_give_way_at_once(in_module: Callable[..., Any]) -> None:
    ask = """({ statusLine }, frames) => {
        const root = document.createElement("div");
        const show = statusLine(root);
        return frames.map(([step, words]) => {
            show({ step, steps: 2000, running: true }, words);
            return [root.querySelector(".step").textContent, root.querySelector(".words").textContent];
        });
    }"""
    frames = [[0, "Nothing yet."], [10, "At step 10."], [20, "At step 20."], [0, "Nothing yet."], [10, "At step 10."]]
    said = in_module(STATIC / "widgets" / "status.js", ask, frames)
    assert said[1:3] == [["Step 10 of 2,000", "At step 10."], ["Step 20 of 2,000", "At step 10."]]  # by its number
    assert [words for _, words in said[3:]] == ["Nothing yet.", "At step 10."]


def test_nothing_is_drawn_from_pause_on_until_the_run_has_ended(in_module: Callable[..., Any]) -> None:
    ask = """({ comesAfterPause }) => {
        const row = document.body.appendChild(document.createElement("div"));
        row.className = "run-buttons";
        const [run, pause] = ["a-run", "a-pause"].map((id) => {
            const one = row.appendChild(document.createElement("button"));
            one.id = id;
            return one;
        });
        const after = (running) => comesAfterPause({ running });
        const seen = [after(true)];
        pause.click();
        seen.push(after(true), after(true), after(false), after(true));
        pause.click();
        run.click();
        seen.push(after(true));
        row.remove();
        return seen;
    }"""
    assert in_module(STATIC / "data" / "follow.js", ask) == [False, True, True, False, False, False]


def test_a_lost_connection_and_another_server_are_told_apart(in_module: Callable[..., Any]) -> None:
    ask = """async ({ whatIsWrong }) => {
        const says = (server) => async () => ({ json: async () => ({ queue: "alive", server }) });
        const refuses = async () => { throw new TypeError("Failed to fetch"); };
        return Promise.all([says("here"), says("another"), refuses].map((ask) => whatIsWrong("here", ask)));
    }"""
    fine, anew, gone = in_module(STATIC / "page" / "connection.js", ask)
    assert fine == ""
    assert "started anew and has forgotten your networks" in anew
    assert "does not answer" in gone


def test_a_mix_that_has_fallen_apart_is_called_so(in_module: Callable[..., Any]) -> None:
    ask = """({ budget }, measured) => {
        const root = document.createElement("div");
        const mix = { bytes: 100, bits: [8, 2, 8], expected: 0.01, measured, accuracy: null };
        const frame = { metric: "Error", blind: 0.5, bits: 4, uniform: [], mixes: [mix] };
        budget(root, () => {})(frame, { mix: 0 });
        return root.querySelector(".bought").textContent;
    }"""
    budget = FOLDER / "sensitive" / "budget.js"
    assert "which gives 0.50: it has fallen apart" in in_module(budget, ask, 0.51)
    assert "fallen apart" not in in_module(budget, ask, 0.02)


def test_your_download_says_when_it_is_of_another_curve(in_module: Callable[..., Any]) -> None:
    ask = """({ mount }) => {
        const view = document.createElement("div");
        const none = { points: null, of: "", file: "", curves: {}, error: {} };
        const frame = { running: false, problem: "", words: "", step: 0, steps: 2000, ...none };
        const props = { value: JSON.stringify(frame) };
        let arrived;
        mount(view, props, (_, react) => (arrived = react), () => {});
        const send = (more) => {
            props.value = JSON.stringify({ ...frame, ...more });
            arrived();
            const said = () => view.querySelector(".outdated").textContent;
            return new Promise((ready) => requestAnimationFrame(() => ready(said())));
        };
        return (async () => [
            await send({ step: 50, of: "a, step 50" }),
            await send({ step: 50, of: "a, step 50", file: "steps_int4.onnx" }),
            await send({ step: 60, of: "a, step 60" }),
            await send({ step: 50, of: "a, step 50" }),
            await send({ points: [[0, 1], [1, 2], [2, 3], [3, 4]] }),
        ])();
    }"""
    said = in_module(FOLDER / "your_turn" / "your_turn.js", ask)
    moved_on = "Download gives steps_int4.onnx, and the page has moved on: press Export for its file."
    assert said == ["", "", moved_on, "", moved_on]
