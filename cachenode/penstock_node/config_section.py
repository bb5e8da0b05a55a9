"""What all tables of a configuration have in common, and how one names a secret."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

_REFERENCE_FORMS = 'want { env = "NAME" } or { file = "PATH" }'


class Section(BaseModel):
    """A table of the configuration. It refuses keys that it does not know."""

    # Input values stay out of messages: somebody may have pasted a secret in the wrong place.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class SecretReference(Section):
    """Where a secret value stands: exactly one of an environment variable and a file."""

    env: str = ""
    file: str = ""

    @model_validator(mode="before")
    @classmethod
    def _one_place(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or len(value) != 1 or not {"env", "file"} & set(value):
            raise ValueError(f"{_REFERENCE_FORMS}; a secret never stands here itself")
        if not all(value.values()):
            raise ValueError(f"{_REFERENCE_FORMS}, and not an empty one")
        return value

    @property
    def place(self) -> str:
        """For people: ``environment variable X`` or ``file X``."""
        return f"environment variable {self.env}" if self.env else f"file {self.file}"
