"""The runner of pages fails on what does not hold, and says where; it cannot pass on nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_node.testbed.processes import wait_until
from tests.docs.machines import Fleet, can_make_machines
from tests.docs.pages import BrokenPage, read_page
from tests.docs.printed import first_missing
from tests.docs.running import Counts, PageRun

HERE, OTHER = "gpu-1", "gpu-2"
PAGE = "page.md"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    if not can_make_machines():
        pytest.skip("machines are namespaces: this needs root, and a kernel that lets it")
    with Fleet(tmp_path_factory.mktemp("fleet") / "machines", {HERE: (), OTHER: ()}) as made:
        yield made


def run(fleet: Fleet, directory: Path, text: str) -> Counts:
    (directory / PAGE).write_text(text)
    blocks = read_page(directory / PAGE, name=PAGE)
    with PageRun(fleet, page=PAGE, at=HERE) as page:
        return page.run(blocks)


def test_blocks_share_a_shell_and_a_python_in_the_order_of_the_page(
    fleet: Fleet, tmp_path: Path
) -> None:
    page = """# A page

```bash
export COLOUR=blue
cd /mnt
```

```python
import os
found = os.environ["COLOUR"], os.getcwd()
```

```bash
export COLOUR=red
```

```python
print(*found, os.environ["COLOUR"])
```
```text
blue /mnt red
```

```console
$ echo one
one
$ echo two
two
```
"""

    counts = run(fleet, tmp_path, page)

    assert counts.done == {"run": 5}


def test_files_are_written_and_machines_are_chosen(fleet: Fleet, tmp_path: Path) -> None:
    page = """
<!-- run: on gpu-1, gpu-2; file here/script.sh -->
```bash
hostname
```

<!-- run: on gpu-2 -->
```bash
sh here/script.sh
cat /etc/hosts
```
```text
gpu-2
…
10.74.0.10 gpu-1
```
"""

    counts = run(fleet, tmp_path, page)

    assert counts.done == {"written": 1, "run": 1}


def test_a_server_goes_on_for_the_blocks_below_and_ends_with_the_page(
    fleet: Fleet, tmp_path: Path
) -> None:
    page = """
<!-- run: serves http://127.0.0.1:7402/ -->
```bash
python3 -m http.server 7402
```

