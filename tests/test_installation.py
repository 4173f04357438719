"""What pip installs works from any folder: wheel and source distribution."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv

import pytest
from source_tree import PACKAGES, ROOT
from tiny_run import QUICK, TINY

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BUILD = "import sys, setuptools.build_meta as b; print(b.{}(sys.argv[1]))"


def run(command, cwd, **options):
    # Without PYTHONPATH: the checkout must not be what is imported.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> pathlib.Path:
    """Returns the scripts' folder of an environment with a wheel made from the sdist.

    The dependencies are those of the environment of the tests.
    """
    base = tmp_path_factory.mktemp("installed")
    source, dist = base / "checkout", base / "dist"
    for folder in (*PACKAGES, "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for file in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    name = run([sys.executable, "-c", BUILD.format("build_sdist"), dist], source).split()[-1]
    with tarfile.open(dist / name) as archive:
        archive.extractall(base / "sdist", filter="data")
    (unpacked,) = (base / "sdist").iterdir()
    wheel = run([sys.executable, "-c", BUILD.format("build_wheel"), dist], unpacked).split()[-1]
    environment = base / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    run([*install, "--no-deps", "--no-index", dist / wheel], base)
    packages = pathlib.Path(
        run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], base).strip()
    )
    # Plain folders in a .pth file are searched last, and .pth files in them are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin"


def test_an_installed_command_works_beside_packages_of_the_same_names(installed, scenes, tmp_path):
    for package in ("training", "serving"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    settings = [*TINY, *QUICK, f"data.directory={scenes}", "data.name=folder"]
    settings += ["training.epochs=1"]
    options = [word for setting in settings for word in ("--set", setting)]
    printed = run([installed / "biam", "run", "--config", "quickstart", *options], tmp_path)
    assert f"{installed / 'biam'} export runs/quickstart models/quickstart" in printed
    assert json.loads((tmp_path / "runs/quickstart/metrics.json").read_text())


def test_an_installation_has_the_configurations_by_name(installed, tmp_path):
    code = (
        "import training; from training.config.loading import shipped_configurations as s;"
        "print(training.__file__, *s())"
    )
    where, *names = run([installed / "python", "-c", code], tmp_path).split()
    assert where.startswith(str(installed.parent))
    assert names == sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
