"""Small signals and an edit of each: what it must do to the fingerprint follows from what it does to the values.

`CASES` maps a name to a source text with `«old|new»` where it is edited; `s` is the signal. Values of `SAMPLES` are
computed before and after: where they differ the fingerprint has to, and where they do not it must not. Run as a
program, it prints the fingerprints of all sources before the edit, as another process has them.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

SAMPLES = ("a hat", "Dress and shoes", "", "tee 42")
HEAD = "from factory_lib.signals import Vector, env, signal\n"
CASES: dict[str, str] = {}
_numbers = itertools.count()
_EDIT = re.compile(r"«(.*?)\|(.*?)»", re.DOTALL)


def case(name: str, source: str) -> None:
    """Add one; `RETURN` in it stands for the head of the usual signal."""
    assert name not in CASES, name
    CASES[name] = HEAD + source.replace("RETURN", "@signal\ndef s(caption: str) -> float:\n    return").lstrip("\n")


def texts(name: str) -> tuple[str, str]:
    """The source before and after the edit."""
    return _EDIT.sub(r"\1", CASES[name]), _EDIT.sub(r"\2", CASES[name])


def loaded(source: str, folder: Path) -> types.ModuleType:
    """The source as the module `kinds_case`, loaded from a file."""
    path = folder / "kinds_case.py"
    path.write_text(source)
    module = types.ModuleType("kinds_case")
    module.__file__ = str(path)
    sys.modules["kinds_case"] = module
    exec(compile(source, str(path), "exec"), vars(module))
    return module


class Looked(NamedTuple):
    """What a signal is before its first value, its values, and what it is after them."""

    fingerprint: str
    values: list[str]
    after_use: str


def looked_at(source: str, folder: Path) -> Looked:
    """Load a source, and compute."""
    signal: Any = loaded(source, folder).s.named(f"s{next(_numbers)}")
    return Looked(signal.fingerprint, values(signal), signal.fingerprint)


def values(signal: Any) -> list[str]:
    """The values of the samples, as text."""
    return [told(signal.one(text)) for text in SAMPLES]


def told(value: Any) -> str:
    """A value as text: NaN and signed zero are told apart."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else f"{value!r} {math.copysign(1, value)}"
    return repr(value)


