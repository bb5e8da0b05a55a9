"""What the pages of the documentation are read against: a fleet, an object store, etcd.

Responsible for: the machines that pages name, what lies in the buckets, and the services that a
reader has before a page begins: object storage, etcd, PostgreSQL. Pages start nodes and catalogs.
Not responsible for: running pages (`running`).
"""

import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock_node.testbed.etcd import etcd_binary
from penstock_node.testbed.postgres import postgres_binary
from penstock_node.testbed.s3 import weed_binary
from tests.docs.machines import Child, Fleet, Machine, end_all_of

GPU_MACHINES = ("gpu-17", "gpu-18", "gpu-19")
NAMES = {
    **dict.fromkeys(GPU_MACHINES, ()),
    "etcd-0": (),
    "s3": ("s3.internal",),
    "catalog-0": (),
    "catalog-1": (),
    "postgres": ("postgres.internal",),
    "west-0": ("etcd-west", "s3-west"),
}
S3_ENDPOINT = "http://s3.internal:8333"
FAR_ENDPOINT = "http://s3-west:8333"
KEYS = {"AWS_ACCESS_KEY_ID": "penstock-reader", "AWS_SECRET_ACCESS_KEY": "not a secret"}
"""What the object store asks for; engineers have them in their environment, as they do."""
DATABASE_PASSWORD = {"PGPASSWORD": "not a secret either"}
"""Of the role and the database ``penstock``, for the page that asks for PostgreSQL."""
EVENTS_TOKEN = {"EVENTS_TOKEN": "no secret at all"}
"""What the object store shows to the catalog, for the page that has it tell of changes."""
_EVENTS = {
    "WEED_NOTIFICATION_WEBHOOK_ENABLED": "true",
    "WEED_NOTIFICATION_WEBHOOK_ENDPOINT": "http://catalog-0:7411/events",
    "WEED_NOTIFICATION_WEBHOOK_BEARER_TOKEN": EVENTS_TOKEN["EVENTS_TOKEN"],
    "WEED_NOTIFICATION_WEBHOOK_PATH_PREFIXES": "/buckets/datasets/clicks/",
}
"""As the page's ``notification.toml`` has it: the store runs before any page does."""
BUCKETS = ("prod-models", "datasets")
FAR_BUCKETS = ("west-models",)
_ETCD = "http://etcd-0:2379"
_FAR_ETCD = "http://etcd-west:2379"
_RUN_POSTGRES = """
nobody="setpriv --reuid=nobody --regid=nogroup --clear-groups"  # It refuses to run as root.
data=/srv/postgres/data
install -d -o nobody /srv/postgres
cd /srv/postgres
echo "$PGPASSWORD" >password
$nobody "$1/initdb" --pgdata=$data --no-sync --username=penstock --pwfile=password \\
    --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8
echo "host all all all scram-sha-256" >>$data/pg_hba.conf
exec $nobody "$1/postgres" -D $data -c listen_addresses='*' -c unix_socket_directories= -c fsync=off
"""
_MAKE_DATABASE = """
until "$1/pg_isready" --quiet --host=127.0.0.1 --username=penstock; do sleep 0.1; done
"$1/createdb" --host=127.0.0.1 --username=penstock penstock
"""
_UPLOADS = {"RCLONE_S3_PROVIDER": "Other", "RCLONE_S3_ENV_AUTH": "true", **KEYS}


class Site:
    """It all. As a context manager it is there, and gone in the end."""

    def __init__(self, directory: Path) -> None:
        """Describe it; nothing is up yet.

        Args:
            directory: Holds the machines' directories and logs.
        """
        self.fleet = Fleet(directory / "fleet", NAMES)
        self._directory = directory
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.fleet)
            etcd = self._start(stack, "etcd-0", self._etcd_command(_ETCD))
            store_run = self._store_command("s3.internal", BUCKETS)
            store = self._start(stack, "s3", store_run, env={**KEYS, **_EVENTS})
            self.fleet["etcd-0"].wait_answers(f"{_ETCD}/health", server=etcd)
            self.fleet["s3"].wait_answers(f"{S3_ENDPOINT}/healthz", server=store)
            self._stack = stack.pop_all()
        return self

    def _start(
        self,
        stack: contextlib.ExitStack,
        machine: str,
        command: list[str],
        *,
        env: dict[str, str] | None = None,
        log: str = "",
    ) -> Child:
        at: Machine = self.fleet[machine]
        told = stack.enter_context((self._directory / f"{log or machine}.log").open("wb"))
        child = at.start(command, stdout=told, env={**at.environment, **(env or {})})
        stack.callback(end_all_of, child)
        return child

    def _etcd_command(self, url: str) -> list[str]:
        return [
            str(etcd_binary()),
            "--data-dir=/srv/etcd",
            "--listen-client-urls=http://0.0.0.0:2379",
            f"--advertise-client-urls={url}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _store_command(self, host: str, buckets: Sequence[str]) -> list[str]:
        return [
            *("bash", "-c", 'mkdir -p /srv/s3 && exec "$@"', "weed"),
            *(str(weed_binary()), "mini", "-dir=/srv/s3", f"-ip={host}"),
            *("-ip.bind=0.0.0.0", "-webdav=false", "-admin.ui=false"),
            *("-master.telemetry=false", "-volume.max=1000", f"-bucket={','.join(buckets)}"),
        ]

    def start_database(self) -> None:
        """Start PostgreSQL on ``postgres.internal``, with an empty database ``penstock``.

        It goes on until the end.
        """
        programs = str(postgres_binary("initdb").parent)
        command = ["bash", "-ec", _RUN_POSTGRES, "postgres", programs]
        self._start(self._stack, "postgres", command, env=DATABASE_PASSWORD)
        make = ["bash", "-ec", _MAKE_DATABASE, "database", programs]
        self.fleet["postgres"].run(make, env=DATABASE_PASSWORD)

    def start_far_region(self) -> None:
        """Start etcd and the object store of ``west-0``, the machine of another region.

        They go on until the end.
        """
        store = self._store_command("s3-west", FAR_BUCKETS)
        store_run = self._start(self._stack, "west-0", store, env=KEYS, log="west-store")
        self.fleet["west-0"].wait_answers(f"{FAR_ENDPOINT}/healthz", server=store_run)
        etcd = self._start(self._stack, "west-0", self._etcd_command(_FAR_ETCD))
        self.fleet["west-0"].wait_answers(f"{_FAR_ETCD}/health", server=etcd)

    def upload(self, objects: Path) -> None:
        """Put objects into the buckets, past any node.

        Args:
            objects: Holds a directory for each bucket.
        """
        source = Path(tempfile.mkdtemp(dir=self.fleet.exchange))
        shutil.copytree(objects, source, dirs_exist_ok=True)
        environment = {**_UPLOADS, "RCLONE_S3_ENDPOINT": S3_ENDPOINT}
        for bucket in source.iterdir():
            words = ["rclone", "copy", str(bucket), f":s3:{bucket.name}", "--retries=20"]
            self.fleet["s3"].run(words, env=environment)
        shutil.rmtree(source)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
