"""Cases of functions, decorators and classes."""

from tests.staleness_case import case

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
