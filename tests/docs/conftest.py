"""What the pages of the documentation are read against, made once for those that share it."""

from collections.abc import Iterator

import pytest

from tests.docs.machines import can_make_machines
from tests.docs.models import make_objects
from tests.docs.site import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Machines, an object store and etcd; no node yet."""
    if not can_make_machines():
        pytest.skip("machines are namespaces: this needs root, and a kernel that lets it")
    objects = tmp_path_factory.mktemp("objects")
    make_objects(objects)
    with Site(tmp_path_factory.mktemp("site")) as made:
        made.upload(objects)
        yield made
