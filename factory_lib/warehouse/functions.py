"""Functions of the engine that read nothing but their arguments: those that SQL written by people may call."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from factory_lib.warehouse.client import Warehouse

_CATEGORIES = frozenset(
    """Aggregate Functions|Arithmetic|Arrays|Bit|Bitmap|Comparison|Conditional|Dates and Times|Distance|Encoding
    |Encryption|Financial|Geo|Geo Polygon|Hash|IP Address|JSON|Logical|Map|Mathematical|Null|NumericIndexedVector|QBit
    |Random Number|Rounding|String|String Replacement|String Search|String Splitting|Time Window|Tuple|Type Conversion
    |URL|UUID|Window Functions""".replace("\n    ", "").split("|")
)
"""Kinds of functions that compute. Not those that reach for models, services, dictionaries, or into the engine."""

_OTHERS = frozenset(
    """bar blocknumber blocksize bytesize caseWithExpression caseWithoutExpression coloroklabtosrgb
    coloroklchtosrgb colorsrgbtooklab colorsrgbtooklch countdigits currentdatabase currentuser
    defaultvalueofargumenttype defaultvalueoftypename digits dumpcolumnstructure exists finalizeaggregation
    flipcoordinates formatreadabledecimalsize formatreadablequantity formatreadablesize formatreadabletimedelta
    getsizeofenumtype getsubcolumn hostname identity ignore indexhint initializeaggregation isconstant
    isdecimaloverflow lowcardinalityindices lowcardinalitykeys macnumtostring macstringtonum macstringtooui
    materialize minsamplesizecontinuous minsamplesizeconversion neighbor nested normalizequery
    normalizedqueryhash parseiso8601duration parsereadablesize parsereadablesizeornull parsereadablesizeorzero
    parsetimedelta rownumberinallblocks rownumberinblock runningaccumulate runningconcurrency runningdifference
    throwif tocolumntypename totypename transform variantelement varianttype version visiblewidth
    sleep sleepeachrow
    """.lower().split()
)
"""Of the functions that the engine puts in no such category; lower-case, as everything here that is compared."""

_REFUSED = frozenset(
    """catboostevaluate file filesystemavailable filesystemcapacity filesystemunreserved generateserialid
    getclienthttpheader getmacro getserverport getserversetting globalvariable hascolumnintable
    joinget joingetornull lemmatize logtrace modelevaluate serveruuid showcertificate
    stem synonyms tcpport __getscalar""".split()
)
"""What older engines, which know of no categories, would let through."""

_SYNTAX = frozenset(["lambda", "if", "in", "cast", "exists", "array", "tuple", "grouping"])
_TABLE_FUNCTIONS = frozenset(
    """numbers numbers_mt zeros zeros_mt primes generateseries generate_series generaterandom values sqlstandardvalues
    null format view""".split()
)
_COMBINATORS = tuple(
    "if array map simplestate state merge mergestate foreach distinct ordefault ornull resample argmin argmax".split()
)


@dataclass(frozen=True)
class Functions:
    """Names of the functions of an engine, in lower case.

    Attributes:
        names: those that may be called, as the engine writes them.
        computing: those that read nothing but their arguments, of rows and as tables.
        aggregates: those of them that take combinators, such as `sumIf`.
        others: all that it has besides.
    """

    names: tuple[str, ...]
    computing: frozenset[str]
    aggregates: frozenset[str]
    others: frozenset[str]

    def allow(self, name: str) -> bool:
        """Whether a function is one that computes."""
        name = name.lower()
        return name in self.computing or (name not in self.others and self._is_combined(name))

    def refuse(self, name: str) -> bool:
        """Whether the engine has a function of that name that does not only compute."""
        return name.lower() in self.others

    def _is_combined(self, name: str) -> bool:
        if name in self.aggregates:
            return True
        return any(name.endswith(end) and self._is_combined(name[: -len(end)]) for end in _COMBINATORS)


@functools.lru_cache(maxsize=8)
def permitted_functions(warehouse: Warehouse) -> Functions:
    """What the functions of an engine do. They are asked for once."""
    rows = warehouse.rows(
        "SELECT name, is_aggregate, alias_to, categories, toString(origin) AS origin FROM system.functions"
    )
    tables = {name.lower() for name in warehouse.query("SELECT name FROM system.table_functions")["name"].to_pylist()}
    # Of names that differ in capitals alone, the one that is no alias.
    known = {row["name"].lower(): row for row in sorted(rows, key=lambda row: not row["alias_to"])}
    computing = {name for name, row in known.items() if _computes(known, row)} | _SYNTAX | _TABLE_FUNCTIONS
    computing -= tables - _TABLE_FUNCTIONS
    aggregates = {name for name in computing if name in known and known[name]["is_aggregate"]}
    names = tuple(row["name"] for row in rows if row["name"].lower() in computing)
    return Functions(names, frozenset(computing), frozenset(aggregates), frozenset((known.keys() | tables) - computing))


def _computes(known: dict[str, dict[str, Any]], row: dict[str, Any]) -> bool:
    row = known.get(row["alias_to"].lower(), row)
    name, category = row["name"].lower(), row["categories"].strip()
    if name in _REFUSED or row["origin"] != "System":
        return False
    return name in _OTHERS or bool(row["is_aggregate"]) or not category or set(category.split(",")) <= _CATEGORIES
