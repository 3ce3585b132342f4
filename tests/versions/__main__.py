"""Build the next version and print the directory of its package.

smrx sim --seeds 20000 --jobs 2 --next-version "$(python -m tests.versions)"
"""

from tests.versions.next_version import build

print(build().package)
