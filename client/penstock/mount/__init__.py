"""Objects as files of this machine: a read-only mount, served to the kernel by this process."""

from penstock.mount.session import Mount, MountOptions

__all__ = ["Mount", "MountOptions"]