# Closures and functions
case(
    "closure cell rebound later",
    "def make():\n    k = 1\n    def f(caption: str) -> float:\n        return len(caption) + k\n    k = «2|3»\n    return f\ns = signal(make(), name='s')\n",
)
case(
    "closure over a list that grows",
    "def make():\n    words = []\n    def add(w): words.append(w)\n    def f(caption: str) -> float:\n        return sum(w in caption for w in words)\n    add('hat'); add('«tee|Dress»')\n    return f\ns = signal(make(), name='s')\n",
)
case(
    "counter closure with nonlocal start",
    "def make(start):\n    n = start\n    def f(caption: str) -> float:\n        return n + len(caption)\n    return f\ns = signal(make(«1|2»), name='s')\n",
)
case(
    "closure of a closure's function",
    "def outer(k):\n    def inner(t): return len(t) * k\n    def f(caption: str) -> float:\n        return inner(caption)\n    return f\ns = signal(outer(«2|3»), name='s')\n",
)
case(
    "unused variable of the enclosing function",
    "def make():\n    unused = «1|2»\n    k = 3\n    def f(caption: str) -> float:\n        return k\n    return f\ns = signal(make(), name='s')\n",
)
case(
    "default is a mutable dict",
    "def f(t, table={'hat': «1|2»}):\n    return sum(v for k, v in table.items() if k in t)\nRETURN f(caption)\n",
)
case(
    "default set from outside", "def f(t, k=1):\n    return len(t) + k\nf.__defaults__ = («2|3»,)\nRETURN f(caption)\n"
)
case("function attribute that is read", "def f(t):\n    return len(t) + f.bias\nf.bias = «1|2»\nRETURN f(caption)\n")
case("code object replaced", "def f(t): return 1\ndef g(t): return «2|3»\nf.__code__ = g.__code__\nRETURN f(caption)\n")
case(
    "lambda among lambdas in a dict of lists",
    "R = {'a': [lambda t: 1, lambda t: «len(t)|len(t) + 1»]}\nRETURN R['a'][1](caption)\n",
)
case(
    "lambda in a nested tuple in a default",
    "def f(t, ops=((lambda x: x * «2|3»),)): return ops[0](len(t))\nRETURN f(caption)\n",
)
case(
    "composed functions",
    "def compose(*fs):\n    def run(x):\n        for f in fs: x = f(x)\n        return x\n    return run\ng = compose(len, lambda n: n + «1|2»)\nRETURN g(caption)\n",
)
case(
    "partial method",
    "import functools\nclass M:\n    def go(self, t, k): return len(t) * k\n    fast = functools.partialmethod(go, k=«2|3»)\nm = M()\nRETURN m.fast(caption)\n",
)
case(
    "partial of a bound method",
    "import functools\nclass M:\n    def __init__(self, k): self.k = k\n    def go(self, a, t): return len(t) * self.k + a\np = functools.partial(M(«2|3»).go, 1)\nRETURN p(caption)\n",
)
case(
    "partial whose function is a class",
    "import functools\nclass M:\n    def __init__(self, k, t): self.v = k + len(t)\nP = functools.partial(M, «2|3»)\nRETURN P(caption).v\n",
)
case("operator itemgetter", "import operator\nG = operator.itemgetter(«0|1»)\nRETURN len(G(['ab', caption]))\n")
case("operator methodcaller", "import operator\nG = operator.methodcaller('count', '«a|s»')\nRETURN G(caption)\n")
case(
    "functools.reduce over operators",
    "import functools, operator\nOP = operator.«add|mul»\nRETURN functools.reduce(OP, [len(caption), 3, 4])\n",
)
case(
    "generator function",
    "def words(t):\n    yield from t.split()\n    yield '«x|xy»'\nRETURN sum(map(len, words(caption)))\n",
)
case("generator expression in a helper", "def f(t): return sum(ord(c) % «7|5» for c in t)\nRETURN f(caption)\n")
case(
    "recursive closure",
    "def make(k):\n    def down(n): return k if n <= 0 else down(n - 1)\n    return down\nd = make(«4|5»)\nRETURN d(len(caption))\n",
)
case("async helper", "import asyncio\nasync def f(t): return len(t) + «1|2»\nRETURN asyncio.run(f(caption))\n")
case(
    "context manager by decorator",
    "import contextlib\n@contextlib.contextmanager\ndef scale(): yield «2|3»\n@signal\ndef s(caption: str) -> float:\n    with scale() as k:\n        return len(caption) * k\n",
)
case(
    "walrus and match",
    "def f(t):\n    match t.split():\n        case [a]: return «1|10»\n        case [a, b]: return 2\n        case _: return 3\nRETURN f(caption or 'x')\n",
)
case("f-string format", "RETURN len(f'{len(caption):«3|5»d}')\n")
case(
    "try-except order",
    "def f(t):\n    try: return int(t.split()[1])\n    except «IndexError|(IndexError, ValueError)»: return -1\n    except ValueError: return -2\nRETURN f(caption)\n",
)
# Decorators
case(
    "decorator that registers and returns the same",
    "SEEN = []\ndef mark(k):\n    def d(f):\n        SEEN.append(k)\n        return f\n    return d\n@mark(«1|2»)\ndef h(t): return len(t)\nRETURN h(caption)\n",
)
case(
    "decorator that registers and is read",
    "R = {}\ndef mark(k):\n    def d(f):\n        R[f.__name__] = k\n        return f\n    return d\n@mark(«1|2»)\ndef h(t): return len(t)\nRETURN h(caption) + R['h']\n",
)
case(
    "decorator without wraps",
    "def deco(f):\n    def w(t): return f(t) + 1\n    return w\n@deco\ndef h(t): return «1|2»\nRETURN h(caption)\n",
)
case(
    "decorator class with __get__",
    "class Deco:\n    def __init__(self, f): self.f = f\n    def __get__(self, o, k): return lambda t: self.f(o, t) * «2|3»\nclass M:\n    @Deco\n    def go(self, t): return len(t)\nm = M()\nRETURN m.go(caption)\n",
)
case(
    "cache of a helper, edited",
    "import functools\n@functools.cache\ndef h(t): return len(t) + «1|2»\nRETURN h(caption)\n",
)
case(
    "cached method of a class",
    "import functools\nclass M:\n    @functools.lru_cache(maxsize=8)\n    def go(self, t): return len(t) + «1|2»\nm = M()\nRETURN m.go(caption)\n",
)
case(
    "singledispatch with a late registration",
    "import functools\n@functools.singledispatch\ndef f(x): return 0\n@f.register\ndef _(x: str): return len(x) + «1|2»\nRETURN f(caption)\n",
)
case(
    "singledispatchmethod",
    "import functools\nclass M:\n    @functools.singledispatchmethod\n    def f(self, x): return 0\n    @f.register\n    def _(self, x: str): return «1|2»\nm = M()\nRETURN m.f(caption)\n",
)
case(
    "total_ordering",
    "import functools\n@functools.total_ordering\nclass V:\n    def __init__(self, n): self.n = n\n    def __eq__(self, o): return self.n == o.n\n    def __lt__(self, o): return self.n «<|>» o.n\nRETURN float(V(len(caption)) >= V(5))\n",
)
# Classes
case(
    "class attribute list",
    "class M:\n    words = ['hat', '«tee|Dress»']\n    def go(self, t): return sum(w in t for w in self.words)\nRETURN M().go(caption)\n",
)
case("class attribute computed from another", "class M:\n    k = «2|3»\n    kk = k * k\nRETURN M.kk\n")
case("class attribute set after the class", "class M: pass\nM.k = «2|3»\nRETURN M.k\n")
case("class attribute read through a subclass", "class A: k = «2|3»\nclass B(A): pass\nclass C(B): pass\nRETURN C.k\n")
case(
    "attribute through getattr with a variable",
    "class M: low = 1; high = «5|6»\nNAME = 'high'\nRETURN getattr(M, NAME)\n",
)
case("method added after the class", "class M: pass\nM.go = lambda self, t: len(t) + «1|2»\nRETURN M().go(caption)\n")
case(
    "super() chain",
    "class A:\n    def go(self, t): return «1|2»\nclass B(A):\n    def go(self, t): return super().go(t) + len(t)\nRETURN B().go(caption)\n",
)
case(
    "order of bases",
    "class A:\n    def go(self): return 1\nclass B:\n    def go(self): return 2\nclass C(«A, B|B, A»): pass\nRETURN C().go()\n",
)
case(
    "dunder methods",
    "class V:\n    def __len__(self): return «3|4»\n    def __getitem__(self, i): return i\nv = V()\nRETURN len(v)\n",
)
case(
    "dunder getattr of an instance",
    "class V:\n    def __getattr__(self, n): return «3|4»\nv = V()\nRETURN v.anything\n",
)
case("dunder bool", "class V:\n    def __bool__(self): return «True|False»\nv = V()\nRETURN 1 if v else 2\n")
case("iterator class", "class V:\n    def __iter__(self): return iter([1, «2|3»])\nv = V()\nRETURN sum(v)\n")
case(
    "class with __new__",
    "class V:\n    def __new__(cls, k):\n        o = super().__new__(cls); o.k = k * «2|3»\n        return o\nRETURN V(2).k\n",
)
case("class with __class_getitem__", "class V:\n    def __class_getitem__(cls, k): return k + «1|2»\nRETURN V[3]\n")
case(
    "descriptor with __set_name__",
    "class D:\n    def __set_name__(self, o, n): self.n = n\n    def __get__(self, o, k): return len(self.n) + «1|2»\nclass M: attr = D()\nRETURN M().attr\n",
)
case(
    "descriptor whose name is its value",
    "class D:\n    def __set_name__(self, o, n): self.n = n\n    def __get__(self, o, k): return len(self.n)\nclass M: «abc|abcd» = D()\nRETURN M().«abc|abcd»\n",
)
case(
    "data descriptor state",
    "class D:\n    def __init__(self, k): self.k = k\n    def __get__(self, o, t): return self.k\n    def __set__(self, o, v): raise AttributeError\nclass M: attr = D(«1|2»)\nm = M()\nRETURN m.attr\n",
)
case(
    "property getter helper",
    "def k(): return «3|4»\nclass M:\n    @property\n    def k(self): return k()\nm = M()\nRETURN m.k\n",
)
case(
    "property made by property()",
    "class M:\n    def _k(self): return «3|4»\n    k = property(_k)\nm = M()\nRETURN m.k\n",
)
case(
    "setter that changes what is stored",
    "class M:\n    @property\n    def k(self): return self._k\n    @k.setter\n    def k(self, v): self._k = v * «2|3»\nm = M(); m.k = 2\nRETURN m.k\n",
)
case(
    "classmethod constructor",
    "class M:\n    @classmethod\n    def make(cls): o = cls(); o.k = «3|4»; return o\nRETURN M.make().k\n",
)
case("metaclass attribute", "class Meta(type):\n    k = «3|4»\nclass M(metaclass=Meta): pass\nRETURN M.k\n")
case(
    "metaclass __call__",
    "class Meta(type):\n    def __call__(cls, *a): o = super().__call__(*a); o.k = «3|4»; return o\nclass M(metaclass=Meta): pass\nRETURN M().k\n",
)
case(
    "metaclass keyword",
    "class Meta(type):\n    def __new__(m, n, b, d, k=0): c = super().__new__(m, n, b, d); c.k = k; return c\n    def __init__(c, n, b, d, k=0): super().__init__(n, b, d)\nclass M(metaclass=Meta, k=«3|4»): pass\nRETURN M.k\n",
)
case(
    "metaclass __prepare__",
    "class Meta(type):\n    @classmethod\n    def __prepare__(m, n, b): return {'k': «3|4»}\nclass M(metaclass=Meta): pass\nRETURN M.k\n",
)
case(
    "ABC method of a concrete class",
    "import abc\nclass A(abc.ABC):\n    @abc.abstractmethod\n    def go(self): ...\nclass B(A):\n    def go(self): return «1|2»\nRETURN B().go()\n",
)
case(
    "ABC virtual subclass by register",
    "import abc\nclass A(abc.ABC): pass\nclass B: pass\n«A.register(B)|pass»\nRETURN float(isinstance(B(), A))\n",
)
case(
    "ABC __subclasshook__",
    "import abc\nclass A(abc.ABC):\n    @classmethod\n    def __subclasshook__(cls, c): return «True|False»\nclass B: pass\nRETURN float(issubclass(B, A))\n",
)
case(
    "protocol that is checked at run time",
    "from typing import Protocol, runtime_checkable\n@runtime_checkable\nclass P(Protocol):\n    def «go|stop»(self): ...\nclass B:\n    def go(self): ...\nRETURN float(isinstance(B(), P))\n",
)
case("__slots__ value", "class M:\n    __slots__ = ('k',)\nm = M(); m.k = «3|4»\nRETURN m.k\n")
case(
    "object in object in object",
    "class N:\n    def __init__(self, c=None, k=0): self.c, self.k = c, k\ntree = N(N(N(k=«3|4»)))\nRETURN tree.c.c.k\n",
)
case("object that refers to itself", "class N: pass\nn = N(); n.me = n; n.k = «3|4»\nRETURN n.me.me.k\n")
case("two names of one list", "A = [1]\nB = «A|[1]»\nA.append(2)\nRETURN len(B)\n")
case("name-mangled attribute", "class M:\n    __k = «3|4»\n    def go(self): return self.__k\nRETURN M().go()\n")
case("unrelated class in the module", "class Other:\n    k = «1|2»\nRETURN len(caption)\n")
case(
    "staticmethod held as a value",
    "class M:\n    @staticmethod\n    def go(t): return len(t) + «1|2»\nF = M.go\nRETURN F(caption)\n",
)
case(
    "instance with __call__ in a list",
    "class M:\n    def __init__(self, k): self.k = k\n    def __call__(self, t): return len(t) * self.k\nOPS = [M(1), M(«2|3»)]\nRETURN sum(o(caption) for o in OPS)\n",
)
case(
    "pickled by __reduce__",
    "class M:\n    def __init__(self, k): self.k = k\n    def __reduce__(self): return (M, (self.k,))\nm = M(«3|4»)\nRETURN m.k\n",
)
case(
    "__getstate__ that leaves a value out",
    "class M:\n    def __init__(self, k): self.k = k\n    def __getstate__(self): return {'k': self.k}\nm = M(3); m.log = «'a'|'b'»\nRETURN m.k\n",
)
# Dataclasses, enums, tuples
case(
    "frozen dataclass in a set",
    "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass P:\n    w: str\n    n: int\nS = {P('hat', 1), P('Dress', «2|3»)}\nRETURN sum(p.n for p in S if p.w in caption)\n",
)
case(
    "dataclass __post_init__",
    "from dataclasses import dataclass\n@dataclass\nclass P:\n    n: int\n    def __post_init__(self): self.m = self.n * «2|3»\nRETURN P(2).m\n",
)
case(
    "dataclass with slots and a default",
    "from dataclasses import dataclass\n@dataclass(slots=True)\nclass P:\n    n: int = «2|3»\nRETURN P().n\n",
)
case(
    "dataclass order",
    "from dataclasses import dataclass\n@dataclass(order=True)\nclass P:\n    «a: int; b: int|b: int; a: int»\nRETURN float(P(a=1, b=5) < P(a=2, b=4))\n",
)
case(
    "dataclass inheritance",
    "from dataclasses import dataclass\n@dataclass\nclass A: k: int = «1|2»\n@dataclass\nclass B(A): j: int = 5\nb = B()\nRETURN b.k + b.j\n",
)
case(
    "dataclass kw_only field metadata",
    "from dataclasses import dataclass, field\n@dataclass\nclass A: k: int = field(default=1, metadata={'u': «1|2»})\na = A()\nRETURN a.k\n",
)
case(
    "enum with a method",
    "from enum import Enum\nclass E(Enum):\n    A = 1\n    def go(self): return self.value + «1|2»\nRETURN E.A.go()\n",
)
case(
    "enum auto order",
    "from enum import Enum, auto\nclass E(Enum):\n    «A = auto(); B = auto()|B = auto(); A = auto()»\nRETURN E.A.value\n",
)
case("enum alias", "from enum import Enum\nclass E(Enum):\n    A = 1\n    B = 2\n    C = «1|2»\nRETURN E.C.value\n")
case(
    "enum _missing_",
    "from enum import Enum\nclass E(Enum):\n    A = 1\n    B = 2\n    @classmethod\n    def _missing_(cls, v): return cls.«A|B»\nRETURN E(9).value\n",
)
case(
    "string enum as key",
    "from enum import StrEnum\nclass E(StrEnum):\n    A = '«hat|Dress»'\nRETURN caption.count(E.A)\n",
)
case(
    "named tuple method",
    "from typing import NamedTuple\nclass P(NamedTuple):\n    k: int\n    def go(self): return self.k + «1|2»\np = P(1)\nRETURN p.go()\n",
)
case(
    "typed dict and annotations alone",
    "from typing import TypedDict\nclass T(TypedDict):\n    «a: int|a: str»\nd: T = {'a': 1}\nRETURN len(d)\n",
)
# Containers
case("order of a dict", "W = {«'hat': 1, 'tee': 2|'tee': 2, 'hat': 1»}\nRETURN next(iter(W.values()))\n")
case("order of a set literal", "W = {«'hat', 'tee', 'bag'|'bag', 'hat', 'tee'»}\nRETURN sum(w in caption for w in W)\n")
case(
    "set made of a list in another order",
    "W = set([«'hat', 'tee', 'bag'|'tee', 'bag', 'hat'»])\nRETURN sum(w in caption for w in W)\n",
)
case(
    "frozenset of frozensets",
    "W = frozenset({frozenset({'a', 'b'}), frozenset({'«c|d»'})})\nRETURN sum(all(c in caption for c in w) for w in W)\n",
)
case(
    "defaultdict factory",
    "from collections import defaultdict\nD = defaultdict(«lambda: 1|lambda: 2»)\nRETURN D.copy()[caption]\n",
)
case("Counter", "from collections import Counter\nC = Counter('aab«b|c»')\nRETURN C['b']\n")
case(
    "OrderedDict order",
    "from collections import OrderedDict\nD = OrderedDict(«a=1, b=2|b=2, a=1»)\nRETURN list(D.values())[0]\n",
)
case("ChainMap", "from collections import ChainMap\nD = ChainMap({'a': 1}, {'b': «2|3»})\nRETURN D['b']\n")
case("deque maxlen", "from collections import deque\nD = deque([1, 2, 3], maxlen=«2|3»)\nRETURN len(D)\n")
case("heap", "import heapq\nH = [3, 1, «2|5»]; heapq.heapify(H)\nRETURN heapq.nlargest(2, H)[1]\n")
case("array module", "import array\nA = array.array('«i|d»', [1, 2])\nRETURN A.itemsize\n")
case("bytearray", "B = bytearray(b'«ab|ac»')\nRETURN B[1]\n")
case("memoryview", "B = memoryview(b'«ab|ac»')\nRETURN B[1]\n")
case("range", "R = range(0, 10, «2|3»)\nRETURN len(R)\n")
case("slice", "S = slice(«0|1», None)\nRETURN len(caption[S])\n")
case("mapping proxy", "import types\nM = types.MappingProxyType({'a': «1|2»})\nRETURN M['a']\n")
case("simple namespace", "import types\nN = types.SimpleNamespace(a=«1|2»)\nRETURN N.a\n")
case("long list of numbers", "L = list(range(1000)); L[500] = «0|1»\nRETURN L[500]\n")
case("long list with a nested change", "L = [[i] for i in range(100)]; L[50][0] = «0|1»\nRETURN L[50][0]\n")
case("long dict order", "D = {i: i for i in «range(100)|reversed(range(100))»}\nRETURN next(iter(D))\n")
case("lists that compare equal", "L = [«1|True»]\nRETURN len(repr(L))\n")
case("int and float that compare equal", "K = «2|2.0»\nRETURN len(repr(K))\n")
case("NaN that stays", "import math\nK = float('nan')\nUNUSED = «1|2»\nRETURN K\n")
case("NaN in a list", "K = [float('nan'), «1|2»]\nRETURN K[1]\n")
case("infinity", "K = float('«inf|-inf»')\nRETURN K\n")
case("signed zero", "K = «0.0|-0.0»\nRETURN K\n")
case("complex number", "K = «1+2j|1-2j»\nRETURN K.imag\n")
case("large integer", "K = 10 ** 40 + «1|2»\nRETURN K % 10\n")
case(
    "decimal context",
    "import decimal\nC = decimal.Context(prec=«3|5»)\nRETURN float(C.divide(decimal.Decimal(1), decimal.Decimal(3)))\n",
)
case("fraction", "from fractions import Fraction\nF = Fraction(1, «3|4»)\nRETURN float(F)\n")
case(
    "datetime with a zone",
    "import datetime as d\nT = d.datetime(2020, 1, 1, tzinfo=d.timezone(d.timedelta(hours=«1|2»)))\nRETURN T.timestamp()\n",
)
case("uuid", "import uuid\nU = uuid.UUID(int=«5|6»)\nRETURN U.int\n")
case("ip address", "import ipaddress\nI = ipaddress.ip_network('10.0.0.0/«8|9»')\nRETURN I.prefixlen\n")
case("text with escapes and surrogates", "T = 'a\\ud800«b|c»'\nRETURN ord(T[-1])\n")
case("unicode normal forms", "T = '«\\u00e9|e\\u0301»'\nRETURN len(T)\n")
case("string template", "import string\nT = string.Template('$x«-|--»')\nRETURN len(T.substitute(x=caption))\n")
case("translation table", "T = str.maketrans({'a': '«b|bb»'})\nRETURN len(caption.translate(T))\n")
case("struct format", "import struct\nS = struct.Struct('<«i|q»')\nRETURN S.size\n")
# Patterns, iterators, C objects
case("regular expression flags inline", "import re\nR = re.compile('«|(?i)»dress')\nRETURN len(R.findall(caption))\n")
case("bound findall of a pattern", "import re\nF = re.compile('[a-«f|m»]').findall\nRETURN len(F(caption))\n")
case(
    "patterns in a tuple of pairs",
    "import re\nR = ((re.compile('a'), 1), (re.compile('«s|t»'), 2))\nRETURN sum(w for r, w in R if r.search(caption))\n",
)
case(
    "scanner of a lexicon",
    "import re\nR = [(p, re.compile(p)) for p in ('hat', '«tee|Dress»')]\nRETURN sum(bool(r.search(caption)) for _, r in R)\n",
)
case(
    "random generator state",
    "import random\nR = random.Random(«1|2»)\nRETURN random.Random(repr(R.getstate())).random()\n",
)
case(
    "zlib dictionary",
    "import zlib\nZ = b'«hat|tee»'\nRETURN len(zlib.compress(caption.encode() + Z)) + zlib.crc32(Z) % 7\n",
)
case("bound method of a dict", "G = {'a hat': «1|2»}.get\nRETURN G(caption, 0)\n")
case("bound method of a string", "J = '«-|--»'.join\nRETURN len(J(['a', 'b']))\n")
case("hash object constructor", "import hashlib\nH = hashlib.«md5|sha1»\nRETURN len(H(caption.encode()).hexdigest())\n")
case("codecs", "import codecs\nE = codecs.getencoder('«utf-8|utf-16»')\nRETURN len(E(caption)[0])\n")
# Arrays
case("numpy dtype alone", "import numpy as np\nA = np.zeros(3, np.«int32|int64»)\nRETURN A.itemsize\n")
case(
    "numpy order in memory",
    "import numpy as np\nA = np.«ascontiguousarray|asfortranarray»(np.arange(6).reshape(2, 3))\nRETURN int(A[1, 2])\n",
)
case(
    "numpy view of a changed base",
    "import numpy as np\nB = np.arange(10); A = B[2:5]; B[3] = «3|9»\nRETURN int(A.sum())\n",
)
case("numpy NaN bits", "import numpy as np\nA = np.array([np.nan, «1.0|2.0»])\nRETURN float(A[1])\n")
case("numpy signed zero", "import numpy as np\nA = np.array([«0.0|-0.0»])\nRETURN float(A[0])\n")
case("numpy datetime", "import numpy as np\nA = np.array(['2020-01-0«1|2»'], 'M8[D]')\nRETURN int(A.astype(int)[0])\n")
case(
    "numpy strings",
    "import numpy as np\nA = np.array(['hat', '«tee|Dress»'])\nRETURN sum(str(w) in caption for w in A)\n",
)
case("numpy scalar", "import numpy as np\nK = np.float32(«0.1|0.2»)\nRETURN float(K)\n")
case("numpy poly1d", "import numpy as np\nP = np.poly1d([1, «2|3»])\nRETURN float(P(2))\n")
case(
    "numpy generator state",
    "import numpy as np\nG = np.random.default_rng(«1|2»)\nRETURN float(np.random.default_rng(G.bit_generator.state['state']['state'] % 1000).random())\n",
)
case("numpy ufunc method", "import numpy as np\nF = np.«add|multiply».reduce\nRETURN int(F([2, 3, 4]))\n")
case(
    "numpy broadcast read-only",
    "import numpy as np\nA = np.broadcast_to(np.array([«1|2»]), (3,))\nRETURN int(A.sum())\n",
)
case(
    "numpy subclass with an attribute",
    "import numpy as np\nclass A(np.ndarray): pass\na = np.arange(3).view(A); a.k = «1|2»\nRETURN a.k\n",
)
case(
    "arrow array",
    "import pyarrow as pa\nA = pa.array(['hat', '«tee|Dress»'])\nRETURN sum(w in caption for w in A.to_pylist())\n",
)
case("pictures", "from PIL import Image\nI = Image.new('RGB', (2, 2), («1|2», 0, 0))\nRETURN I.getpixel((0, 0))[0]\n")
# Modules and names
case("global set by a function", "K = 1\ndef configure(k):\n    global K\n    K = k\nconfigure(«2|3»)\nRETURN K\n")
case("global set through globals()", "globals()['K'] = «2|3»\nRETURN K\n")
case("code made by exec", "ns = {}\nexec('def f(t): return len(t) + «1|2»', ns)\nf = ns['f']\nRETURN f(caption)\n")
case("code made by eval", "f = eval('lambda t: len(t) + «1|2»')\nRETURN f(caption)\n")
case(
    "function made by types.FunctionType",
    "import types\nK = 1\ndef f(t): return len(t) + K\ng = types.FunctionType(f.__code__, {'K': «1|2», 'len': len, '__builtins__': __builtins__})\nRETURN g(caption)\n",
)
case("module made at run time", "import types\nM = types.ModuleType('made_up'); M.k = «1|2»\nRETURN M.k\n")
case(
    "module attribute set from outside", "import kinds_config\nkinds_config.EXTRA = «1|2»\nRETURN kinds_config.EXTRA\n"
)
case("module attribute through an alias", "import kinds_config as c\nc.LIMIT = «1|2»\nd = c\nRETURN d.LIMIT\n")
case(
    "two modules of one name's attributes",
    "import kinds_config\nfrom kinds_config import LIMIT\nkinds_config.OTHER = «1|2»\nRETURN LIMIT\n",
)
case(
    "function of another module patched",
    "import kinds_config\nkinds_config.clean = lambda t: t«|+ 'x'»\nRETURN len(kinds_config.call(caption))\n",
)
case("builtin shadowed by a global", "def len(t): return «1|2»\nRETURN len(caption)\n")
case("name only in __builtins__ of the module", "«|def max(*a): return 0»\nRETURN max(len(caption), 1)\n")
case(
    "constant of the standard library patched",
    "import string\nPUNCTUATION = string.punctuation«|[:3]»\nRETURN len(PUNCTUATION)\n",
)
case(
    "conditional definition",
    "import sys\nif sys.maxsize > «0|2**70»:\n    def f(t): return 1\nelse:\n    def f(t): return 2\nRETURN f(caption)\n",
)
case("star import of a changed list", "from kinds_config import *\nLIMIT = «5|6»\nRETURN LIMIT\n")
case("weak reference to a value", "import weakref\nclass V:\n    k = «1|2»\nv = V()\nr = weakref.ref(v)\nRETURN v.k\n")
case(
    "weak dictionary beside a value",
    "import weakref\nclass V: pass\nv = V(); v.k = «1|2»\nW = weakref.WeakKeyDictionary({v: 1})\nRETURN v.k\n",
)
case(
    "logger and level beside it",
    "import logging\nLOG = logging.getLogger('kinds'); LOG.setLevel(«10|20»)\n@signal\ndef s(caption: str) -> float:\n    LOG.debug('x')\n    return len(caption)\n",
)
case("docstring that is used", "def f():\n    '''«hat|Dress»'''\nRETURN caption.count(f.__doc__)\n")
case("docstring that is not used", "def f(t):\n    '''«hat|Dress»'''\n    return len(t)\nRETURN f(caption)\n")
case(
    "annotation that is used",
    "import typing\ndef f(x: «int|float»): ...\nRETURN float(typing.get_type_hints(f)['x'] is int)\n",
)
case("annotation that is not used", "def f(x«|: str»): return len(x)\nRETURN f(caption)\n")
case("name of a function that is used", "def «abc|abcd»(): ...\nF = «abc|abcd»\nRETURN len(F.__name__)\n")
case(
    "comment and layout",
    "def f(t):\n    «return len(t)|# counts\n    return (\n        len( t )\n    )»\nRETURN f(caption)\n",
)
case("quotes", "W = «'hat'|\"hat\"»\nRETURN caption.count(W)\n")
case("parentheses and folding", "K = «6|2 * 3»\nRETURN K\n")
case("import that is not used", "«import json|import textwrap»\nRETURN len(caption)\n")
case(
    "function moved within the module", "«|def g(): ...\n»def f(t): return len(t)\n«def g(): ...|»\nRETURN f(caption)\n"
)
case("variable read at import from data", "import json\nC = json.loads('{\"k\": «1|2»}')\nRETURN C['k']\n")
case("ordered configuration in a tuple of dicts", "C = ({'k': 1}, {'k': «2|3»})\nRETURN sum(c['k'] for c in C)\n")
case(
    "setup of a class",
    "class S:\n    def setup(self): self.k = {'hat': «1|2»}\n    def __call__(self, caption: str) -> float: return self.k.get('hat')\ns = signal(S, name='s')\n",
)
case(
    "object with a helper object",
    "class H:\n    def __init__(self, k): self.k = k\n    def go(self, t): return len(t) + self.k\nclass S:\n    def __init__(self): self.h = H(«1|2»)\n    def __call__(self, caption: str) -> float: return self.h.go(caption)\ns = signal(S(), name='s')\n",
)
case(
    "object as dict of handlers",
    "class S:\n    def __init__(self): self.on = {'len': self.length, 'one': lambda t: «1|2»}\n    def length(self, t): return len(t)\n    def __call__(self, caption: str) -> float: return self.on['one'](caption)\ns = signal(S(), name='s')\n",
)
case(
    "memo of the object itself",
    "class S:\n    def __init__(self): self.seen = {}; self.k = «1|2»\n    def __call__(self, caption: str) -> float:\n        self.seen[caption] = 1\n        return self.k\ns = signal(S(), name='s')\n",
)
case(
    "lazily made model",
    "_m = None\ndef model():\n    global _m\n    if _m is None: _m = {'k': «1|2»}\n    return _m\nRETURN model()['k']\n",
)
case(
    "iterator protocol over a file-like text", "import io\nT = '«a\\nb|a\\nb\\nc»'\nRETURN len(list(io.StringIO(T)))\n"
)
case(
    "typing.NewType and generics",
    "from typing import Generic, TypeVar\nT = TypeVar('T')\nclass Box(Generic[T]):\n    def __init__(self, v: T): self.v = v\nb = Box[int](«1|2»)\nRETURN b.v\n",
)
case(
    "context variable",
    "import contextvars\nV = contextvars.ContextVar('v', default=1)\nUNUSED = «1|2»\nRETURN V.get()\n",
)
case(
    "contextlib.ExitStack in a helper",
    "import contextlib\ndef f(t):\n    with contextlib.ExitStack() as e: return len(t) + «1|2»\nRETURN f(caption)\n",
)
case("deep recursion of plain data", "D = 1\nfor _ in range(60): D = [D]\nD.append(«1|2»)\nRETURN D[1]\n")
case("environment read into a copy", "import os\nE = dict(os.environ) | {'KINDS': '«a|ab»'}\nRETURN len(E['KINDS'])\n")
case(
    "weighted choice table",
    "W = {w: len(w) ** «1|2» for w in ('hat', 'tee', 'dress')}\nRETURN sum(v for w, v in W.items() if w in caption.lower())\n",
)
case("tensor", "import torch\nT = torch.tensor([1.0, «2.0|3.0»])\nRETURN float(T.sum())\n")
case("tensor dtype", "import torch\nT = torch.zeros(2, dtype=torch.«float32|float64»)\nRETURN T.element_size()\n")
case("module in evaluation mode", "import torch\nm = torch.nn.Dropout(0.5).«eval|train»()\nRETURN float(m.training)\n")
case(
    "buffer of a module",
    "import torch\nclass M(torch.nn.Module):\n    def __init__(self):\n        super().__init__(); self.register_buffer('b', torch.tensor([«1.0|2.0»]))\n    def forward(self): return self.b\nm = M()\nRETURN float(m()[0])\n",
)
case(
    "hook of a module",
    "import torch\nm = torch.nn.Identity()\nm.register_forward_hook(lambda m, i, o: o + «1|2»)\nRETURN float(m(torch.zeros(1))[0])\n",
)
case(
    "state dict",
    "import torch\ntorch.manual_seed(«1|2»)\nD = torch.nn.Linear(2, 1).state_dict()\nRETURN float(D['weight'][0, 0])\n",
)

