"""Rules and the dashboard, as Prometheus' own checker sees them: they parse, and each alert fires
on what it is for and is quiet just beside it. promtool is installed by `tools/peers.sh`."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.monitoring import RULES, alerts, panel_queries

PROMTOOL = shutil.which("promtool")
NODES, CATALOGS, ETCD = "penstock", "penstock-catalog", "etcd"
"""Jobs under which alerts fire, and with `-quiet` those under which they do not."""
SEVERITIES = {"critical", "warning", "info"}

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="no promtool: apt-get install prometheus"
)


@dataclass(frozen=True, slots=True)
class Case:
    """Series, a value a minute in promtool's notation, under which an alert fires."""

    fires: Mapping[str, str]
    quiet: Mapping[str, str]
    """Those under which it does not, of another job."""
    minutes: int = 60
    job: str = NODES
    count: int = 1
    """How many of it fire."""
    with_both: Mapping[str, str] = field(default_factory=dict)
    """Series of both jobs."""


def ups(down: int, of: int) -> dict[str, str]:
    """Return `up` of so many nodes, some of them down."""
    return {f'up{{instance="n{each}"}}': f"{int(each >= down)}x60" for each in range(of)}


ORIGIN = {'penstock_origin_requests_total{volume="v",operation="get"}': "0+600x60"}
FAILURES = "penstock_origin_request_failures_total"
GET = 'penstock_origin_request_duration_seconds_bucket{volume="v",operation="get",le='
READ = "penstock_read_bytes_total"
TOOK = 'penstock_read_duration_seconds_bucket{plane="bulk",source='
DAY_MIN = 1500
CASES: dict[str, Case] = {
    "PenstockNodeDown": Case({"up": "0x60"}, {"up": "1 0 1 1x60"}),
    "PenstockManyNodesDown": Case(ups(2, 5), {**ups(1, 6)}),
    "PenstockNodeAway": Case(
        {'penstock_members{state="away"}': "1x60"},
        {'penstock_members{state="away"}': "0x60", 'penstock_members{state="alive"}': "9x60"},
    ),
    "PenstockNodeNotReady": Case({"penstock_ready": "0x60"}, {"penstock_ready": "0x3 1x60"}),
    "PenstockRestartLoop": Case(
        {"process_start_time_seconds": "0+60x60"},
        {"process_start_time_seconds": "5x40 6x5 7x60"},
    ),
    "PenstockMembersSuspected": Case(
        {"penstock_members_suspected": "1x60"}, {"penstock_members_suspected": "0x55 1x5"}
    ),
    "PenstockVersionsDiffer": Case(
        {
            'penstock_build_info{instance="a",version="1"}': f"1x{DAY_MIN}",
            'penstock_build_info{instance="b",version="2"}': f"1x{DAY_MIN}",
        },
        {
            'penstock_build_info{instance="a",version="2"}': f"1x{DAY_MIN}",
            'penstock_build_info{instance="b",version="2"}': f"1x{DAY_MIN}",
        },
        minutes=DAY_MIN,
    ),
    "PenstockEtcdNotConnected": Case(
        {"penstock_etcd_connected": "0x60"}, {"penstock_etcd_connected": "1x58 0x2"}
    ),
    "PenstockTokensFileBad": Case(
        {"penstock_tokens_file_good": "0x60"}, {"penstock_tokens_file_good": "1x57 0x3"}
    ),
    "PenstockKubernetesNotFollowed": Case(
        {"penstock_kubernetes_followed": "0x60"}, {"penstock_kubernetes_followed": "0x9 1x51"}
    ),
    "PenstockEtcdDown": Case(
        {
            'penstock_etcd_connected{instance="a"}': "0x60",
            'penstock_etcd_connected{instance="b"}': "0x60",
        },
        {
            'penstock_etcd_connected{instance="a"}': "0x60",
            'penstock_etcd_connected{instance="b"}': "1x60",
        },
    ),
    "PenstockEtcdMemberDown": Case({"up": "0x60"}, {"up": "1x52 0x8"}, job=ETCD),
    "PenstockEpochsDiffer": Case(
        {
            'penstock_placement_epoch{instance="a"}': "7x60",
            'penstock_placement_epoch{instance="b"}': "8x60",
        },
        {
            'penstock_placement_epoch{instance="a"}': "8x60",
            'penstock_placement_epoch{instance="b"}': "0x60",
        },
    ),
    "PenstockHandoverStuck": Case(
        {"penstock_handoff_offered_bytes": "900x120", "penstock_handoff_done_bytes": "400x120"},
        {"penstock_handoff_offered_bytes": "900x120", "penstock_handoff_done_bytes": "0+7x120"},
        minutes=120,
    ),
    "PenstockDrainSlow": Case(
        {'penstock_node_state{state="draining"}': "1x150"},
        {'penstock_node_state{state="draining"}': "1x90 0x60"},
        minutes=150,
    ),
    "PenstockHandoverLeft": Case(
        {"penstock_handoff_left_bytes": "5x60"}, {"penstock_handoff_left_bytes": "0x60"}
    ),
    "PenstockPinsMissing": Case(
        {"penstock_pinned_bytes": "9x90", "penstock_pinned_held_bytes": "8x90"},
        {"penstock_pinned_bytes": "9x90", "penstock_pinned_held_bytes": "8x40 9x50"},
        minutes=90,
    ),
    "PenstockDiskLost": Case(
        {'penstock_disk_healthy{disk="/d"}': "0x60"}, {'penstock_disk_healthy{disk="/d"}': "1x60"}
    ),
    "PenstockDiskErrors": Case(
        {"penstock_store_read_errors_total": "0+1x60", "penstock_store_write_errors_total": "0x60"},
        {
            "penstock_store_read_errors_total": "0x50 2x60",
            "penstock_store_write_errors_total": "9x60",
        },
    ),
    "PenstockDiskSlow": Case(
        {
            'penstock_disk_operations_total{disk="/d",operation="read"}': "0+60x60",
            'penstock_disk_busy_seconds_total{disk="/d",operation="read"}': "0+12x60",
        },
        {
            'penstock_disk_operations_total{disk="/d",operation="write"}': "0+60x60",
            'penstock_disk_busy_seconds_total{disk="/d",operation="write"}': "0+12x60",
        },
    ),
    "PenstockCorruptChunks": Case(
        {"penstock_corrupt_chunks_total": "0x30 1x60"}, {"penstock_corrupt_chunks_total": "3x60"}
    ),
    "PenstockCacheChurns": Case(
        {
            'penstock_tier_evicted_bytes_total{tier="/d",role="owned"}': "0+10x480",
            'penstock_tier_capacity_bytes{tier="/d",role="owned"}': "1000x480",
        },
        {
            'penstock_tier_evicted_bytes_total{tier="/d",role="owned"}': "0+2x480",
            'penstock_tier_capacity_bytes{tier="/d",role="owned"}': "1000x480",
            'penstock_tier_evicted_bytes_total{tier="/m",role="memory"}': "0+10x480",
            'penstock_tier_capacity_bytes{tier="/m",role="memory"}': "1000x480",
        },
        minutes=480,
    ),
    "PenstockNoRoom": Case(
        {"penstock_store_not_kept_total": "0+1x60"}, {"penstock_store_not_kept_total": "0x40 1x60"}
    ),
    "PenstockTierScans": Case(
        {'penstock_tier_scanned{tier="/d",role="owned"}': "0x60"},
        {'penstock_tier_scanned{tier="/d",role="owned"}': "0x20 1x60"},
    ),
    "PenstockOriginDown": Case(
        {
            'penstock_origin_healthy{volume="v",instance="a"}': "0x60",
            'penstock_origin_healthy{volume="v",instance="b"}': "1x60",
        },
        {'penstock_origin_healthy{volume="v"}': "1x50 0x1 1x60"},
    ),
    "PenstockOriginErrors": Case(
        {f'{FAILURES}{{volume="v",error="timeout"}}': "0+60x60"},
        {f'{FAILURES}{{volume="v",error="ObjectNotFound"}}': "0+60x60"},
        with_both=ORIGIN,
    ),
    "PenstockOriginThrottles": Case(
        {f'{FAILURES}{{volume="v",error="throttled"}}': "0+20x60"},
        {f'{FAILURES}{{volume="v",error="throttled"}}': "0+10x60"},
        with_both=ORIGIN,
    ),
    "PenstockOriginRefuses": Case(
        {f'{FAILURES}{{volume="v",error="NotPermitted"}}': "0+60x60"},
        {f'{FAILURES}{{volume="v",error="NotPermitted"}}': "0+1x60"},
    ),
    "PenstockOriginSlow": Case(
        {f'{GET}"5"}}': "0+80x60", f'{GET}"10"}}': "0+100x60", f'{GET}"+Inf"}}': "0+100x60"},
        {f'{GET}"2.5"}}': "0+95x60", f'{GET}"5"}}': "0+99x60", f'{GET}"+Inf"}}': "0+100x60"},
    ),
    "PenstockOriginLimited": Case(
        {'penstock_origin_wait_seconds_total{volume="v"}': "0+1800x60"},
        {'penstock_origin_wait_seconds_total{volume="v"}': "0+600x60"},
        with_both=ORIGIN,
    ),
    "PenstockHitRatioFell": Case(
        {
            f'{READ}{{source="disk"}}': "0+9e9x1440 0+1e9x60",
            f'{READ}{{source="origin"}}': "0+1e9x1500",
        },
        {f'{READ}{{source="disk"}}': "0+9e9x1500", f'{READ}{{source="origin"}}': "0+1e9x1500"},
        minutes=DAY_MIN,
        with_both={'penstock_origin_bytes_total{volume="v"}': "0+1e9x1500"},
    ),
    "PenstockReadsFail": Case(
        {'penstock_chunk_read_failures_total{error="OriginUnavailable"}': "0+60x60"},
        {'penstock_chunk_read_failures_total{error="NotOwner"}': "0+60x60"},
        with_both={'penstock_chunk_reads_total{source="disk"}': "0+600x60"},
    ),
    "PenstockReadsRefused": Case(
        {'penstock_chunk_read_failures_total{error="Overloaded"}': "0+600x60"},
        {'penstock_chunk_read_failures_total{error="Overloaded"}': "0+60x60"},
    ),
    "PenstockReadsSlow": Case(
        {
            f'{TOOK}"disk",le="0.2"}}': "0+90x60",
            f'{TOOK}"disk",le="1.0"}}': "0+100x60",
            f'{TOOK}"disk",le="+Inf"}}': "0+100x60",
        },
        {
            f'{TOOK}"origin",le="0.2"}}': "0+90x60",
            f'{TOOK}"origin",le="1.0"}}': "0+99x60",
            f'{TOOK}"origin",le="+Inf"}}': "0+99x60",
        },
    ),
    "PenstockFillsSlow": Case(
        {
            'penstock_fill_duration_seconds_bucket{le="10.0"}': "0+80x60",
            'penstock_fill_duration_seconds_bucket{le="30.0"}': "0+100x60",
            'penstock_fill_duration_seconds_bucket{le="+Inf"}': "0+100x60",
        },
        {
            'penstock_fill_duration_seconds_bucket{le="10.0"}': "0+95x60",
            'penstock_fill_duration_seconds_bucket{le="30.0"}': "0+100x60",
            'penstock_fill_duration_seconds_bucket{le="+Inf"}': "0+100x60",
        },
    ),
    "PenstockTicketsForged": Case(
        {'penstock_tickets_refused_total{error="NotPermitted"}': "0+120x60"},
        {'penstock_tickets_refused_total{error="TicketExpired"}': "0+120x60"},
    ),
    "PenstockS3Errors": Case(
        {
            'penstock_s3_requests_total{operation="GetObject",status="503"}': "0+10x60",
            'penstock_s3_requests_total{operation="GetObject",status="200"}': "0+90x60",
        },
        {
            'penstock_s3_requests_total{operation="GetObject",status="404"}': "0+90x60",
            'penstock_s3_requests_total{operation="GetObject",status="503"}': "0+1x60",
        },
    ),
    "PenstockWarmupFailed": Case(
        {'penstock_warmup_bytes_total{outcome="failed"}': "0x50 7x60"},
        {'penstock_warmup_bytes_total{outcome="cold"}': "0x50 7x60"},
    ),
    "PenstockDescriptorsNearLimit": Case(
        {"process_open_fds": "900x60", "process_max_fds": "1000x60"},
        {"process_open_fds": "700x60", "process_max_fds": "1000x60"},
    ),
    "PenstockConnectionsNearLimit": Case(
        {
            'penstock_connections{port="bulk"}': "8e3x60",
            'penstock_connections{port="s3"}': "7e3x60",
        },
        {
            'penstock_connections{port="bulk"}': "8e3x60",
            'penstock_connections{port="s3"}': "2e3x60",
        },
        with_both={"penstock_connections_max": "16384x60"},
    ),
    "PenstockEventLoopLate": Case(
        {'penstock_event_loop_lag_seconds_bucket{le="1.0"}': "0+90x60"},
        {'penstock_event_loop_lag_seconds_bucket{le="1.0"}': "0+99x60"},
        with_both={"penstock_event_loop_lag_seconds_count": "0+100x60"},
    ),
    "PenstockMemoryWanted": Case(
        {'penstock_inflight_waiting{lane="origin"}': "20x60"},
        {'penstock_inflight_waiting{lane="origin"}': "20x56 0 20x60"},
    ),
    "PenstockCatalogDown": Case({"up": "0x60"}, {"up": "1x60"}, job=CATALOGS),
    "PenstockNoCatalog": Case(
        {"penstock_catalog_registered": "0x60"},
        {
            'penstock_catalog_registered{instance="a"}': "0x60",
            'penstock_catalog_registered{instance="b"}': "1x60",
        },
        job=CATALOGS,
    ),
    "PenstockCatalogUnavailable": Case(
        {'penstock_catalog_lookup_failures_total{error="CatalogUnavailable"}': "0+60x60"},
        {'penstock_catalog_lookup_failures_total{error="ObjectNotFound"}': "0+60x60"},
    ),
    "PenstockImportFailed": Case(
        {'penstock_catalog_imports_total{outcome="failed"}': "0x30 1x60"},
        {'penstock_catalog_imports_total{outcome="stopped"}': "0x30 1x60"},
        job=CATALOGS,
    ),
    "PenstockEventsFail": Case(
        {'penstock_catalog_events_total{outcome="failed"}': "0x50 1x60"},
        {'penstock_catalog_events_total{outcome="ignored"}': "0x50 1x60"},
        job=CATALOGS,
    ),
    "PenstockMirrorBehind": Case(
        {"penstock_mirror_lag_seconds": "0+60x60"},
        {"penstock_mirror_lag_seconds": "120x60"},
        job=CATALOGS,
    ),
    "PenstockMirrorStopped": Case(
        {"penstock_mirror_healthy": "0x60"},
        {"penstock_mirror_healthy": "1x58 0x60"},
        job=CATALOGS,
    ),
    "PenstockMirrorDoesNotBring": Case(
        {'penstock_mirror_bringing_healthy{volume="v"}': "0x60"},
        {'penstock_mirror_bringing_healthy{volume="v"}': "1x60"},
        job=CATALOGS,
    ),
}


