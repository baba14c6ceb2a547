# SPDX-License-Identifier: MIT
"""ELF files, taken apart without trusting them. `file` reads module files."""
