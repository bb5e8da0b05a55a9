"""S3's clients, set up as ``docs/guide/s3-clients.md`` says, read a real cluster over a real store.

Every line of its tables is run: its variables are all the environment that the client has.
"""

import importlib.metadata
import io
import json
import random
import re
import shlex
import shutil
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet
import pytest
from packaging.version import Version

from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.s3 import S3Server

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "s3-clients.md"
READER = Path(__file__).with_name("s3_reader.py")
BUCKET, VOLUME = "clients-models", "models"
PREFIX = "llama 7b/v1+ü/"
DOMAIN = "localhost"
"""curl and what is built on it know that names below it are this machine."""
KEY_ID, SECRET = "trainer.1", "a secret/with+signs"
_MIB = 1024 * 1024
TENSOR_BYTES = 9 * _MIB
"""Over what AWS's clients cut reads at, 8 MiB."""
TENSORS = {name: random.Random(name).randbytes(TENSOR_BYTES) for name in ("a", "b")}
START, STOP = 3 * _MIB - 5, 3 * _MIB + 70_000
FILES = ("config.json", "model.safetensors", "tokenizer/vocab & merges.txt", "table.parquet")
DEADLINE_S = 50.0
COMMANDS = ("rclone", "s5cmd")


# The documentation.


def tables(text: str) -> list[dict[str, list[str]]]:
    """Return the tables whose first column is ``client``: their rows' other cells by client."""
    found: list[dict[str, list[str]]] = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        head, _, *rows = (line.strip("|").split("|") for line in block.splitlines())
        if head[0].strip() == "client":
            found.append({row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows})
    return found


def code_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def variables_in(cell: str) -> dict[str, str]:
    return dict(one.split("=", 1) for one in code_in(cell))


WITH_KEYS, WITHOUT_KEYS, VIRTUAL = tables(PAGE.read_text())


@dataclass(frozen=True, slots=True)
class SetUp:
    """A client as a line of the documentation has it."""

    client: str
    variables: Mapping[str, str]
    code: str


def signing(client: str) -> SetUp:
    _, variables, code = WITH_KEYS[client]
    keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    if "KEY_ID" in code:  # The line names the key itself.
        keys = {}
    return SetUp(client, {**variables_in(variables), **keys}, *code_in(code))


def unsigned(client: str) -> SetUp:
    _, variables, code = WITH_KEYS[client]
    besides, instead = WITHOUT_KEYS[client]
    (code,) = code_in(instead) or code_in(code)
    return SetUp(client, {**variables_in(variables), **variables_in(besides)}, code)


def virtual(client: str) -> SetUp:
    (code,) = code_in(VIRTUAL[client][0])
    variables = signing(client).variables
    return SetUp(client, {**variables, "AWS_ENDPOINT_URL_S3": ""}, code)


def test_the_documented_clients_are_the_tested_ones() -> None:
    assert list(WITH_KEYS) == list(WITHOUT_KEYS) == [*LIBRARIES, *COMMANDS, RUNAI]
    assert set(VIRTUAL) <= set(WITH_KEYS)
    for tested, *_ in WITH_KEYS.values():
        name, version = code_in(tested)[0].split()
        assert Version(importlib.metadata.version(name)) >= Version(version), tested


# The cluster.


