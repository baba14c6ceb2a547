# SPDX-License-Identifier: MIT
"""The compiled extension, its stub and the kernel's header name the same things."""

import ast
import re
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from pylivepatch._shim import ffi, lib

TOP = Path(__file__).parents[2]
STUB = TOP / "pylivepatch/_shim.pyi"
UAPI = (TOP / "kmod/uapi/klpctl.h").read_text()
PLP = (TOP / "csrc/plp.h").read_text()
CODE = re.sub(r"/\*.*?\*/", "", UAPI, flags=re.DOTALL)
PLP_CODE = re.sub(r"/\*.*?\*/", "", PLP, flags=re.DOTALL)


def _stub_class(name):
    tree = ast.parse(STUB.read_text())
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return found


def _stub_functions():
    return {node.name: node for node in _stub_class("Lib").body if isinstance(node, ast.FunctionDef)}


def _stub_constants():
    return {
        node.target.id: ast.unparse(node.annotation)
        for node in _stub_class("Lib").body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _uapi_enumerators():
    bodies = re.findall(r"\benum \w+ \{(.*?)\}", CODE, re.DOTALL)
    names = {name for body in bodies for name in re.findall(r"^\s*(\w+)", body, re.MULTILINE)}
    return {name for name in names if not name.startswith("__")}


def _uapi_defines():
    return set(re.findall(r"^#define (KLPCTL_\w+)\b", CODE, re.MULTILINE))


def test_stub_is_the_extension():
    """The stub has every name of the compiled library, and no other."""
    assert sorted(_stub_functions() | _stub_constants()) == sorted(dir(lib))


@pytest.mark.parametrize("name", sorted(_uapi_enumerators() | _uapi_defines()))
def test_uapi_is_exposed(name):
    """Each constant of the kernel's header is in the library."""
    assert name in dir(lib)


def test_uapi_was_read():
    """The header has constants of each kind, so the test above had something to do."""
    assert {"KLPCTL_CMD_EVENT", "KLPCTL_A_TASK_CPU", "KLPCTL_PATCH_FORCED"} <= _uapi_enumerators()
    assert {"KLPCTL_VERSION", "KLPCTL_A_MAX", "KLPCTL_DEVICE", "KLPCTL_IOC_WAIT"} <= _uapi_defines()


def test_library_is_the_headers():
    """The library has no name that is in neither header."""
    functions = set(re.findall(r"\b(plp_\w+)\(", PLP_CODE))
    assert set(dir(lib)) == _uapi_enumerators() | _uapi_defines() | functions


@pytest.mark.parametrize("name", sorted(_stub_constants()))
def test_constant_type(name):
    """Each constant is an integer, or text where the stub says so."""
    value = getattr(lib, name)
    if _stub_constants()[name] == "Final[int]":
        assert isinstance(value, int)
    else:
        assert _stub_constants()[name] == "Final[Text]"
        assert ffi.string(value)


@pytest.mark.parametrize("name", sorted(_stub_functions()))
def test_function_arguments(name):
    """The stub's arguments are those of the C declaration, in number and in name."""
    (declared,) = re.findall(rf"\b{name}\(([^)]*)\)", PLP_CODE)
    names = [re.search(r"\w+$", argument.strip()).group() for argument in declared.split(",")]
    arguments = _stub_functions()[name].args
    assert [argument.arg for argument in arguments.posonlyargs] == ["self", *names]
    assert not arguments.args
    assert not arguments.kwonlyargs


@pytest.mark.parametrize(("name", "struct"), [("Attr", "plp_attr"), ("Answer", "plp_answer")])
def test_struct_fields(name, struct):
    """The stub's class has the fields of the struct."""
    fields = [node.target.id for node in _stub_class(name).body if isinstance(node, ast.AnnAssign)]
    assert fields == [field for field, _ in ffi.typeof(f"struct {struct}").fields]


def test_functions_have_c_types():
    """Each function is a C function, called without the GIL, and not a Python object."""
    for name in _stub_functions():
        assert ffi.typeof(getattr(lib, name)).kind == "function"


def test_stable_abi():
    """The extension is built for the stable ABI: one file for all Python versions."""
    path = Path(__import__("pylivepatch._shim", fromlist=["lib"]).__file__)
    assert path.name == "_shim.abi3.so"
    assert ".abi3.so" in EXTENSION_SUFFIXES


FREE_THREADED = """
import runpy, sysconfig
sysconfig.get_config_vars()["Py_GIL_DISABLED"] = 1
runpy.run_path("csrc/build_shim.py", run_name="__main__")
"""
LOADED = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("pylivepatch._shim", sys.argv[1])
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)
print(made.lib.KLPCTL_NAME_LEN)
"""


def test_free_threaded(tmp_path):
    """For a Python that says it is free-threaded, the extension is compiled for that version alone, and works."""
    for folder in ("csrc", "kmod/uapi"):
        shutil.copytree(TOP / folder, tmp_path / folder)
    command = [sys.executable, "-c", FREE_THREADED]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Py_LIMITED_API" not in done.stdout
    (path,) = tmp_path.glob("pylivepatch/_shim*.so")
    assert path.name == f"_shim{EXTENSION_SUFFIXES[0]}"
    done = subprocess.run([sys.executable, "-c", LOADED, path], capture_output=True, text=True, check=True)
    assert int(done.stdout) == lib.KLPCTL_NAME_LEN
