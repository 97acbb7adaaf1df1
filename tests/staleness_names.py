"""Cases of names: modules, globals, texts, and what others hold."""

from tests.staleness_case import case

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
case(
    "bound method in a field of the signal",
    "class M:\n    def __init__(self, k): self.k = k\n    def go(self, t): return self.k\nclass S:\n    def __init__(self): self.f = M(«1|2»).go\n    def __call__(self, caption: str) -> float: return self.f(caption)\ns = signal(S(), name='s')\n",
)
case(
    "bound method of a dict in a field of the signal",
    "class S:\n    def __init__(self): self.f = {'a hat': «1|2»}.get\n    def __call__(self, caption: str) -> float: return self.f(caption, 0)\ns = signal(S(), name='s')\n",
)
case(
    "bound method that is declared",
    "class M:\n    def __init__(self, k): self.k = k\n    def go(self): return self.k\nm = M(«1|2»)\n@signal(depends_on=[m.go])\ndef s(caption: str) -> float:\n    return vars(__import__('sys').modules['kinds_case'])['m'].k\n",
)

# What holds others, or is looked at
case(
    "weak method",
    "import weakref\nclass V:\n    def f(self): return «1|2»\nv = V(); m = weakref.WeakMethod(v.f)\nRETURN v.f() + 0 * bool(m)\n",
)
case(
    "entries of a weak dictionary",
    "import weakref\nclass V: pass\nv = V(); v.k = «3|4»\nW = weakref.WeakValueDictionary({'a': v})\nRETURN W['a'].k\n",
)
case(
    "keys of a weak dictionary",
    "import weakref\nclass V: pass\nv = V(); v.k = «3|4»\nW = weakref.WeakKeyDictionary({v: 1})\n"
    "RETURN next(iter(W)).k\n",
)
case(
    "members of a weak set",
    "import weakref\nclass V: pass\nv = V(); v.k = «3|4»\nW = weakref.WeakSet([v])\nRETURN [*W][0].k\n",
)
case(
    "format of a formatter",
    "import logging\nF = logging.Formatter('%(message)s«!|!!»')\nRETURN len(F.format(logging.makeLogRecord({'msg': caption})))\n",
)
case(
    "metadata of a field",
    "import dataclasses as dc\n@dc.dataclass\nclass P:\n    a: int = dc.field(default=1, metadata={'k': «3|4»})\nRETURN dc.fields(P)[0].metadata['k']\n",
)
case(
    "type of a field",
    "import dataclasses as dc\n@dc.dataclass\nclass P:\n    a: «int|float» = 1\nRETURN int(dc.fields(P)[0].type is int)\n",
)
case("source that is asked for", "import inspect\ndef f():\n    return 1  # «x|xx»\nRETURN len(inspect.getsource(f))\n")
case(
    "validator of pydantic",
    "import pydantic\nclass M(pydantic.BaseModel):\n    k: int = 1\n    @pydantic.field_validator('k')\n    @classmethod\n    def v(cls, x): return x + «1|2»\nRETURN M(k=len(caption)).k\n",
)
case(
    "path of a class of the user",
    "import pathlib\nclass P(pathlib.PosixPath):\n    k = «1|2»\np = P('x')\nRETURN p.k\n",
)
case(
    "gradients of a tensor",
    "import torch\nt = torch.ones(1, requires_grad=«True|False»)\nRETURN int(t.requires_grad)\n",
)