@dataclass(frozen=True, slots=True)
class Site:
    """A node that wants signatures and one that does not, and what lies in the bucket."""

    cluster: LocalCluster
    objects: Mapping[str, bytes]

    @property
    def model(self) -> bytes:
        return self.objects["model.safetensors"]

    def filled_in(self, text: str, node: str, *, bucket: str, directory: Path) -> str:
        """Return a text of the documentation with what stands for each of its words."""
        address = self.cluster[node].file.s3_address
        for word, value in (
            ("NODE:7403", address),
            ("s3.penstock.internal:7403", f"{DOMAIN}:{address.rpartition(':')[2]}"),
            ("'KEY_ID'", f"'{KEY_ID}'"),
            ("'SECRET'", f"'{SECRET}'"),
            ("BUCKET", bucket),
            ("PREFIX", PREFIX),
            ("DIRECTORY", str(directory)),
        ):
            text = text.replace(word, value)
        return text


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, etcd: EtcdServer, s3: S3Server
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("clients")
    objects = dict(zip(FILES, (b"{}", checkpoint(), b"a b\n", table()), strict=True))
    s3.create_bucket(BUCKET)
    for name, content in objects.items():
        s3.put(BUCKET, PREFIX + name, content)
    s3.put(BUCKET, "llama 7b/v1+ünder", b"not in the directory")
    for folder in (PREFIX.rstrip("/"), f"{PREFIX}tokenizer", f"{PREFIX}new"):
        s3.make_folder(BUCKET, folder)
    (directory / "secret").write_text(SECRET)
    key = {"access_key_id": KEY_ID, "secret_access_key": {"file": str(directory / "secret")}}
    tiers = (TierSpec("owned", 256 * _MIB),)
    cluster = LocalCluster(
        directory,
        [
            NodeSpec("open", tiers, {"s3_port": 0}),
            NodeSpec(
                "keys",
                tiers,
                {
                    "s3_port": 0,
                    "s3_auth": "keys",
                    "s3_domain": DOMAIN,
                    "s3_keys": {"trainer": key},
                },
            ),
        ],
        etcd=etcd.endpoint,
        name="clients",
        volumes={VOLUME: {"url": f"s3://{BUCKET}/", "options": s3.options}},
    )
    with cluster:
        yield Site(cluster, objects)


def checkpoint() -> bytes:
    """Return a file as safetensors has it: the length of its head, the head, the tensors."""
    head: dict[str, Any] = {}
    for at, name in enumerate(TENSORS):
        start = at * TENSOR_BYTES
        offsets = [start, start + TENSOR_BYTES]
        head[name] = {"dtype": "U8", "shape": [TENSOR_BYTES], "data_offsets": offsets}
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(TENSORS.values())


def table() -> bytes:
    numbers = pyarrow.array(range(START - 100_000, STOP + 100_000))
    squares = pyarrow.compute.multiply(numbers, numbers)
    target = io.BytesIO()
    columns = pyarrow.table({"number": numbers, "square": squares})
    pyarrow.parquet.write_table(columns, target, row_group_size=50_000)
    return target.getvalue()


