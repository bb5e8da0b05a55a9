"""The command line against real nodes: three over etcd, weighing 100, 200 and 300."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from penstock.cli.app import app
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from tests.integration.short_lease import restart_with_short_lease

MIB = 1 << 20
CHUNK = 64 * 1024
MODEL = "penstock://models/llama/model.bin"
MODEL_BYTES = 40 * CHUNK + 1000
LISTED = 1_005
NODES = ("n1", "n2", "n3")
NODE_KEYS = {
    "id",
    "host",
    "state",
    "weight",
    "weight_source",
    "share",
    "owned_capacity_bytes",
    "cached_bytes",
}

Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("origin").resolve()
    (folder / "llama").mkdir()
    (folder / "llama/model.bin").write_bytes(random.Random(1).randbytes(MODEL_BYTES))
    (folder / "llama/empty").touch()
    (folder / "many").mkdir()
    for number in range(LISTED):
        (folder / f"many/{number:04}").touch()
    return folder


@pytest.fixture(scope="module")
def cluster(
    etcd: EtcdServer, origin: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    nodes = [
        NodeSpec(
            name,
            (TierSpec("owned", (at + 1) * 16 * MIB),),
            config={"allow_file_roots": [str(origin.parent)]},
        )
        for at, name in enumerate(NODES)
    ]
    with LocalCluster(
        tmp_path_factory.mktemp("cluster"),
        nodes,
        etcd=etcd.endpoint,
        name="cli",
        settings={"chunk_size": CHUNK, "lease_ttl_s": 30},
        volumes={"models": {"url": f"file://{origin}/"}},
    ) as running:
        yield running


@pytest.fixture
def cli(cluster: LocalCluster) -> Cli:
    """Runs a verb against the cluster. An exception that is no exit is a failure of the test."""
    address = ",".join(node.address for node in cluster.running)

    def run(*words: str, **environment: str) -> Result:
        env = {"PENSTOCK_ADDRESS": address, "COLUMNS": "120", **environment}
        return CliRunner().invoke(app, list(words), env=env, catch_exceptions=False)

    return run


def answer(result: Result) -> Any:
    """Return the JSON of a verb that succeeded."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def rows(result: Result) -> list[list[str]]:
    """Return the words of each line of a verb that succeeded."""
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.stdout.splitlines()]


def test_status_shows_every_node_with_its_weight_and_share(cli: Cli) -> None:
    told = answer(cli("status", "--json"))

    assert {"cluster", "epoch", "nodes"} <= told.keys()
    assert told["cluster"] == "cli"
    assert all(node.keys() >= NODE_KEYS for node in told["nodes"])
    assert [(n["id"], n["state"], n["weight"], n["weight_source"]) for n in told["nodes"]] == [
        ("n1", "alive", 100, "auto"),
        ("n2", "alive", 200, "auto"),
        ("n3", "alive", 300, "auto"),
    ]
    assert sum(node["share"] for node in told["nodes"]) == pytest.approx(1)
    assert [node["owned_capacity_bytes"] for node in told["nodes"]] == [
        16 * MIB,
        32 * MIB,
        48 * MIB,
    ]


def test_status_is_a_table_for_people(cli: Cli) -> None:
    lines = rows(cli("status"))

    assert lines[0][:2] == ["cluster", "cli,"]
    assert lines[0][-2:] == ["3", "nodes"]
    assert lines[2][:4] == ["node", "host", "state", "weight"]
    assert [(line[0], line[2], line[3]) for line in lines[3:6]] == [
        ("n1", "alive", "100"),
        ("n2", "alive", "200"),
        ("n3", "alive", "300"),
    ]


def test_a_standalone_node_is_a_cluster_of_one(tmp_path: Path) -> None:
    (tmp_path / "origin").mkdir()
    (tmp_path / "origin/object").write_bytes(b"payload")
    alone = LocalCluster(
        tmp_path / "cluster",
        [NodeSpec("alone", config={"allow_file_roots": [str(tmp_path)]})],
        etcd=None,
        volumes={"data": {"url": f"file://{tmp_path}/origin/"}},
    )

    with alone:
        address = ("--address", alone["alone"].address)
        status = CliRunner().invoke(app, ["status", "--json", *address])
        read = CliRunner().invoke(app, ["read", "penstock://data/object", *address])

    (node,) = answer(status)["nodes"]
    assert (node["id"], node["share"]) == ("alone", pytest.approx(1))
    assert read.stdout == "payload"


