"""docs/notebook.ipynb runs from its first cell to its last, and shows what it was committed with."""

from pathlib import Path

from tests.notebook import execute, read_cells


def test_the_notebook_runs(tmp_path: Path) -> None:
    cells = read_cells()
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    shown = execute(cells, tmp_path)
    kinds = [[(output["output_type"], [*output.get("data", {})]) for output in outputs] for outputs in shown]
    assert kinds == [
        [(output["output_type"], [*output.get("data", {})]) for output in cell["outputs"]] for cell in cells
    ]
    for outputs, cell in zip(shown, cells, strict=True):  # trained numbers differ a little between processors
        for output, committed in zip(outputs, cell["outputs"], strict=True):
            assert len(output.get("text", [])) == len(committed.get("text", []))
    assert shown[-1] == cells[-1]["outputs"]  # the sweep's best learning rate
