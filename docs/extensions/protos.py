"""The wire in the reference: services, methods and messages with the comments of the sources.

Responsible for: ``{proto} NAME``. What there is comes from the generated descriptors, and so is
what programs use; comments, which those do not keep, from ``proto/penstock/v1/NAME.proto``.
"""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generated import MarkdownDirective, code, table
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from sphinx.application import Sphinx

SOURCES = Path(__file__).parents[2] / "proto/penstock/v1"
_SCALARS = {
    value: name.removeprefix("TYPE_").lower()
    for name, value in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}
_DECLARED = re.compile(r"(?:service|message|enum|oneof|rpc)\s+(\w+)")
_MEMBER = re.compile(r"(?:[\w.<>, ]+\s)?(\w+)\s*=\s*\d+")


class Proto(MarkdownDirective):
    """One file of the wire."""

    required_arguments = 1

    def markdown(self) -> Iterator[str]:
        """Return the lines."""
        (name,) = self.arguments
        self.env.note_dependency(str(SOURCES / f"{name}.proto"))
        comments = read_comments((SOURCES / f"{name}.proto").read_text())
        described = importlib.import_module(f"penstock.v1.{name}_pb2").DESCRIPTOR
        yield from ("", f"## {name}.proto", "", comments.get("", ""), "")
        for service in described.services_by_name.values():
            yield from _service(service, comments)
        for message in described.message_types_by_name.values():
            yield from _message(message, comments)
        for enum in described.enum_types_by_name.values():
            yield from _enum(enum, comments)


def read_comments(text: str) -> dict[str, str]:
    """Return what stands above each declaration, by its path of names; of the file: by ``""``."""
    comments: dict[str, str] = {}
    above: list[str] = []
    path: list[str] = []
    for line in map(str.strip, text.splitlines()):
        if line.startswith("//"):
            above.append(line.removeprefix("//").strip())
            continue
        if line.startswith("syntax"):
            comments[""] = " ".join(above)
        declared = _DECLARED.match(line) or _MEMBER.match(line)
        if declared and above:
            comments[".".join([*path, declared[1]])] = " ".join(above)
        if line.endswith("{"):
            path.append(declared[1] if declared else "")
        elif line.startswith("}") and path:
            path.pop()
        above = []
    return comments


def _service(service: Any, comments: dict[str, str]) -> Iterator[str]:
    yield from ("", f"### service {service.name}", "", comments.get(service.name, ""), "")
    yield from table(
        ("method", "request → answer", "what it does"),
        (
            (
                code(method.name),
                _signature(method),
                comments.get(f"{service.name}.{method.name}", ""),
            )
            for method in service.methods
        ),
    )


def _signature(method: Any) -> str:
    request, answer = method.input_type.name, method.output_type.name
    sent = "stream of " if method.client_streaming else ""
    told = "stream of " if method.server_streaming else ""
    return f"{sent}`{request}` → {told}`{answer}`"


def _message(message: Descriptor, comments: dict[str, str], above: str = "") -> Iterator[str]:
    path = f"{above}{message.name}"
    yield from ("", f"### message {path}", "", comments.get(path, ""), "")
    rows = [
        (str(field.number), code(field.name), _type(field), _comment(path, field, comments))
        for field in message.fields
    ]
    yield from table(("", "field", "type", "what it says"), rows)
    for nested in message.nested_types:
        if not nested.GetOptions().map_entry:
            yield from _message(nested, comments, f"{path}.")
    for enum in message.enum_types:
        yield from _enum(enum, comments, f"{path}.")


def _comment(path: str, field: FieldDescriptor, comments: dict[str, str]) -> str:
    choice = field.containing_oneof
    if choice is None or choice.name.startswith("_"):
        return comments.get(f"{path}.{field.name}", "")
    inside = comments.get(f"{path}.{choice.name}.{field.name}", "")
    return f"One of `{choice.name}`. {inside}"


def _type(field: FieldDescriptor) -> str:
    kind = field.message_type or field.enum_type
    if kind is None:
        name = _SCALARS[field.type]
    elif isinstance(kind, Descriptor) and kind.GetOptions().map_entry:
        key, value = kind.fields_by_name["key"], kind.fields_by_name["value"]
        return f"map of {_type(key)} to {_type(value)}"
    else:
        name = kind.name
    return f"{'repeated ' if field.is_repeated else ''}`{name}`"


def _enum(enum: EnumDescriptor, comments: dict[str, str], above: str = "") -> Iterator[str]:
    path = f"{above}{enum.name}"
    yield from ("", f"### enum {path}", "", comments.get(path, ""), "")
    rows = [
        (str(v.number), code(v.name), comments.get(f"{path}.{v.name}", "")) for v in enum.values
    ]
    yield from table(("", "value", "what it says"), rows)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register it."""
    app.add_directive("proto", Proto)
    return {"parallel_read_safe": True}
