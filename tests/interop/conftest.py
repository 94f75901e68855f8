"""Makes the exported networks the parameters of the tests that take a `network`."""

import os
import pathlib

import lathe_driver

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "lathe"
MODELS = pathlib.Path(os.environ.get("LATHE_INTEROP_MODELS") or CACHE / "interop-models")
_rows = None
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here downloads, and a look-up would cost seconds


def exported():
    """One row a network; exports what is missing (minutes at first, a second afterwards)."""
    global _rows
    if _rows is None:
        import export_models

        _rows = export_models.export_all(MODELS, jobs=os.cpu_count())
    return _rows


def pytest_generate_tests(metafunc):
    if "network" in metafunc.fixturenames:
        names = [row.name for row in exported()] if lathe_driver.binary() else []
        metafunc.parametrize("network", names)

