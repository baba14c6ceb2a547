# SPDX-License-Identifier: MIT
"""``python -m pylivepatch``."""

from pylivepatch.cli import main

if __name__ == "__main__":
    main()
