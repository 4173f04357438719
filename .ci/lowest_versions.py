"""Prints the lowest versions that setup.py allows, as constraints for pip.

Usage: python .ci/lowest_versions.py EXTRA,EXTRA,…
"""

import pathlib
import subprocess
import sys
import tempfile

from packaging.requirements import Requirement


def main() -> None:
    root = pathlib.Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", folder],
            cwd=root,
            check=True,
            stdout=sys.stderr,
        )
        (metadata,) = pathlib.Path(folder).glob("*.egg-info/requires.txt")
        lines = metadata.read_text().splitlines()
    wanted, extra = {"", *sys.argv[1].split(",")}, ""
    for line in filter(None, lines):
        if line.startswith("["):
            extra = line.strip("[]")
        elif extra in wanted:
            requirement = Requirement(line)
            for each in requirement.specifier:
                if each.operator == ">=":
                    print(f"{requirement.name}=={each.version}")


if __name__ == "__main__":
    main()
