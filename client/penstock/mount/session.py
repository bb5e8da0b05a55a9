"""A mount from its beginning to its end.

Responsible for: the order of things: what can be known before is checked before, nothing is mounted
that nobody serves, and nothing is left when it ends.
Not responsible for: each of the steps.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock.cache import Cache
from penstock.errors import InvalidConfiguration, InvalidRequest, ObjectNotFound
from penstock.mount.device import Device, DeviceOptions, open_device
from penstock.mount.entries import ROOT_URL
from penstock.mount.file_system import FileSystem
from penstock.mount.messages import (
    REQUEST_BYTES_MAX,
    BadMessage,
    Opcode,
    answer_header,
    hello_answer,
    parse_hello,
    parse_request,
)
from penstock.mount.mount_point import checked_mount_point
from penstock.mount.serving import Server

READ_AHEAD_KIB = 1024
"""What the kernel reads ahead of a program, where we may say so; by itself it is 128."""
END_TIMEOUT_S = 10.0
"""Longest that what runs is waited for at the end."""


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How a mount is to be."""

    allow_other: bool = False
    """Whether other users may look into it."""
    may_hide_files: bool = False
    """Whether the directory may hold something, which is then hidden."""
    name_ttl_s: float = 1.0
    """How long the kernel believes a name, beside what the library believes of the object."""
    list_ttl_s: float = 5.0
    """How long a directory's listing is believed, beside what nodes believe of theirs."""


class Mount:
    """Objects as files below a directory. As a context manager it starts, and ends at the end."""

    def __init__(
        self,
        cache: Cache,
        directory: Path,
        *,
        url: str = ROOT_URL,
        options: MountOptions | None = None,
    ) -> None:
        """Describe a mount; nothing happens yet.

        Args:
            cache: Is read from; stays the caller's.
            directory: Where to mount.
            url: A volume, or a directory in one; by default all volumes.
            options: By default those of `MountOptions`.
        """
        self._cache = cache
        self._directory = directory
        self.url = url if url == ROOT_URL else url.rstrip("/")
        self._options = options or MountOptions()
        self._device: Device | None = None
        self._server: Server | None = None
        self.file_system: FileSystem | None = None
        """What is served; None before the start."""
        self.point = directory
        """Where it is mounted."""
        self.is_empty = False
        """Whether nothing lay at the url when it was mounted."""

    def start(self) -> None:
        """Mount, and begin to serve.

        Raises:
            InvalidRequest: The directory is not fit for a mount, or the url names an object.
            InvalidConfiguration: This machine does not let this user mount.
            PenstockError: The cluster does not tell what lies at the url.
        """
        options = self._options
        self.point = checked_mount_point(self._directory, may_hide_files=options.may_hide_files)
        self._check_url()
        self.file_system = FileSystem(
            self._cache, self.url, name_ttl_s=options.name_ttl_s, list_ttl_s=options.list_ttl_s
        )
        try:
            self._device = open_device(
                self.point, DeviceOptions(source=self.url, allow_other=options.allow_other)
            )
            _greet(self._device.descriptor)
        except BaseException:
            self.end()
            raise
        self._server = Server(self._device.descriptor, self.file_system.handle)
        self._server.start()
        _raise_read_ahead(self._device)

    def _check_url(self) -> None:
        if self.url == ROOT_URL:
            self.is_empty = not any(len(page) for page in self._cache.directory_pages(ROOT_URL))
            return
        self.is_empty = not any(len(page) for page in self._cache.list_pages(self.url + "/"))
        if not self.is_empty:
            return
        try:
            self._cache.stat(self.url)
        except (ObjectNotFound, InvalidRequest):  # A volume's own url is no object's.
            return
        raise InvalidRequest(
            f"{self.url} is an object: name the directory or the volume that it lies in"
        )

    def wait(self, timeout_s: float | None = None) -> bool:
        """Tell whether it was unmounted, waiting for that so long; None: until it is."""
        assert self._server is not None, "it was not started"
        return self._server.wait(timeout_s)

    def end(self) -> None:
        """Unmount if it is mounted, and let go of everything; again does nothing.

        Raises:
            OSError: It cannot be unmounted.
        """
        device, self._device = self._device, None
        server, self._server = self._server, None
        try:
            if device is not None:
                device.unmount()
        finally:
            is_over = True
            if server is not None:
                server.close()
                # A user's mount with open files goes on until those are closed.
                is_over = server.wait(END_TIMEOUT_S)
            if device is not None and is_over:
                device.close()
            if self.file_system is not None:
                self.file_system.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()


def _greet(descriptor: int) -> None:
    """Agree with the kernel on what both can do.

    Raises:
        InvalidConfiguration: The kernel is too old.
    """
    buffer = memoryview(bytearray(REQUEST_BYTES_MAX))
    request = parse_request(buffer[: os.readv(descriptor, [buffer])])
    try:
        if request.opcode != Opcode.INIT:
            raise BadMessage(f"the kernel begins with request {request.opcode}")
        answer = hello_answer(parse_hello(request.body))
    except BadMessage as error:
        raise InvalidConfiguration(f"this kernel cannot be served: {error}") from error
    os.writev(descriptor, [answer_header(request.unique, len(answer)), answer])


def _raise_read_ahead(device: Device) -> None:
    """Have the kernel read further ahead: larger requests, so fewer. Only root may."""
    name = f"/sys/class/bdi/{device.number}/read_ahead_kb"
    with contextlib.suppress(OSError):
        Path(name).write_text(str(READ_AHEAD_KIB), encoding="ascii")