def test_stat_tells_size_version_and_time(cli: Cli) -> None:
    told = answer(cli("stat", MODEL, "--json"))
    text = rows(cli("stat", MODEL))

    assert (told["url"], told["size"]) == (MODEL, MODEL_BYTES)
    assert told["version"]
    assert told["modified"].endswith("+00:00")
    assert [line[0] for line in text] == ["url", "size", "version", "modified"]
    assert text[2][1] == told["version"]


def test_stat_with_refresh_sees_an_overwritten_object_at_once(cli: Cli, origin: Path) -> None:
    (origin / "fresh").write_bytes(b"1")
    before = answer(cli("stat", "penstock://models/fresh", "--json"))

    (origin / "fresh").write_bytes(b"22")
    after = answer(cli("stat", "penstock://models/fresh", "--json", "--refresh"))

    assert (before["size"], after["size"]) == (1, 2)


def test_an_origin_url_inside_a_volume_serves_as_well(cli: Cli, origin: Path) -> None:
    told = answer(cli("stat", f"file://{origin}/llama/model.bin", "--json"))

    assert told["size"] == MODEL_BYTES


def test_ls_tells_every_object_over_all_pages(cli: Cli) -> None:
    expected = [f"penstock://models/many/{number:04}" for number in range(LISTED)]

    lines = rows(cli("ls", "penstock://models/many/"))
    told = answer(cli("ls", "penstock://models/many/", "--json"))

    assert [line[-1] for line in lines] == expected
    assert [listed["url"] for listed in told["objects"]] == expected
    assert told["objects"][0]["size"] == 0


def test_ls_of_nothing_prints_nothing_and_says_so(cli: Cli) -> None:
    text = cli("ls", "penstock://models/absent/")

    assert (text.exit_code, text.stdout) == (0, "")
    assert text.stderr == "penstock: no objects below penstock://models/absent/\n"
    assert answer(cli("ls", "penstock://models/absent/", "--json")) == {"objects": []}


def test_locate_tells_owners_and_holders_of_each_chunk(cli: Cli) -> None:
    assert cli("read", MODEL, "-o", "/dev/null").exit_code == 0

    told = answer(cli("locate", MODEL, "--json"))

    assert told.keys() >= {"object", "chunks"}
    assert told["object"].keys() >= {"url", "version", "size", "chunk_size"}
    assert (told["object"]["size"], told["object"]["chunk_size"]) == (MODEL_BYTES, CHUNK)
    assert [chunk["index"] for chunk in told["chunks"]] == list(range(41))
    assert all(chunk.keys() >= {"index", "id", "owners", "held_by"} for chunk in told["chunks"])
    assert all(chunk["held_by"] == chunk["owners"] for chunk in told["chunks"])
    assert all(len(bytes.fromhex(chunk["id"])) == 16 for chunk in told["chunks"])


def test_locate_sums_up_each_node_and_shows_chunks_when_asked(cli: Cli) -> None:
    told = answer(cli("locate", MODEL, "--json"))
    owned = {node: sum(chunk["owners"] == [node] for chunk in told["chunks"]) for node in NODES}

    lines = rows(cli("locate", MODEL))
    with_chunks = rows(cli("locate", MODEL, "--chunks"))

    assert {line[0]: int(line[-2]) for line in lines[3:]} == owned
    assert {node["id"]: node["owned"] for node in told["nodes"]} == owned
    assert sum(node["expected_share"] for node in told["nodes"]) == pytest.approx(1)
    assert with_chunks[: len(lines)] == lines
    assert [line[1] for line in with_chunks[len(lines) + 2 :]] == [
        chunk["id"] for chunk in told["chunks"]
    ]


def test_evict_drops_an_object_from_every_node(cli: Cli) -> None:
    assert cli("read", MODEL, "-o", "/dev/null").exit_code == 0

    told = answer(cli("evict", MODEL, "--json"))
    again = cli("evict", MODEL)

    assert told == {"chunks": 41, "bytes": told["bytes"], "unreachable": []}
    assert told["bytes"] >= MODEL_BYTES
    assert again.stdout == "evicted 0 chunks, 0 B\n"
    assert not any(chunk["held_by"] for chunk in answer(cli("locate", MODEL, "--json"))["chunks"])


