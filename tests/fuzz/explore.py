"""One target explored by atheris, in a process of its own: ``python -m tests.fuzz.explore NAME``.

Responsible for: having the parser's modules, and no others, report their coverage; handing inputs
of libFuzzer's to the target, and our mutations to libFuzzer.
Not responsible for: how long, and what becomes of what is found (`__main__`).
"""

import importlib
import random
import sys

import atheris
import structlog


def main() -> None:
    """Explore the target that the first argument names; the others are libFuzzer's."""
    name, modules, *arguments = sys.argv[1:]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with atheris.instrument_imports(include=modules.split(","), enable_loader_override=False):
        for module in modules.split(","):
            importlib.import_module(module)
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    rng = random.Random(0)

    def mutated(data: bytes, bytes_max: int, _seed: int) -> bytes:
        if target.is_structured and rng.random() < 0.5:
            data = target.mutate(rng, data, target.words)
        else:
            data = atheris.Mutate(data, len(data))
        if target.mend is not None and rng.random() < 0.8:
            data = target.mend(data)
        return data[:bytes_max]

    def check(data: bytes) -> None:
        target.check(data)

    options = {"custom_mutator": mutated} if target.is_structured else {}
    atheris.Setup([sys.argv[0], *arguments], check, **options)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
