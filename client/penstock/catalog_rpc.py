"""The catalog's calls: their paths and messages, and files as messages and back."""

from penstock.catalog_file import CatalogChange, CatalogFile, FileCopy, LocatedFile
from penstock.errors import CatalogUnavailable, NodeUnavailable
from penstock.mirror_rules import BroughtVolume, MirrorRules
from penstock.rpc import Channels, Method, Request, Response
from penstock.v1 import catalog_pb2

_SERVICE = "/penstock.v1.Catalog"

STAT_FILE = Method(f"{_SERVICE}/Stat", catalog_pb2.StatFileRequest, catalog_pb2.StatFileResponse)
LIST_FILES = Method(f"{_SERVICE}/List", catalog_pb2.ListFilesRequest, catalog_pb2.ListFilesResponse)
LIST_VERSIONS = Method(
    f"{_SERVICE}/Versions", catalog_pb2.ListVersionsRequest, catalog_pb2.ListVersionsResponse
)
USAGE = Method(f"{_SERVICE}/Usage", catalog_pb2.UsageRequest, catalog_pb2.UsageResponse)
LIST_CHANGES = Method(
    f"{_SERVICE}/Changes", catalog_pb2.ListChangesRequest, catalog_pb2.ListChangesResponse
)
DESCRIBE = Method(
    f"{_SERVICE}/Describe",
    catalog_pb2.DescribeCatalogRequest,
    catalog_pb2.DescribeCatalogResponse,
)
SET_MIRROR_RULES = Method(
    f"{_SERVICE}/SetMirrorRules",
    catalog_pb2.SetMirrorRulesRequest,
    catalog_pb2.SetMirrorRulesResponse,
)
LOOK = Method(f"{_SERVICE}/Look", catalog_pb2.LookRequest, catalog_pb2.LookResponse)
START_IMPORT = Method(
    f"{_SERVICE}/StartImport", catalog_pb2.StartImportRequest, catalog_pb2.StartImportResponse
)
FOLLOW_IMPORT = Method(
    f"{_SERVICE}/FollowImport", catalog_pb2.FollowImportRequest, catalog_pb2.FollowImportResponse
)
STOP_IMPORT = Method(
    f"{_SERVICE}/StopImport", catalog_pb2.StopImportRequest, catalog_pb2.StopImportResponse
)
WATCH = Method(f"{_SERVICE}/Watch", catalog_pb2.WatchRequest, catalog_pb2.WatchResponse)


def call_catalog(
    channels: Channels,
    address: str,
    method: Method[Request, Response],
    request: Request,
    *,
    timeout_s: float,
) -> Response:
    """Call ``method`` of the catalog at ``address``, empty if none is known, and wait.

    Raises:
        CatalogUnavailable: There is none, or no answer in time.
        PenstockError: What the catalog reported.
    """
    if not address:
        raise CatalogUnavailable(
            "no catalog is registered in this cluster; start one with: penstock catalog"
        )
    try:
        return channels.call(address, method, request, timeout_s=timeout_s)
    except NodeUnavailable as error:
        raise CatalogUnavailable(f"the catalog at {error}") from error


def file_to_proto(file: CatalogFile) -> catalog_pb2.CatalogFile:
    """Return a file as a message."""
    return catalog_pb2.CatalogFile(**file._asdict())


def file_from_proto(message: catalog_pb2.CatalogFile) -> CatalogFile:
    """Return the file that a message tells of."""
    return CatalogFile(
        message.path,
        message.version,
        message.size,
        message.modified_us,
        message.source_url,
        message.source_version,
    )


def located_from_proto(answer: catalog_pb2.StatFileResponse) -> LocatedFile | None:
    """Return where a file lies, as an answer tells it; None: there is no such file."""
    if not answer.HasField("file"):
        return None
    copies = tuple(FileCopy(copy.url, copy.version) for copy in answer.copies)
    return LocatedFile(file_from_proto(answer.file), copies, answer.is_mirrored)


def change_to_proto(change: CatalogChange) -> catalog_pb2.CatalogChange:
    """Return an entry of the feed as a message."""
    return catalog_pb2.CatalogChange(
        seq=change.seq,
        volume=change.volume,
        volume_uid=change.volume_uid,
        file=file_to_proto(change.file),
        is_removed=change.is_removed,
        committed_us=change.committed_us,
    )


def change_from_proto(message: catalog_pb2.CatalogChange) -> CatalogChange:
    """Return the entry of the feed that a message tells of."""
    return CatalogChange(
        message.seq,
        message.volume,
        message.volume_uid,
        file_from_proto(message.file),
        message.is_removed,
        message.committed_us,
    )


def rules_to_proto(rules: MirrorRules) -> catalog_pb2.MirrorRules:
    """Return rules as a message."""
    return catalog_pb2.MirrorRules(
        copied=rules.copied, warmed=rules.warmed, bytes_per_s=rules.bytes_per_s
    )


def rules_from_proto(message: catalog_pb2.MirrorRules) -> MirrorRules:
    """Return the rules of a message; raises `InvalidRequest` for a rate that is none."""
    return MirrorRules(tuple(message.copied), tuple(message.warmed), message.bytes_per_s)


def brought_to_proto(told: BroughtVolume) -> catalog_pb2.BroughtVolume:
    """Return how far a volume is, as a message."""
    return catalog_pb2.BroughtVolume(
        volume=told.name,
        rules=rules_to_proto(told.rules),
        seq=told.seq,
        copied_files=told.copied_files,
        copied_bytes=told.copied_bytes,
        trouble=told.trouble,
    )


def brought_from_proto(message: catalog_pb2.BroughtVolume) -> BroughtVolume:
    """Return how far a volume is, of a message."""
    return BroughtVolume(
        message.volume,
        rules_from_proto(message.rules),
        message.seq,
        message.copied_files,
        message.copied_bytes,
        message.trouble,
    )
