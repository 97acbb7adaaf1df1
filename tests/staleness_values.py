"""Cases of values: containers, patterns, arrays."""

from tests.staleness_case import case

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
