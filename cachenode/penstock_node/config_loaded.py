"""A configuration that was loaded: what those of a node and of the catalog have in common.

Responsible for: merging a file, the environment and flags (flags win over environment, environment
over file, file over defaults), telling of all problems at once, and reading secrets.
Not responsible for: which keys there are (`config_keys`), what is good (`config_checks`).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from penstock.errors import InvalidConfiguration
from penstock.volumes import Volume
from penstock_node.config_checks import check_shared, missing_secret
from penstock_node.config_keys import SharedKeys
from penstock_node.config_section import SecretReference
from penstock_node.config_sources import (
    Layer,
    Problem,
    from_flags,
    merged,
    problems_of,
    read_environment,
    read_file,
    refuse,
    unknown_keys,
)

SECRET_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class ResolvedSecret:
    """A secret's values at one moment. Its repr, and so every log, shows none of them."""

    values: Mapping[str, str] = field(repr=False)
    """The store's option to its value."""
    hosts: tuple[str, ...]
    """Whom they may be sent to."""


class LoadedKeys(SharedKeys):
    """What a process was told. It never changes; only the secrets that it names may rotate."""

    @classmethod
    def load(cls, file: Path | None, *, flags: Mapping[str, Any] | None = None) -> Self:
        """Return the configuration in ``file``, the environment and ``flags``.

        Args:
            file: TOML; None for none.
            flags: Keys as in the file, with tables nested; None as a value: not given.

        Raises:
            InvalidConfiguration: A line for each problem: the key, what is wrong, where it stands.
        """
        return cls._from_layers(read_file(file, cls) if file else None, flags=flags or {})

    @classmethod
    def _from_layers(cls, below: Layer | None, *, flags: Mapping[str, Any]) -> Self:
        environment, problems = read_environment(cls)
        layers = [from_flags(flags), environment, *([below] if below else [])]
        values = merged(layers)
        problems += unknown_keys(cls, values)
        try:
            config = cls(**{name: values[name] for name in values if name in cls.model_fields})
        except ValidationError as error:
            refuse([*problems, *problems_of(error, cls)], layers)
            raise AssertionError("a validation error has problems") from error
        refuse(problems or config.problems(), layers)
        return config

    def problems(self) -> list[Problem]:
        """Return what of it does not fit together; none: the process may start with it."""
        return check_shared(self)

    @property
    def cluster_volumes(self) -> dict[str, Volume]:
        """The volumes to write into the cluster where they are absent there, by name."""
        return {name: section.to_volume(name) for name, section in self.volumes.items()}

    def resolve_secret(self, name: str) -> ResolvedSecret:
        """Return the values of secret ``name`` as they are now: files and variables may rotate.

        Raises:
            InvalidConfiguration: There is no such secret, or no value where it should stand.
        """
        section = self.secrets.get(name)
        if section is None:
            raise InvalidConfiguration(missing_secret(self, name))
        values = {
            option: read_reference(reference, f"secrets.{name}.{option}")
            for option, reference in section.options.items()
        }
        return ResolvedSecret(values, section.hosts)

    def resolve_etcd_password(self) -> str:
        """Return etcd's password as it is now; empty when none is configured.

        Raises:
            InvalidConfiguration: There is no value where it should stand.
        """
        if self.etcd is None or self.etcd.password is None:
            return ""
        return read_reference(self.etcd.password, "etcd.password")


def read_reference(reference: SecretReference, key: str) -> str:
    """Return what stands at ``reference`` now.

    Raises:
        InvalidConfiguration: Nothing; named by ``key``.
    """
    value = _read_variable(reference, key) if reference.env else _read_file(reference, key)
    if not value:
        raise InvalidConfiguration(f"{key}: {reference.place} is empty; write the secret there")
    return value


def _read_variable(reference: SecretReference, key: str) -> str:
    if reference.env not in os.environ:
        raise InvalidConfiguration(
            f"{key}: {reference.place} is not set; set it for this process, or name another"
        )
    return os.environ[reference.env]


def _read_file(reference: SecretReference, key: str) -> str:
    try:
        with Path(reference.file).open("rb") as file:
            value = file.read(SECRET_BYTES_MAX + 1)
        if len(value) > SECRET_BYTES_MAX:
            raise InvalidConfiguration(
                f"{key}: {reference.place} has over {SECRET_BYTES_MAX} bytes"
            )
        return value.decode().rstrip("\r\n")
    except OSError as error:
        raise InvalidConfiguration(
            f"{key}: {reference.place} cannot be read: {error.strerror}"
        ) from error
    except UnicodeDecodeError:  # Its chain would show the bytes.
        raise InvalidConfiguration(f"{key}: {reference.place} is not UTF-8 text") from None
