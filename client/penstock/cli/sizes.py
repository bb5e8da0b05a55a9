"""Sizes as arguments of verbs."""

import typer

from penstock.errors import InvalidRequest
from penstock.units import parse_size


def parse_bytes(text: str) -> int:
    """Return the bytes in ``text``.

    Raises:
        typer.BadParameter: It is not a size.
    """
    try:
        return parse_size(text)
    except InvalidRequest as error:
        raise typer.BadParameter(str(error)) from None
