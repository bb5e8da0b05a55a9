"""Every parser, whatever it is given: a value of which something is true, or an error by name.

Long runs are ``make fuzz``. Here stands what they found, and some new inputs, of each commit
others.
"""

import random
from itertools import islice

import pytest

from tests.commit import seeds_of_commit
from tests.fuzz.keep import CORPUS, inputs_of
from tests.fuzz.long_inputs import long_inputs
from tests.fuzz.mutation import inputs_like
from tests.fuzz.target import AnyTarget
from tests.fuzz.targets import TARGETS

NEW_INPUTS = 1500
"""Of each target."""
CORPUS_BYTES_MAX = 200_000
ALL_BYTES_MAX = 3_000_000

each = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@each
def test_good_inputs_are_taken(target: AnyTarget) -> None:
    assert any(target.check(seed) for seed in target.seeds)


@each
def test_what_was_found_before_is_taken_or_refused_by_name(target: AnyTarget) -> None:
    for data in inputs_of(target):
        target.check(data)


@each
def test_new_inputs_are_taken_or_refused_by_name(target: AnyTarget) -> None:
    (seed,) = seeds_of_commit(1)
    for data in islice(inputs_like(target, random.Random(seed)), NEW_INPUTS):
        try:
            target.check(data)
        except BaseException as error:
            error.add_note(f"{target.name} was given {data!r}, one of those like seed {seed}'s")
            raise


@each
def test_long_inputs_end_as_well(target: AnyTarget) -> None:
    for data in long_inputs(target):
        target.check(data)


def test_every_corpus_is_a_target_s_and_small() -> None:
    sizes = {
        directory.name: sum(path.stat().st_size for path in directory.iterdir())
        for directory in CORPUS.iterdir()
    }

    assert sizes.keys() <= TARGETS.keys()
    assert max(sizes.values()) <= CORPUS_BYTES_MAX
    assert sum(sizes.values()) <= ALL_BYTES_MAX
