"""What the kernel tells of the machine, read as it writes it."""

from pathlib import Path

import pytest

from penstock_node.support.machine import mount_of

MOUNTS = r"""22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 8:17 / /mnt/donn\303\251es rw,noatime - xfs /dev/sdb1 rw
31 22 8:33 / /mnt/modèles rw,noatime - btrfs /dev/sdc1 rw
32 22 8:49 / /mnt/two\040words\134 rw shared:9 - tmpfs tmpfs rw,size=64g
33 22 8:65 / /mnt/m\351 rw - ext3 /dev/sdd1 rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/mnt/données/cache", "xfs"),
        ("/mnt/modèles", "btrfs"),
        ("/mnt/two words\\/x", "tmpfs"),
        ("/mnt/other", "ext4"),
    ],
)
def test_a_mount_is_found_whatever_its_path_is_made_of(path: str, kind: str) -> None:
    assert mount_of(Path(path), MOUNTS)["type"] == kind