```bash
curl --silent http://gpu-1:7402/ | head -1
```
```text
<!DOCTYPE HTML>
```
"""

    run(fleet, tmp_path, page)

    wait_until(
        lambda: "http.server" not in fleet[HERE].run(["ps", "ax"]),
        deadline_s=10,
        what="the page's server has ended",
    )


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("# x\n\n```bash\necho a\nfalse\necho b\n```\n", 5, "this ended with 1:\na\n"),
        ("```bash\nfalse | true\n```\n", 2, "ended with 1"),
        ("```bash\nexit 3\n```\n", 2, "ended with 3"),
        ('```bash\necho "unclosed\n```\n', 2, "unexpected EOF"),
        ("```console\n$ true\n$ no-such-command\n```\n", 3, "ended with 127"),
        ("```python\nx = 1\n\nx / 0\n```\n", 4, "ZeroDivisionError"),
        ("```python\nraise SystemExit(2)\n```\n", 2, "ended with 2"),
        ("```python\nx = = 1\n```\n", 2, "SyntaxError"),
        ("```bash\necho a\n```\n```text\nb\n```\n", 5, "this was not printed: b\nbut:\na\n"),
        ("```console\n$ echo a\nb\n```\n", 2, "this was not printed: b"),
        ("<!-- run: fails -->\n```bash\ntrue\n```\n", 3, "this should have failed"),
        ("<!-- run: on gpu-9 -->\n```bash\ntrue\n```\n", 3, "there is no machine 'gpu-9'"),
        ("```toml\nclutser = 'x'\n```\n", 2, "did you mean 'cluster'"),
        ("```toml\ncluster =\n```\n", 2, "this is no toml"),
        ("```json\n{]\n```\n", 2, "this is no json"),
        ("```yaml\na: [\n```\n", 2, "while parsing"),
        ("```ini\nno section\n```\n", 2, "this is no ini"),
        ("```bash\npip install 'penstock[nod]'\n```\n", 2, "there is no extra 'nod'"),
        ("```bash\npip install no-such-package\n```\n", 2, "is not installed here"),
        ("```bash\nsystemctl start no-such\n```\n", 2, "Unit no-such.service not found"),
        (
            "<!-- run: serves http://127.0.0.1:9/ -->\n```bash\necho no; false\n```\n",
            3,
            "it ended with 1 before http://127.0.0.1:9/ answered:\nno\n",
        ),
    ],
)
def test_a_page_that_does_not_hold_fails_with_the_line(
    fleet: Fleet, tmp_path: Path, text: str, line: int, reason: str
) -> None:
    with pytest.raises(BrokenPage) as broken:
        run(fleet, tmp_path, text)

    assert str(broken.value).startswith(f"{PAGE}:{line}: ")
    assert reason in str(broken.value)


def test_nothing_below_a_failure_is_run(fleet: Fleet, tmp_path: Path) -> None:
    with pytest.raises(BrokenPage):
        run(fleet, tmp_path, "```bash\nfalse\ntouch ~/one\n```\n```bash\ntouch ~/two\n```\n")

    assert fleet[HERE].run(["bash", "-c", "ls ~/one ~/two 2>&1 || true"]).count("No such file") == 2


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("```sh\ntrue\n```\n", 1, "'sh' is none of bash"),
        ("```\npenstock status\n```\n", 1, "'' is none of"),
        ("\n```bash\ntrue\n", 2, "this block has no end"),
        ("<!-- run: backwards -->\n```bash\ntrue\n```\n", 1, "'backwards' is not in the vocab"),
        ("<!-- run: on -->\n```bash\ntrue\n```\n", 1, "'on' is not in the vocabulary"),
        ("Text <!-- run: fails -->\n```bash\ntrue\n```\n", 1, "alone on a line"),
        ("<!-- run: fails -->\n\nText.\n", 3, "stands above no block"),
        ("<!-- run: serves http://x/ -->\n```python\n1\n```\n", 2, "only bash serves"),
        ("Text.\n\n```text\n$ penstock status\n```\n", 4, "these look like commands"),
    ],
)
def test_what_is_not_in_the_vocabulary_is_refused(
    tmp_path: Path, text: str, line: int, reason: str
) -> None:
    (tmp_path / PAGE).write_text(text)

    with pytest.raises(BrokenPage) as broken:
        read_page(tmp_path / PAGE, name=PAGE)

    assert str(broken.value).startswith(f"{PAGE}:{line}: ")
    assert reason in str(broken.value)


def test_a_block_that_is_not_run_is_told_with_its_reason(fleet: Fleet, tmp_path: Path) -> None:
    counts = run(fleet, tmp_path, "<!-- not run: it needs a GPU -->\n```bash\nfalse\n```\n")

    assert counts.not_run == {"false": "it needs a GPU"}
    assert not counts.done["run"]


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("brought 3  8.3 MB", "brought   12   90 kB"),
        (
            "read 4.2 MB in 0.01 s, 400 MB/s: 4.2 MB from peer",
            "read 1 B in 3 s, 1 kB/s: 1 B from peer",
        ),
        ("a\n…\nd", "a\nb\nc\nd"),
        ("second", "first\nsecond"),
        ("─────\na", "a"),
        ("version …", "version abcdef"),
        ("gpu-17  34.0 %", "gpu-17   1 %"),
    ],
)
def test_figures_may_differ_and_words_may_not(shown: str, printed: str) -> None:
    assert first_missing(shown, printed) is None


@pytest.mark.parametrize(
    ("shown", "printed", "missing"),
    [
        ("gpu-17 alive", "gpu-18 alive", "gpu-17 alive"),
        ("cold: 3 MB", "warm: 3 MB", "cold: 3 MB"),
        ("a\nc", "a\nb\nc", "c"),
        ("b\n…\na", "a\nb", "a"),
        ("a", "", "a"),
    ],
)
def test_a_word_that_was_not_printed_is_missed(shown: str, printed: str, missing: str) -> None:
    assert first_missing(shown, printed) == missing
