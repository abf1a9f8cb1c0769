"""Execute docs/notebook.ipynb as Jupyter does, without Jupyter: `python -m tests.notebook` writes its outputs anew."""

import ast
import base64
import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebook.ipynb"


def read_cells() -> list[dict[str, Any]]:
    """Return the notebook's cells of code."""
    cells: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def execute(cells: list[dict[str, Any]], folder: Path) -> list[list[dict[str, Any]]]:
    """Execute the cells one after the other, in the folder, and return what each shows."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.chdir(folder) if hasattr(contextlib, "chdir") else working_in(folder):
        return [outputs_of("".join(cell["source"]), namespace, number) for number, cell in enumerate(cells, 1)]


@contextlib.contextmanager
def working_in(folder: Path) -> Any:
    """Work in the folder (Python 3.10 has no contextlib.chdir)."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def outputs_of(source: str, namespace: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Return what a cell prints and the value of its last expression, as a notebook holds them."""
    body, printed, value = ast.parse(source).body, io.StringIO(), None
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), f"cell {number}", "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), namespace)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": lines(printed.getvalue())})
    if value is not None:
        data: dict[str, Any] = {"text/plain": lines(repr(value))}
        if hasattr(value, "_repr_png_"):
            data = {"image/png": base64.b64encode(value._repr_png_()).decode(), "text/plain": ["an image"]}
        outputs.append({"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"})
    return outputs


def lines(text: str) -> list[str]:
    """Return the text as a notebook holds it: a list of lines with their ends."""
    return text.splitlines(keepends=True)


def rewrite() -> None:
    """Write the notebook with the outputs that it has now."""
    notebook = json.loads(NOTEBOOK.read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    with tempfile.TemporaryDirectory() as folder:
        for number, (cell, outputs) in enumerate(zip(cells, execute(cells, Path(folder)), strict=True), 1):
            cell |= {"outputs": outputs, "execution_count": number}
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    rewrite()
