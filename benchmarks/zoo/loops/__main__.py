"""python -m benchmarks.zoo.loops [NAME ...]: what becomes of a prepared model in each loop, a line each."""

import argparse
import warnings
from collections.abc import Callable

from benchmarks.zoo.loops import hugging_face, others

CHECKS: tuple[Callable[[], None], ...] = (
    hugging_face.trainer_resumes_to_the_bit,
    hugging_face.trainer_accumulates_in_bfloat16,
    hugging_face.pretrained_folder_loads,
    hugging_face.adapters_on_a_quantized_base,
    hugging_face.quantized_adapters,
    others.lightning_resumes_to_the_bit,
    others.lightning_averages_in_bfloat16,
    others.accelerate_resumes_to_the_bit,
    others.timm_averages,
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo.loops", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="checks; all if none is named")
    names = parser.parse_args().names
    failed = 0
    for check in CHECKS:
        if names and check.__name__ not in names:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                check()
                said = "works"
            except Exception as error:
                failed += 1
                said = f"{type(error).__name__}: {error}"
        print(f"{check.__name__.replace('_', ' ')}: {said}", flush=True)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
