"""Notebook cells, reloads and what a driver configured: workers compute what this process would, and say what they cannot.

Each situation is a list of cells, run one after the other in the namespace of a notebook; after each, `f` is computed
over a few rows in this process and over many in workers.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import linecache
import os
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from factory_lib.compute.run import compute
from factory_lib.errors import SignalError
from factory_lib.fingerprints.process import restore, taken
from factory_lib.signals import signal
from factory_lib.signals.fingerprint import FingerprintWarning

MODULES = {
    "nb_config": "LIMIT = 2\n_scale = 1\ndef configure(scale):\n    global _scale\n    _scale = scale\ndef scale():\n    return _scale\n",
    "nb_helper": "from nb_config import scale\nPLUS = 1\ndef h(key):\n    return len(key) * scale() + PLUS\nclass Model:\n    weight = 1\n    def go(self, key):\n        return self.weight + len(key)\nmodel = Model()\nREGISTRY = {}\ndef register(f):\n    REGISTRY[f.__name__] = f\n    return f\n",
    "nb_lazy": "LIMIT = 3\n_level = 1\ndef configure(level):\n    global _level\n    _level = level\ndef g(key):\n    return len(key) + LIMIT * _level\nclass Tool:\n    size = 1\n    def go(self):\n        return self.size\n",
    "nb_held.py": "import functools, threading\nREGISTRY = {}\ndef register(f):\n    REGISTRY[f.__name__] = f\n    return f\n@register\ndef one(key): return 1\n_only = None\nclass Only:\n    size = 1\n    known = []\n    def __init_subclass__(cls): Only.known.append(cls.size)\ndef only():\n    global _only\n    if _only is None: _only = Only()\n    return _only\nlocal = threading.local()\nlocal.k = 1\n@functools.cache\ndef made(): return sum([1, 2])\nTOTAL = made() - 3\ndef g(key): return sum(f(key) for f in REGISTRY.values()) + only().size + sum(Only.known) + local.k + TOTAL\n",
    "nb_deep/__init__.py": "",
    "nb_deep/inner.py": "from .constants import K\ndef g(key):\n    return len(key) + K\n",
    "nb_deep/constants.py": "K = 4\n",
}
RELOAD = "import importlib\nimportlib.invalidate_caches()\nimportlib.reload({0})"
SITUATIONS: dict[str, list[str]] = {
    "a cell is run again": ["def f(key): return len(key)", "def f(key): return len(key) + 1"],
    "a helper's cell is run again": ["def g(key): return 1\ndef f(key): return g(key)", "def g(key): return 2"],
    "a global is set anew": ["K = 1\ndef f(key): return len(key) + K", "K = 2"],
    "a global list grows": ["W = ['k']\ndef f(key): return sum(w in key for w in W)", "W.append('0')"],
    "a class is defined again, the object stays": ["class M:\n    def go(self, key): return 1\nm = M()\ndef f(key): return m.go(key)", "class M:\n    def go(self, key): return 2"],
    "an object is made again": ["class M:\n    def __init__(self, k): self.k = k\nm = M(1)\ndef f(key): return m.k", "m = M(2)"],
    "an attribute of an object": ["class M: pass\nm = M(); m.k = 1\ndef f(key): return m.k", "m.k = 2"],
    "a class attribute": ["class M: k = 1\ndef f(key): return M.k", "M.k = 2"],
    "super() and zero-argument cells": ["class A:\n    def go(self): return 1\nclass B(A):\n    def go(self): return super().go() + 1\ndef f(key): return B().go()", "A.go = lambda self: 5"],
    "a closure": ["def make(k):\n    def f(key): return k\n    return f\nf = make(1)", "f = make(2)"],
    "lambdas of one line": ["fs = [lambda key: 1, lambda key: 2]\nf = lambda key: fs[1](key)", "fs.reverse()"],
    "code is replaced in place": ["def f(key): return 1\ndef g(key): return 2", "f.__code__ = g.__code__"],
    "a decorated function": ["import functools\ndef d(g):\n    @functools.wraps(g)\n    def w(key): return g(key) * 2\n    return w\n@d\ndef f(key): return 1", "@d\ndef f(key): return 2"],
    "a cache is warm": ["import functools\n@functools.cache\ndef g(key): return K\nK = 1\ndef f(key): return g(key)", "K = 2\ng.cache_clear()"],
    "a dataclass of a cell": ["from dataclasses import dataclass\n@dataclass\nclass P:\n    k: int = 1\ndef f(key): return P().k", "@dataclass\nclass P:\n    k: int = 2"],
    "an enumeration of a cell": ["from enum import Enum\nclass E(Enum):\n    A = 1\n    B = 1\ndef f(key): return E.B.value", "class E(Enum):\n    A = 2\n    B = 2"],
    "a named tuple of a cell": ["from typing import NamedTuple\nclass P(NamedTuple):\n    k: int = 1\np = P()\ndef f(key): return p.k", "p = P(2)"],
    "exec in a namespace of its own": ["ns = {}\nexec('K = 1\\ndef g(key): return K', ns)\ndef f(key): return ns['g'](key)", "ns['K'] = 2"],
    "a generator function": ["def g(key): yield from (1, K)\nK = 1\ndef f(key): return sum(g(key))", "K = 2"],
    "functions that call each other": ["def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)\ndef f(key): return float(even(len(key)))", "def odd(n): return False"],
    "a function of a module is patched": ["import nb_helper\ndef f(key): return nb_helper.h(key)", "nb_helper.h = lambda key: 9"],
    "what another module imported is patched": ["import nb_helper\ndef f(key): return nb_helper.h(key)", "nb_helper.scale = lambda: 3"],
    "a module is configured": ["import nb_config, nb_helper\ndef f(key): return nb_helper.h(key)", "nb_config.configure(4)"],
    "a class of a module is patched": ["import nb_helper\ndef f(key): return nb_helper.model.go(key)", "nb_helper.Model.weight = 5", "nb_helper.Model.go = lambda self, key: 7"],
    "a registry is added to": ["import nb_helper\ndef f(key): return sum(g(key) for g in nb_helper.REGISTRY.values())", "@nb_helper.register\ndef one(key): return 1", "@nb_helper.register\ndef two(key): return 2"],
    "a module is edited and reloaded": ["import nb_helper\ndef f(key): return nb_helper.h(key)", "EDIT nb_helper PLUS = 1|PLUS = 30", RELOAD.format("nb_helper")],
    "a reload that old names do not see": ["from nb_helper import h\ndef f(key): return h(key)", "EDIT nb_helper PLUS = 1|PLUS = 30", "import nb_helper\n" + RELOAD.format("nb_helper")],
    "a module is thrown away and imported again": ["import nb_config\ndef f(key): return nb_config.LIMIT", "EDIT nb_config LIMIT = 2|LIMIT = 20", "import sys; del sys.modules['nb_config']; import nb_config"],
    "a module imported inside is configured": ["def f(key):\n    import nb_lazy\n    return nb_lazy.g(key)", "import nb_lazy; nb_lazy.configure(5)"],
    "a module imported inside is patched": ["def f(key):\n    from nb_lazy import g\n    return g(key)", "import nb_lazy; nb_lazy.g = lambda key: 3", "nb_lazy.LIMIT = 8"],
    "a class of a module imported inside is patched": ["def f(key):\n    from nb_lazy import Tool\n    return Tool().go()", "import nb_lazy; nb_lazy.Tool.size = 4", "nb_lazy.Tool.go = lambda self: 11"],
    "a module imported inside is edited, then reloaded": ["def f(key):\n    import nb_lazy\n    return nb_lazy.g(key)", "EDIT nb_lazy LIMIT = 3|LIMIT = 33", "import nb_lazy\n" + RELOAD.format("nb_lazy")],
    "a module imported inside is edited and patched, not reloaded": ["def f(key):\n    import nb_lazy\n    return nb_lazy.g(key)", "EDIT nb_lazy LIMIT = 3|LIMIT = 33", "import nb_lazy; nb_lazy.LIMIT = 8", "exec('def g(key): return 70', vars(nb_lazy))"],
    "a module of a package is edited and patched, not reloaded": ["def f(key):\n    from nb_deep.inner import g\n    return g(key)", "EDIT nb_deep/inner + K|+ 100 * K", "import nb_deep.inner; nb_deep.inner.K = 9"],
    "a module imported inside is deleted": ["def f(key):\n    import nb_lazy\n    return nb_lazy.g(key)", "from pathlib import Path; Path('nb_lazy.py').unlink()", "import nb_lazy; nb_lazy.LIMIT = 8"],
    "a module imported inside, deep, is edited": ["def f(key):\n    from nb_deep.inner import g\n    return g(key)", "import nb_deep.inner; nb_deep.inner.K = 9"],
    "what a module imported inside holds is configured": ["import nb_held; nb_held.only()\ndef f(key):\n    import nb_held\n    return nb_held.g(key)", "@nb_held.register\ndef two(key): return 10", "nb_held.only().size = 100", "class Two(nb_held.Only): size = 1000", "nb_held.local.k = 10000", "nb_held.TOTAL = 100000"],
    "modules and arguments by their names": ["import sys, nb_config\nsys.argv = ['program', '1']\nK = 10\ndef f(key): return int(sys.argv[1]) + sys.modules['__main__'].K + getattr(sys.modules['nb_config'], 'LIMIT')", "sys.argv[1] = '2'", "K = 20", "nb_config.LIMIT = 100"],
    "what is a thread's own": ["import threading\nclass L(threading.local):\n    k = 1\nl = L()\ndef f(key): return l.k", "l.k = 2"],
    "what Python and libraries are configured to": ["import decimal, sys, warnings, numpy as np\nwarnings.simplefilter('ignore')\nD = decimal.Decimal\ndef deep(n): return n and 1 + deep(n - 1)\ndef f(key):\n    try: n = deep(1500)\n    except RecursionError: n = 0\n    try: warnings.warn('odd'); w = 0\n    except UserWarning: w = 1\n    try: e = float(np.float64(1) / np.zeros(1)[0] > 0)\n    except FloatingPointError: e = 2\n    return int(D(2) / D(3) * 1000) + n + w * 10000 + e * 100000 + len(str(np.array([1 / 3])))", "decimal.getcontext().prec = 1", "sys.setrecursionlimit(sys.getrecursionlimit() + 2000)", "warnings.simplefilter('error', UserWarning)", "np.seterr(divide='raise')", "np.set_printoptions(precision=2)"],
    "what libraries that are imported inside are configured to": ["import decimal, io, torch\nfrom PIL import Image\nB = io.BytesIO(); Image.new('L', (50, 50)).save(B, 'JPEG'); B = B.getvalue()\ndef opened(data):\n    from PIL import Image\n    try: Image.open(io.BytesIO(data)).load(); return 1\n    except Exception: return 0\ndef f(key):\n    import decimal, torch\n    return opened(B) + 10 * opened(B[:-9]) + 100 * torch.are_deterministic_algorithms_enabled() + 1000 * len(str(decimal.Decimal(1) / 3))", "Image.MAX_IMAGE_PIXELS = 7", "Image.MAX_IMAGE_PIXELS = None\nfrom PIL import ImageFile; ImageFile.LOAD_TRUNCATED_IMAGES = True", "torch.use_deterministic_algorithms(True)", "decimal.getcontext().prec = 2"],
    "a module made at run time is imported inside": ["import sys, types\nm = types.ModuleType('nb_made'); m.K = 1; sys.modules['nb_made'] = m\ndef f(key):\n    import nb_made\n    return nb_made.K", "m.K = 2"],
    "the environment is set": ["import os\nos.environ['NB_K'] = '1'\ndef f(key): return int(os.environ['NB_K'])", "os.environ['NB_K'] = '2'"],
    "the folder is changed": ["from pathlib import Path\ndef f(key): return len(list(Path('.').glob('nb_mark*')))", "Path('sub').mkdir(exist_ok=True); Path('sub/nb_mark').touch()\nimport os; os.chdir('sub')"],
    "a path is added": ["K = 1\ndef f(key): return K", "import sys; from pathlib import Path\nPath('more').mkdir(exist_ok=True); Path('more/nb_more.py').write_text('K = 5')\nsys.path.insert(0, 'more')\ndef f(key):\n    import nb_more\n    return nb_more.K"],
    "a large array is changed in place": ["import numpy as np\nA = np.zeros(400_000)\ndef f(key): return A[7]", "A[7] = 3"],
}  # fmt: skip
REFUSED = {
    "a lock": ("import threading\nL = threading.Lock()\ndef f(key):\n    with L: return 1", "L is a _thread.lock"),
    "an open file": ("O = open('nb_file', 'w')\ndef f(key): return O.closed + 1", "O is a _io.TextIOWrapper"),
    "a file that is read": ("O = open(__import__('os').devnull)\ndef f(key): return O.closed + 1", "O is a _io.TextIOWrapper"),
    "a connection": ("import sqlite3\nD = sqlite3.connect(':memory:')\ndef f(key): return D.total_changes", "D is a sqlite3.Connection"),
    "a generator": ("G = (n for n in range(3))\ndef f(key): return G is not None", "G is a builtins.generator"),
    "a thread pool": ("from concurrent.futures import ThreadPoolExecutor\nP = ThreadPoolExecutor(1)\ndef f(key): return P is not None", "P is a concurrent.futures.thread.ThreadPoolExecutor"),
    "a socket": ("import socket\nS = socket.socket()\ndef f(key): return S.fileno() > 0", "S is a socket.socket"),
}  # fmt: skip


class Called:
    """Has a setup(): many rows of it are computed by workers from the start."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, key: str) -> float:
        return float(self.function(key))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One folder for all, where this process is: workers that are kept are where they were started."""
    made = tmp_path_factory.mktemp("notebook")
    before = Path.cwd()
    os.chdir(made)
    sys.path.insert(0, str(made))
    yield made
    os.chdir(before)
    sys.path.remove(str(made))


@pytest.fixture
def notebook(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """The main module of a notebook, in a folder with modules that it may import."""
    for name, text in MODULES.items():
        path = folder / (name if name.endswith(".py") else f"{name}.py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # edits within a second would not be seen
    made = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", made)
    importlib.invalidate_caches()
    linecache.clearcache()
    states, arguments = taken(), sys.argv
    with warnings.catch_warnings():
        yield made
    sys.argv = arguments
    restore(states)
    if "torch" in sys.modules:  # perhaps only since `taken()`
        sys.modules["torch"].use_deterministic_algorithms(False)
    os.chdir(folder)
    os.environ.pop("NB_K", None)
    sys.path[:] = [one for one in sys.path if one != "more"]
    for name in [name for name in sys.modules if name.startswith("nb_")]:
        del sys.modules[name]


def run_cell(cell: str, notebook: types.ModuleType) -> None:
    """Run a cell, compiled as IPython does; `EDIT module old|new` edits the file of a module instead."""
    if cell.startswith("EDIT "):
        _, name, edit = cell.split(" ", 2)
        path, (old, new) = Path(f"{name}.py"), edit.split("|")
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    else:
        name = f"<ipython-input-{hashlib.sha256(cell.encode()).hexdigest()[:12]}>"
        linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
        exec(compile(cell, name, "exec"), vars(notebook))


def values(one: Any, number: int, workers: int) -> set[float]:
    names = [f"k{place % 10}" for place in range(number)]
    ids = {"position": pa.array(range(number), pa.uint32()), "sample_id": pa.array(range(number), pa.uint64())}
    rows = pa.record_batch({"shard": ["a"] * number, **ids, "key": names})
    found = pa.Table.from_batches(compute([one], [rows], workers=workers, on_error="raise"))
    return set(found[one.name].to_pylist())


@pytest.mark.filterwarnings("ignore::factory_lib.signals.fingerprint.FingerprintWarning")
@pytest.mark.parametrize("name", SITUATIONS)
def test_workers_compute_what_this_process_does(name: str, notebook: types.ModuleType) -> None:
    fingerprints: dict[str, set[float]] = {}
    for cell in SITUATIONS[name]:
        run_cell(cell, notebook)
        one = signal(Called(vars(notebook)["f"]), name="nb")
        before = one.fingerprint
        expected = {float(vars(notebook)["f"](f"k{place}")) for place in range(10)}
        assert values(one, 600, 2) == expected
        assert values(one, 20, 2) == expected
        assert one.fingerprint == before
        if "environment" not in name and "folder" not in name:  # what only shows at run time is declared
            assert fingerprints.setdefault(before, expected) == expected


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_sent_is_refused_by_name(name: str, notebook: types.ModuleType) -> None:
    cell, said = REFUSED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FingerprintWarning)
        run_cell(cell, notebook)
        one = signal(Called(vars(notebook)["f"]), name="nb")
        values(one, 20, 2)
        with pytest.raises(SignalError, match=rf"__main__\.{said}.*setup\(\)"):
            values(one, 600, 2)


def test_code_that_looks_at_the_source_of_a_cell_finds_it_in_workers(notebook: types.ModuleType) -> None:
    run_cell(
        "import inspect\nfrom factory_lib.signals import signal\n@signal\nclass Nb:\n    def setup(self): pass\n"
        "    def __call__(self, key: str) -> float: return float(len(inspect.getsource(g)))",
        notebook,
    )
    known = set()
    for cell in ("def g(key): return 1\n", "def g(key): return 1  # longer\n"):
        run_cell(cell, notebook)
        assert values(vars(notebook)["Nb"], 600, 2) == {float(len(cell))}
        known.add(vars(notebook)["Nb"].fingerprint)
    assert len(known) == 2


def test_a_signal_of_a_module_that_was_loaded_again_is_told_so(notebook: types.ModuleType) -> None:
    text = (
        "from factory_lib.signals import signal\n@signal\ndef held(key: str) -> float:\n    return 1.0\n"
        "def made(k):\n    @signal\n    def inner(key: str) -> float: return k\n    return inner\n"
        "other, inner = made(1), made(2)\n"
    )
    Path("nb_signal.py").write_text(text)
    run_cell("from nb_signal import held", notebook)
    before = vars(notebook)["held"]
    with warnings.catch_warnings(action="error"):
        assert before.fingerprint
        assert sys.modules["nb_signal"].other.fingerprint
    run_cell("EDIT nb_signal 1.0|2.0", notebook)
    run_cell("import nb_signal\n" + RELOAD.format("nb_signal"), notebook)
    with pytest.warns(
        FingerprintWarning, match=r"nb_signal\.held is another signal by now.*from nb_signal import held"
    ):
        assert before.fingerprint
    run_cell("from nb_signal import held", notebook)
    with warnings.catch_warnings(action="error"):
        assert vars(notebook)["held"].fingerprint != before.fingerprint


def test_code_that_draws_from_the_state_of_the_process_is_told_so(notebook: types.ModuleType) -> None:
    run_cell(
        "import random\nimport numpy as np\ndef f(key): return random.random() + np.random.rand()\n"
        "def g(key): return random.Random(key).random() + np.random.default_rng(len(key)).random()",
        notebook,
    )
    drawn = signal(Called(vars(notebook)["f"]), name="drawn")
    with pytest.warns(FingerprintWarning, match="random state of the process"):
        before = drawn.fingerprint
    vars(notebook)["f"]("k")
    assert signal(Called(vars(notebook)["f"]), name="drawn").fingerprint == before
    assert len(values(drawn, 600, 2)) > 10
    with warnings.catch_warnings():
        warnings.simplefilter("error", FingerprintWarning)
        own = signal(Called(vars(notebook)["g"]), name="own")
        rounded = {vars(notebook)["np"].float32(vars(notebook)["g"](f"k{place}")) for place in range(10)}
        assert values(own, 600, 2) == set(map(float, rounded))


def test_what_a_library_put_among_the_builtins_does_no_harm(
    notebook: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries made with pybind11 put a capsule there, and the names of `exec` hold all that is there."""
    import datetime

    monkeypatch.setattr(builtins, "__capsule_of_a_library__", datetime.datetime_CAPI, raising=False)
    run_cell(SITUATIONS["exec in a namespace of its own"][0], notebook)
    one = signal(Called(vars(notebook)["f"]), name="nb")
    assert values(one, 600, 2) == {1.0}