def run(*arguments: str | Path) -> str:
    """Run promtool, and return what it says; it has to be content."""
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *map(str, arguments)], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def of_job(series: str, job: str) -> str:
    """Return a series with its job, and with an instance if it names none."""
    name, _, labels = series.rstrip("}").partition("{")
    given = labels if "instance=" in labels else f'{labels},instance="n"'.lstrip(",")
    return f'{name}{{{given},job="{job}"}}'


def rule_test(alert: str, case: Case) -> dict[str, Any]:
    """Return the test of an alert as promtool takes it."""
    fires, quiet = case.job, f"{case.job}-quiet"
    series = [
        {"series": of_job(name, job), "values": values}
        for job, some in ((fires, case.fires), (quiet, case.quiet))
        for name, values in {**some, **case.with_both}.items()
    ]
    return {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [
            {
                "expr": f'count by (job) (ALERTS{{alertname="{alert}",alertstate="firing"}})',
                "eval_time": f"{case.minutes}m",
                "exp_samples": [{"labels": f'{{job="{fires}"}}', "value": case.count}],
            }
        ],
    }


def test_each_alert_says_how_grave_it_is_and_what_with_numbers() -> None:
    found = alerts()

    assert len(found) > 40
    for name, rule in found.items():
        assert re.fullmatch(r"Penstock[A-Z][A-Za-z0-9]+", name)
        assert rule["labels"]["severity"] in SEVERITIES
        notes = rule["annotations"]
        assert notes.keys() == {"summary", "description", "runbook_url"}
        assert notes["runbook_url"] == f"docs/guide/runbook.md#{name.lower()}"
        assert re.search(r"\$value|\$labels|minute|hour", notes["description"]), name


