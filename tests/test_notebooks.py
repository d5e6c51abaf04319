"""Every notebook runs from its first cell to its last, in its short form, and is kept as it ran."""

import pathlib

import nbclient
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.slow
@each_notebook
def test_notebook_runs_in_its_short_form(path, monkeypatch):
    monkeypatch.setenv("JAXDIFF_SHORT", "1")  # the kernel inherits it
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(FOLDER)}}
    # raises CellExecutionError with the cell and its traceback; a minute on 2 cores, more if busy
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()


@each_notebook
def test_notebook_is_kept_whole(path):
    assert path.stat().st_size < 1_500_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
