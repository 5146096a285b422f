#!/usr/bin/env python3
"""A second reader and writer of the bytes of OmniMesh, checked against the test vectors.

It was written from docs/protocol.md alone and shares no code with the node. So where it passes, the document
is enough to write another implementation, and the vectors are what the document says. Its parts are in the folder
`vectors` beside this file, and follow the sections of the document.

    python3 tests/verify_vectors.py [docs/vectors]

Needs the packages in tests/requirements.txt. Exit status 1 if any case failed.
"""

import sys
from pathlib import Path

from vectors.files import CHECKS, check_file

VECTORS = Path(__file__).resolve().parent.parent / "docs" / "vectors"


def main(arguments):
    directory = Path(arguments[0]) if arguments else VECTORS
    # The files that should be there as well as those that are: one that is missing is a failure.
    paths = {directory / f"{name}.json" for name in CHECKS} | set(directory.glob("*"))
    results = [check_file(path) for path in sorted(paths)]
    passed, failed = (sum(column) for column in zip(*results))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
