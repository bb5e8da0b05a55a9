"""`penstock demo`: all of it in less than a minute, and nothing left afterwards.

Responsible for: options, the demo's directory, interrupts, and the exit status.
Not responsible for: what is shown (`play`).
"""

import contextlib
import dataclasses
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeAlias

import typer
from rich.console import Console
from rich.text import Text

from penstock.cli.output import note, say_json
from penstock.errors import InvalidRequest
from penstock_node.demo import claims, drawing, figures, kept, play, tables
from penstock_node.demo.claims import Claim
from penstock_node.demo.regions import claims as region_claims
from penstock_node.demo.regions import figures as region_figures
from penstock_node.demo.regions import play as region_play
from penstock_node.demo.regions import tables as region_tables
from penstock_node.demo.regions.scene import Regions
from penstock_node.demo.scene import Model, Scene
from penstock_node.demo.stage import Stage
from penstock_node.testbed.model import model_path
from penstock_node.testbed.processes import PartFailed

Measured: TypeAlias = figures.Figures | region_figures.Figures
Tell: TypeAlias = Callable[[dict[str, Any]], object]
"""Is given the figures, to be written as JSON."""
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def demo(
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the cluster up, and say what to paste.")
    ] = False,
    mirror: Annotated[
        bool,
        typer.Option("--mirror", help="Two regions: an import, its mirror, copies, a cut link."),
    ] = False,
    stop: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="End a demo that was kept, and delete its directory."),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            metavar="DIR",
            help="Where it makes its directory; the system's temporary one by default.",
            exists=True,
            file_okay=False,
            writable=True,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the measured figures as JSON.")
    ] = False,
) -> None:
    """Show a whole cluster at work on this machine: etcd, S3, three nodes, a real model."""
    stage = Stage(output=Console(), progress=Console(stderr=True), is_silent=as_json)
    try:
        if stop is not None:
            _stop(stop, stage, as_json=as_json)
        else:
            _refuse_both(keep=keep, mirror=mirror)
            parent = directory or Path(tempfile.gettempdir())
            run(parent, stage, keep=keep, mirror=mirror, tell=say_json if as_json else None)
    except PartFailed as failed:
        note(str(failed))
        raise typer.Exit(1) from None


def _refuse_both(*, keep: bool, mirror: bool) -> None:
    if keep and mirror:
        raise InvalidRequest("--keep is for one cluster: leave out --mirror, or --keep")


def _stop(directory: Path, stage: Stage, *, as_json: bool) -> None:
    with stage.doing("stopping …"):
        ended = kept.stop_kept(directory)
    if as_json:
        say_json({"directory": str(directory), "ended": ended})
    stage.show(Text(f"ended {ended} processes and deleted {directory}"))


def run(parent: Path, stage: Stage, *, keep: bool, mirror: bool, tell: Tell | None) -> None:
    """Play a demo on a stage, in a directory of its own below ``parent``.

    Raises:
        Exit: A claim was not kept; it is told which one.
        PartFailed: A part of it did not start, or did not get where it had to.
    """
    begun = time.monotonic()
    with _interruptible_once(), contextlib.ExitStack() as stack:
        scene = _set_up(stack, parent, keep=keep, mirror=mirror)
        measured, judged = _play(scene, stage)
        stage.show(drawing.claims_table(judged))
        broken = [claim for claim in judged if not claim.is_kept]
        logs = save_logs(scene) if broken else None
        lines = _keep(stack, scene, stage) if keep and isinstance(scene, Scene) else []
    seconds = time.monotonic() - begun
    if tell is not None:
        tell(_to_json(measured, judged, seconds, scene, lines))
    stage.show(tables.ending(seconds, scene.directory, lines))
    for claim in broken:
        note(f"not so: {claim.text} (measured: {claim.measured})")
    if broken:
        note(f"what the nodes say of it is in {logs}")
        raise typer.Exit(1)


def _set_up(
    stack: contextlib.ExitStack, parent: Path, *, keep: bool, mirror: bool
) -> Scene | Regions:
    """Return a scene that has not started; ``stack`` leaves nothing of it."""
    model = Model.of(model_path(say=note))
    directory = parent.resolve() / f"penstock-demo-{secrets.token_hex(4)}"
    # Before it is made: an interrupt may come at any moment.
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    if mirror:
        scene: Scene | Regions = Regions(directory, model)
    else:
        scene = Scene(directory, model, outlives_parent=keep)
    stack.callback(scene.stop)
    stack.callback(_ignore_interrupts)
    return scene


def _play(scene: Scene | Regions, stage: Stage) -> tuple[Measured, list[Claim]]:
    if isinstance(scene, Regions):
        stage.show(region_tables.title(scene.model))
        of_regions = region_play.RegionsPlay(scene, stage).play()
        return of_regions, region_claims.judge(of_regions)
    stage.show(tables.title(scene.model))
    measured = play.Play(scene, stage).play()
    return measured, claims.judge(measured)


def save_logs(scene: Scene | Regions) -> Path:
    """Copy what the scene's parts say to where it outlives the demo; return that directory."""
    logs = scene.directory.with_name(f"{scene.directory.name}-logs")
    logs.mkdir(mode=0o700)
    for name, log in scene.logs.items():
        shutil.copy(log, logs / f"{name}.log")
    return logs


def _keep(stack: contextlib.ExitStack, scene: Scene, stage: Stage) -> list[kept.Lines]:
    """Make the cluster whole again and leave it up; return what to paste."""
    with stage.doing("starting the killed node again …"):
        scene.restart_killed()
    kept.write_record(scene)
    lines = kept.lines_to_paste(scene)
    stack.pop_all()
    scene.leave()
    return lines


def _to_json(
    measured: Measured,
    judged: Sequence[Claim],
    seconds: float,
    scene: Scene | Regions,
    lines: Sequence[kept.Lines],
) -> dict[str, Any]:
    return {
        **dataclasses.asdict(measured),
        "claims": [dataclasses.asdict(claim) for claim in judged],
        "seconds": seconds,
        "directory": str(scene.directory),
        "paste": [line for group in lines for line in group.lines],
    }


@contextlib.contextmanager
def _interruptible_once() -> Iterator[None]:
    """Let the first signal end the demo; what then cleans up is not interrupted again."""

    def interrupt(number: int, _frame: object) -> NoReturn:
        _ignore_interrupts()
        raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, interrupt) for number in _ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_interrupts() -> None:
    for number in _ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
