"""What the plug-in does to a vLLM that it does not fit. One that it fits: `integration`."""

import subprocess
import sys
from pathlib import Path

import pytest

LOADERS = "vllm.model_executor.model_loader"
PROGRAM = f"""
from penstock.vllm.plugin import register
register()
register()
import {LOADERS} as loaders
assert loaders.is_imported
assert loaders.__loader__ is loaders.__spec__.loader
assert not loaders.__loader__.__class__.__module__.startswith("penstock")
assert not [each for each in sys.meta_path if each.__class__.__module__.startswith("penstock")]
"""


@pytest.mark.parametrize("is_there_before", [False, True])
def test_a_vllm_that_it_does_not_fit_works_and_is_told_why(
    tmp_path: Path, is_there_before: bool
) -> None:
    for name in ("vllm", "vllm/model_executor", "vllm/model_executor/model_loader"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("is_imported = True\n")
    begin = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    before = f"import {LOADERS}\n" if is_there_before else ""

    done = subprocess.run(
        [sys.executable, "-c", begin + before + PROGRAM],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("this vLLM gets no load format 'penstock'") == 1
    assert "No module named 'vllm." in done.stderr
