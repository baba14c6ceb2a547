# SPDX-License-Identifier: MIT
"""Build a kernel that finds faults of modules, from the distribution's source, into the lab's cache.

debug-kernel.py SERIES [VARIANT]

Its configuration is tests/harden/debug.config, and VARIANT.config on top. What is printed is its
release, which the lab takes like any other: pylivepatch lab run --kernel RELEASE. It is built once for
each source and configuration, which takes a quarter of an hour of one processor and 3 GB.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from pylivepatch.lab import apt, cache, kernel

TOP = Path(__file__).parents[1]
HARDEN = TOP / "tests/harden"
# Of a build, what modules are built with.
KEPT = ("scripts", "tools", "include", "arch", "Makefile", "Kbuild", "Module.symvers", ".config", "System.map")


def make(tree: Path, *words: str) -> None:
    """Run make, quietly; on a failure show its end."""
    done = subprocess.run(["make", "-C", tree, "-s", f"-j{os.cpu_count()}", *words], capture_output=True, text=True,
                          check=False, stdin=subprocess.DEVNULL, env=os.environ | {"LC_ALL": "C"})  # fmt: skip
    if done.returncode:
        sys.exit("\n".join([f"make {' '.join(words)} failed:", *(done.stdout + done.stderr).splitlines()[-25:]]))


def configure(tree: Path, configs: list[Path], local: str) -> None:
    """Configure a tree, and see that it has what was asked for."""
    make(tree, "tinyconfig")
    subprocess.run([tree / "scripts/kconfig/merge_config.sh", "-m", ".config", *configs], cwd=tree, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    with (tree / ".config").open("a") as config:
        config.write(f'CONFIG_LOCALVERSION="{local}"\n# CONFIG_LOCALVERSION_AUTO is not set\n')
    make(tree, "olddefconfig")
    got = set((tree / ".config").read_text().splitlines())
    text = "\n".join(path.read_text() for path in configs)
    wanted = dict(re.findall(r"^(?:# )?(CONFIG_\w+)(.*)$", text, re.MULTILINE))
    lost = [name for name, value in wanted.items() if value.startswith("=") and name + value not in got]
    if lost:
        sys.exit(f"this kernel does not take {', '.join(lost)}")


def build(series: str, variant: str) -> str:
    """Build a kernel, or find it in the cache; its release."""
    import sources

    listed = sources.newest(series)
    configs = [HARDEN / "debug.config", *([HARDEN / f"{variant}.config"] if variant else [])]
    digest = cache.digest([listed.version, *(path.read_text() for path in configs)])[:8]
    upstream = re.match(r"\d+\.\d+\.\d+", listed.version)
    if upstream is None:
        sys.exit(f"{listed.name} has the version {listed.version}")
    local = f"-debug.{digest}-amd64"
    release = upstream[0] + local
    name = f"{release}_0"
    place = f"usr/src/linux-headers-{release}"

    def fill(into: Path) -> None:
        tree = into / place
        tree.mkdir(parents=True)
        apt.unpack([apt.Package(listed.name, listed.version)], into / "package", into / "debs", listed.distribution)
        [ball] = (into / "package").rglob(f"{listed.name}.tar.*")
        subprocess.run(["tar", "-xf", ball, "-C", tree, "--strip-components=1"], check=True)
        shutil.rmtree(into / "package")
        configure(tree, configs, local)
        make(tree, "bzImage", "modules")
        make(tree, "modules_install", f"INSTALL_MOD_PATH={into / 'boot'}")
        (into / "boot/lib/modules" / release).mkdir(parents=True, exist_ok=True)
        for wanted, built in (("vmlinuz", "arch/x86/boot/bzImage"), ("vmlinux", "vmlinux"), ("config", ".config"),
                              ("System.map", "System.map")):  # fmt: skip
            shutil.copy(tree / built, into / "boot" / wanted)
        subprocess.run(["strip", "--strip-debug", into / "boot/vmlinux"], check=True)
        subprocess.run(["depmod", "-b", into / "boot", release], check=True)
        for path in tree.iterdir():
            if path.name not in KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in [*tree.glob("arch/**/*.o"), *tree.glob("arch/x86/boot/**/vmlinux*")]:
            path.unlink()

    check = (f"{place}/Makefile", f"{place}/Module.symvers", f"{place}/scripts/mod/modpost", "boot/vmlinux")
    built = cache.entry("headers", name, fill, check=check, notice=f"building the kernel {release}", in_place=True)

    def publish(into: Path) -> None:
        shutil.copytree(built / "boot", into, dirs_exist_ok=True, symlinks=True)
        for link in ("build", "source"):
            (into / "lib/modules" / release / link).unlink(missing_ok=True)
        # The lowest version there is: nobody gets it who asks for a series.
        (into / kernel.FACTS).write_text(json.dumps(["0", "", ""]))

    check = ("vmlinuz", "vmlinux", "config", f"lib/modules/{release}/modules.dep.bin", kernel.FACTS)
    cache.entry("stock", name, publish, check=check)
    return release


sys.path.insert(0, str(TOP / "tests"))
if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("debug-kernel.py SERIES [VARIANT]")
    print(build(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""))