# By names in texts, through others
case(
    "order of match arguments",
    "class P:\n    __match_args__ = ('«a', 'b|b', 'a»')\n    def __init__(self): self.a, self.b = 1, 2\np = P()\ndef f():\n    match p:\n        case P(x, y): return x * 10 + y\nRETURN f()\n",
)
case("bytes in memory", "import io\nB = io.BytesIO(b'«hat|tee»')\nRETURN B.getvalue()[0]\n")
case(
    "default of a context variable",
    "import contextvars\nV = contextvars.ContextVar('v', default=«1|2»)\nRETURN V.get()\n",
)
case("items of a queue", "import queue\nQ = queue.Queue(); Q.put(«3|4»)\nRETURN Q.queue[0]\n")
case(
    "what a weak reference refers to",
    "import weakref\nclass V: pass\nv = V(); v.k = «3|4»\nr = weakref.ref(v)\nRETURN r().k\n",
)
case("compiled code", "C = compile('1 + «3|4»', 'x', 'eval')\nRETURN eval(C)\n")
case(
    "text that is evaluated", "def h(t): return len(t) + «3|4»\nE = 'h(t)'\nRETURN eval(E, globals(), {'t': caption})\n"
)
case(
    "looked up in globals()", "def h_a(t): return len(t) + «3|4»\nKIND = 'a'\nRETURN globals()[f'h_{KIND}'](caption)\n"
)
case(
    "not looked up in globals()",
    "def h_a(t): return len(t)\ndef other(t): return «3|4»\nKIND = 'a'\nRETURN globals()[f'h_{KIND}'](caption)\n",
)
case(
    "looked up in its module",
    "import sys\nsys.modules[__name__] = sys.modules['kinds_case']\ndef h_a(t): return len(t) + «3|4»\nRETURN getattr(sys.modules[__name__], 'h_a')(caption)\n",
)
case(
    "module imported by a name in a global",
    "import importlib\nNAME = 'kinds_config'\nRETURN importlib.import_module(NAME).LIMIT + «1|2»\n",
)
case("put among the builtins", "import builtins\nbuiltins.KINDS_K = «3|4»\nRETURN KINDS_K\n")
case(
    "constant of an installed package set",
    "import PIL.Image as I\nI.MAX_IMAGE_PIXELS = «3|4»\nRETURN I.MAX_IMAGE_PIXELS\n",
)
case(
    "attribute of a member of an enumeration",
    "from enum import Enum\nclass E(Enum):\n    A = 1\nE.A.weight = «3|4»\nRETURN E.A.weight\n",
)
case(
    "all subclasses",
    "class B:\n    @classmethod\n    def all(cls): return sum(c.k for c in cls.__subclasses__())\nclass A(B): k = «3|4»\nRETURN B.all()\n",
)
case(
    "set of one's own class",
    "class W(set): pass\nw = W([«'hat', 'tee', 'bag'|'bag', 'hat', 'tee'»])\nRETURN sum(x in caption for x in w)\n",
)
case(
    "field of a pydantic model",
    "from pydantic import BaseModel, Field\nclass P(BaseModel):\n    k: int = Field(«3|4», ge=0)\nRETURN P().k\n",
)
case(
    "type in a pydantic model",
    "from pydantic import BaseModel\nclass P(BaseModel):\n    k: «int|float» = 1\nRETURN len(str(P(k=3).k))\n",
)
case("frozen class of attrs", "import attrs\n@attrs.frozen\nclass P:\n    k: int = «3|4»\nRETURN P().k\n")
case(
    "compiled by torch",
    "import torch\n@torch.jit.script\ndef f(x: torch.Tensor):\n    return x + «3|4»\nRETURN float(f(torch.zeros(1)))\n",
)
case(
    "parametrized module",
    "import torch\nm = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2, 1, bias=False))\nwith torch.no_grad():\n    for p in m.parameters(): p.fill_(1.0)\n    m.parametrizations.weight.original0.fill_(«3.0|4.0»)\nRETURN float(m(torch.ones(2)))\n",
)

CONFIG = "LIMIT = 5\nOTHER = 1\ndef clean(t): return t\ndef call(t): return clean(t)\n"


def prepare(folder: Path) -> None:
    """Write the module that some cases import, and forget it where it was loaded."""
    (folder / "kinds_config.py").write_text(CONFIG)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    sys.modules.pop("kinds_config", None)


def fingerprints(folder: Path) -> dict[str, str]:
    """The fingerprints before the edits."""
    found = {}
    for name in CASES:
        prepare(folder)
        found[name] = loaded(texts(name)[0], folder).s.fingerprint
    return found


if __name__ == "__main__":
    print(json.dumps(fingerprints(Path(sys.argv[1]))))