def run(command: list[str], variables: Mapping[str, str], directory: Path) -> str:
    """Run a program that knows ``variables`` alone; return what it says."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(directory), **variables}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


def read(site: Site, setup: SetUp, node: str, *, bucket: str, directory: Path) -> list[str]:
    """Have a library read in a process of its own; return the keys that it lists."""

    def filled_in(text: str) -> str:
        return site.filled_in(text, node, bucket=bucket, directory=directory)

    job = {
        "client": setup.client,
        "code": filled_in(setup.code),
        "bucket": bucket,
        "prefix": PREFIX,
        "start": START,
        "stop": STOP,
        "directory": str(directory),
    }
    variables = {name: filled_in(value) for name, value in setup.variables.items()}
    told = run([sys.executable, str(READER), json.dumps(job)], variables, directory)
    return sorted(json.loads(told))


# Libraries.

EACH_WAY = ("whole", "by parts", "part")
LIBRARIES = {
    "boto3": EACH_WAY,
    "obstore": EACH_WAY,
    "pyarrow": EACH_WAY,
    "DuckDB": ("whole", "rows"),
}
RUNAI = "Run:ai model streamer"


def expected(site: Site, way: str) -> bytes:
    match way:
        case "part":
            return site.model[START:STOP]
        case "rows":
            return json.dumps([number * number for number in range(START, STOP)]).encode()
        case _:
            return site.model


def check(site: Site, setup: SetUp, node: str, *, bucket: str, directory: Path) -> None:
    keys = read(site, setup, node, bucket=bucket, directory=directory)

    assert keys == sorted(PREFIX + name for name in FILES)
    for way in LIBRARIES[setup.client]:
        assert (directory / way).read_bytes() == expected(site, way), way


@pytest.mark.parametrize("client", LIBRARIES)
def test_a_library_that_signs_reads_every_byte(site: Site, tmp_path: Path, client: str) -> None:
    check(site, signing(client), "keys", bucket=VOLUME, directory=tmp_path)


@pytest.mark.parametrize("client", LIBRARIES)
def test_a_library_without_keys_reads_every_byte(site: Site, tmp_path: Path, client: str) -> None:
    check(site, unsigned(client), "open", bucket=BUCKET, directory=tmp_path)


@pytest.mark.parametrize("client", VIRTUAL)
def test_a_library_may_put_the_bucket_into_the_host(
    site: Site, tmp_path: Path, client: str
) -> None:
    check(site, virtual(client), "keys", bucket=VOLUME, directory=tmp_path)


@pytest.mark.parametrize(
    ("set_up", "node", "chunk"),
    [
        pytest.param(signing, "keys", "", id="as it is"),
        # Over 8 MiB it cuts chunks up, and reads the pieces with If-Match.
        pytest.param(unsigned, "open", str(32 * _MIB), id="in pieces"),
    ],
)
def test_runais_streamer_brings_every_tensor(
    site: Site, tmp_path: Path, set_up: Any, node: str, chunk: str
) -> None:
    setup = set_up(RUNAI)
    if chunk:
        variables = {**setup.variables, "RUNAI_STREAMER_CHUNK_BYTESIZE": chunk}
        setup = replace(setup, variables=variables)

    keys = read(site, setup, node, bucket=VOLUME, directory=tmp_path)

    assert keys == [f"{PREFIX}model.safetensors"]
    assert (tmp_path / "tensors").read_bytes() == b"".join(TENSORS.values())


# Commands.


class Commands:
    """One of the command lines, as the documentation sets it up."""

    def __init__(self, site: Site, setup: SetUp, node: str, *, bucket: str, home: Path) -> None:
        self.target = home / "target"
        self.target.mkdir()
        self._home = home
        self._fill = partial(site.filled_in, node=node, bucket=bucket, directory=self.target)
        self._variables = {name: self._fill(text) for name, text in setup.variables.items()}
        self.documented = setup.code

    def __call__(self, command: str) -> str:
        program, *words = shlex.split(command)
        path = Path(sysconfig.get_path("scripts")) / program
        return run([str(path), *map(self._fill, words)], self._variables, self._home)

    def brought(self) -> dict[str, bytes]:
        files = (path for path in self.target.rglob("*") if path.is_file())
        return {str(path.relative_to(self.target)): path.read_bytes() for path in files}

    def forget(self) -> None:
        shutil.rmtree(self.target)
        self.target.mkdir()


@pytest.mark.parametrize(
    ("set_up", "node", "bucket"), [(signing, "keys", VOLUME), (unsigned, "open", BUCKET)]
)
@pytest.mark.parametrize("client", COMMANDS)
def test_a_command_copies_a_directory(
    site: Site, tmp_path: Path, client: str, set_up: Any, node: str, bucket: str
) -> None:
    command = Commands(site, set_up(client), node, bucket=bucket, home=tmp_path)

    command(command.documented)

    assert command.brought() == site.objects


def test_rclone_lists_and_reads_a_part(site: Site, tmp_path: Path) -> None:
    rclone = Commands(site, signing("rclone"), "keys", bucket=VOLUME, home=tmp_path)

    listed = rclone("rclone lsf --recursive --files-only :s3:BUCKET/PREFIX")
    part = rclone("rclone cat --offset 2 --count 1 ':s3:BUCKET/PREFIXtokenizer/vocab & merges.txt'")

    assert sorted(listed.splitlines()) == sorted(FILES)
    assert part == "b"


def test_s5cmd_lists_and_copies_by_parts(site: Site, tmp_path: Path) -> None:
    s5cmd = Commands(site, signing("s5cmd"), "keys", bucket=VOLUME, home=tmp_path)

    listed = s5cmd("s5cmd --json ls s3://BUCKET/PREFIX*")
    s5cmd("s5cmd cp --part-size 5 --concurrency 3 s3://BUCKET/PREFIXmodel.safetensors DIRECTORY")

    keys = [json.loads(line)["key"] for line in listed.splitlines()]
    assert sorted(key.partition(PREFIX)[2] for key in keys) == sorted(FILES)
    assert s5cmd.brought() == {"model.safetensors": site.model}


def test_a_command_that_writes_is_told_why_not(site: Site, tmp_path: Path) -> None:
    s5cmd = Commands(site, signing("s5cmd"), "keys", bucket=VOLUME, home=tmp_path)
    (tmp_path / "new").write_bytes(b"x" * 9 * _MIB)

    with pytest.raises(AssertionError, match=r"MethodNotAllowed.*only reads"):
        s5cmd(f"s5cmd cp {tmp_path}/new s3://BUCKET/PREFIXnew")