def test_a_preview_moves_nothing_and_a_set_weight_is_in_force_when_told(cli: Cli) -> None:
    assert cli("read", MODEL, "-o", "/dev/null").exit_code == 0
    before = answer(cli("status", "--json"))

    preview = answer(cli("weight", "set", "n3=30", "--dry-run", "--json"))
    unchanged = answer(cli("status", "--json"))
    done = cli("weight", "set", "n3=30", "n1=50", "--reason", "maintenance")
    after = answer(cli("status", "--json"))
    table = rows(cli("status"))
    lifted = answer(cli("weight", "auto", "n3", "n1", "--json"))

    assert preview.keys() >= {"moves"}
    assert {(move["source"], move["target"]) for move in preview["moves"]} == {
        ("n3", "n1"),
        ("n3", "n2"),
    }
    keys = {"source", "target", "share", "cached_bytes"}
    assert all(move.keys() >= keys for move in preview["moves"])
    assert sum(move["cached_bytes"] for move in preview["moves"]) > 0
    assert unchanged["epoch"] == before["epoch"]
    assert done.stdout == f"in force at epoch {after['epoch']}: n1 weighs 50, n3 weighs 30\n"
    assert [(n["weight"], n["weight_source"]) for n in after["nodes"]] == [
        (50, "override"),
        (200, "auto"),
        (30, "override"),
    ]
    assert [line[3] for line in table[3:6]] == ["*50", "200", "*30"]
    assert lifted == {"epoch": after["epoch"] + 1, "weights": {"n1": 100, "n3": 300}}


def test_what_a_preview_tells_is_a_table_for_people(cli: Cli) -> None:
    lines = rows(cli("weight", "set", "n2=0", "--dry-run"))

    assert lines[0] == ["from", "to", "share", "cached", "chunks"]
    assert [line[:2] for line in lines[1:3]] == [["n2", "n1"], ["n2", "n3"]]
    assert lines[-1][-3:] == ["nothing", "was", "changed"]


def test_a_node_that_is_away_is_forgotten_and_may_come_back(
    cli: Cli, cluster: LocalCluster
) -> None:
    lost = restart_with_short_lease(cluster, "n1")
    alive = cli("forget", "n1")
    lost.kill()

    def states() -> list[str]:
        return [node["state"] for node in answer(cli("status", "--json"))["nodes"]]

    wait_until(lambda: states() == ["away", "alive", "alive"], deadline_s=20, what="n1 is away")
    summary = rows(cli("status"))[0]
    forgotten = answer(cli("forget", "n1", "--json"))
    left = answer(cli("status", "--json"))
    cluster["n1"].start()
    cluster.wait_placed(3)

    assert alive.exit_code == 1
    assert "alive on" in alive.stderr
    assert summary[-2:] == ["1", "away"]
    assert forgotten == {"node": "n1", "epoch": left["epoch"]}
    assert [node["id"] for node in left["nodes"]] == ["n2", "n3"]


def test_settings_are_read_and_changed(cli: Cli) -> None:
    before = answer(cli("settings", "get", "--json"))

    changed = rows(cli("settings", "set", "open_stale_s=2h", "list_ttl_s=1500ms"))
    table = rows(cli("settings", "get"))
    bare = cli("settings", "get", "chunk_size")
    back = answer(cli("settings", "set", f"open_stale_s={before['open_stale_s']}", "--json"))

    assert (before["chunk_size"], before["open_stale_s"]) == (CHUNK, 3600)
    assert changed == [
        ["open_stale_s:", "7200s", "(was", "3600s)"],
        ["list_ttl_s:", "1.5s", "(was", "5s)"],
    ]
    assert ["open_stale_s", "7200s", "3600s"] in table
    assert bare.stdout == f"{CHUNK}\n"
    assert back == {**before, "list_ttl_s": 1.5}


def test_an_origin_of_a_catalogued_volume_may_have_options_and_a_secret_of_its_own(
    cli: Cli,
) -> None:
    origins = ("--catalogued", "--origin", "s3://own/", "--origin", "s3://far/")
    shared = ("--option", "region=x", "--option", "allow_http=true", "--secret", "far")
    own = ("--origin-option", "s3://own/ region=y", "--origin-secret", "s3://own/ near")

    added = answer(cli("volume", "add", "lake", *origins, *shared, *own, "--json"))
    wrong = cli("volume", "add", "pond", *origins, "--origin-option", "s3://other/ region=y")
    cli("volume", "rm", "lake")

    assert added["origins"] == [
        {"url": "s3://own/", "options": {"region": "y", "allow_http": "true"}, "secret": "near"},
        {"url": "s3://far/", "options": {"region": "x", "allow_http": "true"}, "secret": "far"},
    ]
    assert wrong.exit_code == 2
    assert "--origin urls" in wrong.output


