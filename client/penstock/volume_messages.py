"""Volumes as messages and back."""

import json
from typing import Any

from penstock.json_text import read_json_object
from penstock.origin_limits import limits_from
from penstock.v1 import operator_pb2
from penstock.volumes import Volume


def volume_to_proto(volume: Volume) -> operator_pb2.Volume:
    """Return a volume as a message."""
    place = {} if volume.is_catalogued else _place_to_proto(volume)
    return operator_pb2.Volume(
        name=volume.name,
        limits_json=json.dumps(volume.limits.to_json()),
        replicas=volume.replicas or 0,
        writable=volume.writable,
        uid=volume.uid,
        origins=[operator_pb2.VolumeOrigin(**_place_to_proto(each)) for each in volume.origins],
        **place,
    )


def volume_from_proto(message: operator_pb2.Volume) -> Volume:
    """Return the volume that a message tells of.

    Raises:
        InvalidRequest: It is none.
    """
    limits = limits_from(json_table(message.limits_json), where=f"volume {message.name!r}")
    return Volume(
        message.name,
        message.url,
        json_table(message.options_json),
        message.secret or None,
        replicas=message.replicas or None,
        limits=limits,
        writable=message.writable,
        uid=message.uid,
        origins=tuple(
            Volume(message.name, each.url, json_table(each.options_json), each.secret or None)
            for each in message.origins
        ),
    )


def _place_to_proto(place: Volume) -> dict[str, str]:
    options = json.dumps(dict(place.options))
    return {"url": place.url, "options_json": options, "secret": place.secret or ""}


def json_table(text: str) -> dict[str, Any]:
    """Return the JSON object in a field of a message; an empty one where that is empty.

    Raises:
        InvalidRequest: It is none.
    """
    return read_json_object(text or "{}")
