"""The wheel: built from the source, unpacked elsewhere, imported there."""

import pathlib
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built without an isolated environment, so that no network is needed."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True, text=True)
    return next(out.glob("*.whl"))


def test_wheel_holds_the_package_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    wanted = {str(f.relative_to(ROOT)) for f in (ROOT / "jaxdiff").rglob("*.py")}
    assert wanted | {"jaxdiff/py.typed"} <= set(names)
    assert not [n for n in names if not n.startswith("jaxdiff")]
    assert any(n.endswith("licenses/LICENSE") for n in names)


def test_wheel_imports_outside_the_tree(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import jaxdiff, jaxdiff.models, pathlib; print(pathlib.Path(jaxdiff.__file__).parents[1])"
    )
    found = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(tmp_path)