def test_volumes_are_added_shown_replaced_and_removed(cli: Cli, origin: Path) -> None:
    inner = f"file://{origin}/llama"

    added = answer(cli("volume", "add", "llama", inner, "--json"))
    read = cli("stat", "penstock://llama/empty")
    replaced = cli("volume", "add", "llama", f"file://{origin}/many", "--replace")
    shown = answer(cli("volume", "ls", "--json"))
    table = rows(cli("volume", "ls"))
    removed = cli("volume", "rm", "llama")

    assert added == {
        "name": "llama",
        "url": f"{inner}/",
        "options": {},
        "secret": None,
        "catalogued": False,
        "origins": [],
        "replicas": None,
        "limits": {},
        "writable": False,
    }
    assert read.exit_code == 0, read.output
    assert replaced.stdout == f"penstock://llama/ is file://{origin}/many/\n"
    assert [(volume["name"], volume["url"]) for volume in shown["volumes"]] == [
        ("llama", f"file://{origin}/many/"),
        ("models", f"file://{origin}/"),
    ]
    assert table[1][:2] == ["llama", f"file://{origin}/many/"]
    assert removed.stdout == "removed volume llama\n"
    assert "llama" not in cli("volume", "ls").stdout.split()


def test_a_volume_keeps_all_that_it_was_given(cli: Cli) -> None:
    words = ["--option", "region=eu-west-1", "--option", "timeout=5s", "--secret", "keys"]
    words += ["--replicas", "2", "--writable"]

    added = answer(cli("volume", "add", "far", "s3://bucket/a", *words, "--json"))
    shown = answer(cli("volume", "ls", "--json"))["volumes"]
    table = rows(cli("volume", "ls"))
    cli("volume", "rm", "far")

    assert added["secret"] == "keys"
    assert added["options"] == {"region": "eu-west-1", "timeout": "5s"}
    assert added["replicas"] == 2
    assert added["writable"] is True
    assert added in shown
    assert table[1][:4] == ["far", "s3://bucket/a/", "keys", "2"]


def test_a_volume_keeps_its_limits(cli: Cli) -> None:
    words = ["--limit", "requests_per_s=100", "--limit", "bytes_per_s=1GB"]

    added = answer(cli("volume", "add", "far", "s3://bucket/a", *words, "--json"))
    shown = answer(cli("volume", "ls", "--json"))["volumes"]
    table = cli("volume", "ls").stdout
    cli("volume", "rm", "far")

    assert added["limits"] == {"requests_per_s": 100.0, "bytes_per_s": 10**9}
    assert added in shown
    assert "requests_per_s=100" in table


def test_a_listing_that_fails_is_still_one_json_object(cli: Cli) -> None:
    # Plain HTTP has no listings.
    answer(cli("volume", "add", "web", "http://127.0.0.1:1/", "--json"))
    result = cli("ls", "penstock://web/", "--json")
    cli("volume", "rm", "web")

    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (told["objects"], told["error"]) == ([], "InvalidRequest")
    assert result.stderr == f"penstock: {told['message']}\n"


def test_a_good_configuration_is_summed_up(cluster: LocalCluster, cli: Cli) -> None:
    file = str(cluster["n2"].config_file)

    told = answer(cli("config", "check", file, "--json"))
    text = cli("config", "check", file)

    assert told["cluster"] == "cli"
    assert [(tier["role"], tier["capacity_bytes"]) for tier in told["tiers"]] == [
        ("owned", 32 * MIB)
    ]
    assert told["warnings"] == []
    assert text.stdout.splitlines()[-1] == f"{file} is good"


def test_a_secret_that_is_absent_here_is_a_warning(tmp_path: Path, cli: Cli) -> None:
    file = tmp_path / "node.toml"
    file.write_text(
        f'state_dir = "{tmp_path}/state"\n'
        f'tiers = [{{ path = "{tmp_path}/tier", capacity = "1GB", role = "owned" }}]\n'
        '[secrets.keys]\naccess_key_id = { env = "ABSENT_HERE" }\n'
    )

    told = answer(cli("config", "check", str(file), "--json"))

    assert [warning.partition(":")[0] for warning in told["warnings"]] == [
        "secrets.keys.access_key_id"
    ]


