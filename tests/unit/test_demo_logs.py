"""What a demo leaves when a claim is not kept."""

from pathlib import Path

from penstock_node.demo.command import save_logs
from penstock_node.demo.scene import Model, Scene


def test_the_nodes_logs_outlive_a_demo_whose_claims_are_not_kept(tmp_path: Path) -> None:
    directory = tmp_path / "penstock-demo-1"
    scene = Scene(directory, Model(tmp_path / "model", 0, ""), outlives_parent=False)
    for node in scene.cluster.nodes.values():
        node.process.log.write_text(f"said by {node.spec.name}")

    logs = save_logs(scene)

    assert logs == tmp_path / "penstock-demo-1-logs"
    assert {path.name: path.read_text() for path in logs.iterdir()} == {
        f"node-{ratio}.log": f"said by node-{ratio}" for ratio in (1, 2, 3)
    }