def test_there_is_a_case_for_each_alert() -> None:
    assert CASES.keys() == alerts().keys()


@needs_promtool
def test_the_rules_are_rules() -> None:
    assert "SUCCESS" in run("check", "rules", RULES)


@needs_promtool
def test_all_that_the_dashboard_asks_for_can_be_asked(tmp_path: Path) -> None:
    queries = panel_queries()
    wrapped = [{"record": f"x:{n}", "expr": each.text} for n, each in enumerate(queries)]
    file = tmp_path / "dashboard.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": wrapped}]}))

    assert f"{len(queries)} rules found" in run("check", "rules", file)


@needs_promtool
def test_each_alert_fires_on_what_it_is_for_and_is_quiet_just_beside_it(tmp_path: Path) -> None:
    short = {name: case for name, case in CASES.items() if case.minutes < DAY_MIN}
    long = {name: case for name, case in CASES.items() if name not in short}

    files = [
        written(tmp_path / "short.yaml", short, every="1m"),
        written(tmp_path / "long.yaml", long, every="10m"),
    ]

    assert "SUCCESS" in run("test", "rules", *files)


def written(file: Path, cases: Mapping[str, Case], *, every: str) -> Path:
    """Write the tests of some alerts, whose rules are looked at every so often."""
    tests = [rule_test(alert, case) for alert, case in cases.items()]
    order = [group["name"] for group in yaml.safe_load(RULES.read_text())["groups"]]
    told = {"rule_files": [str(RULES)], "evaluation_interval": every, "group_eval_order": order}
    file.write_text(yaml.safe_dump({**told, "tests": tests}))
    return file


@needs_promtool
def test_what_an_alert_says_has_its_numbers(tmp_path: Path) -> None:
    said = {
        "exp_labels": {"severity": "warning", "job": NODES, "instance": "n"},
        "exp_annotations": {
            "summary": "n has used 90% of its descriptors",
            "description": "n has 90% of the descriptors open that it may have. Without any "
            "left it refuses connections.",
            "runbook_url": "docs/guide/runbook.md#penstockdescriptorsnearlimit",
        },
    }
    alert = "PenstockDescriptorsNearLimit"
    test = rule_test(alert, CASES[alert]) | {
        "alert_rule_test": [{"eval_time": "60m", "alertname": alert, "exp_alerts": [said]}]
    }
    file = tmp_path / "test.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]})
    )

    run("test", "rules", file)