def test_node_ids_and_settings_complete_in_the_shell(cli: Cli) -> None:
    def completions(line: str) -> str:
        words = {
            "_PENSTOCK_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split())),
        }
        return cli(**words).output

    assert completions("penstock forget ").split() == ["n1", "n2", "n3"]
    assert completions("penstock weight set ").split() == ["n1=", "n2=", "n3="]
    assert "chunk_size" in completions("penstock settings get ")
    assert "node" in completions("penstock ").split()


@pytest.mark.parametrize(
    ("words", "name", "says"),
    [
        ("stat penstock://models/absent", "ObjectNotFound", "there is no such file"),
        ("stat penstock://nowhere/x", "NotPermitted", "there is no volume 'nowhere'"),
        ("stat s3://elsewhere/x", "NotPermitted", "lies in no volume"),
        ("stat penstock://models/../x", "InvalidRequest", ".."),
        ("locate penstock://models/absent", "ObjectNotFound", "no such file"),
        ("evict penstock://models/absent", "ObjectNotFound", "no such file"),
        ("ls penstock://nowhere/", "NotPermitted", "there is no volume 'nowhere'"),
        ("weight set gpu-9=100", "InvalidRequest", "known are: n1, n2, n3"),
        ("weight set gpu-9=100 --dry-run", "InvalidRequest", "known are: n1, n2, n3"),
        ("weight auto gpu-9", "InvalidRequest", "known are: n1, n2, n3"),
        ("forget gpu-9", "InvalidRequest", "known are n1, n2, n3"),
        ("settings get replica", "InvalidRequest", "did you mean 'replicas'?"),
        ("settings set replica=2", "InvalidRequest", "did you mean 'replicas'?"),
        ("settings set replicas=9", "InvalidRequest", "want 1 to 3"),
        ("settings set chunk_size=5", "InvalidRequest", "want a multiple of"),
        ("volume add models s3://b/", "Conflict", "there is a volume 'models' already"),
        ("volume add UPPER s3://b/", "InvalidRequest", "cannot name a volume"),
        ("volume add v ftp://b/", "InvalidRequest", "known schemes are"),
        ("volume add v s3://b/ --option regio=x", "InvalidRequest", "did you mean 'region'?"),
        ("volume add v s3://b/ --limit request_max=1", "InvalidRequest", "'requests_max'?"),
        ("volume add v s3://b/ --limit requests_max=0", "InvalidRequest", "from 1 to 1024"),
        ("volume add v s3://b/ --replicas 4", "InvalidRequest", "want 1 to 3"),
        ("volume rm absent", "InvalidRequest", "known are models"),
        ("config check /absent.toml", "InvalidConfiguration", "No such file"),
    ],
)
def test_a_refusal_names_the_fix_and_ends_with_1(
    cli: Cli, words: str, name: str, says: str
) -> None:
    result = cli(*words.split(), "--json")

    told = json.loads(result.stdout)
    assert (result.exit_code, told.get("error")) == (1, name)
    assert says in told["message"]
    assert result.stderr == f"penstock: {told['message']}\n"


@pytest.mark.parametrize(
    "words",
    [
        "stat",
        "stat model.bin",
        "stat URL --nonsense",
        "stat penstock://models/x --address nowhere",
        "read penstock://models/x --offset -1",
        "read penstock://models/x --length much",
        "read penstock://models/x --json",
        "ls model.bin",
        "locate model.bin",
        "evict model.bin",
        "evict",
        "weight",
        "weight set",
        "weight set n1",
        "weight set n1=heavy",
        "weight set n1=10001",
        "weight auto",
        "forget",
        "settings set",
        "settings set replicas",
        "volume add name",
        "volume add v s3://b/ --option region",
        "volume add v s3://b/ --limit requests_max",
        "volume rm",
        "config check",
        "nonsense",
    ],
)
def test_wrong_use_ends_with_2_and_changes_nothing(cli: Cli, words: str) -> None:
    epoch = answer(cli("status", "--json"))["epoch"]

    result = cli(*words.split())

    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert answer(cli("status", "--json"))["epoch"] == epoch


@pytest.mark.parametrize(
    "words",
    ["status", "stat penstock://models/x", "settings get", "weight set n1=1", "volume ls"],
)
def test_when_nobody_answers_the_address_is_named(cli: Cli, words: str) -> None:
    result = cli(*words.split(), "--json", PENSTOCK_ADDRESS="127.0.0.1:1")

    told = json.loads(result.stdout)
    assert (result.exit_code, told["error"]) == (1, "ClusterUnavailable")
    assert "127.0.0.1:1" in told["message"]
