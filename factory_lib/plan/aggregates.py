"""Which aggregate functions give another value when rows come in another order, or to several threads.

A version is to be the same whenever it is made. An engine of many threads hands rows to an aggregate in whatever order
they arrive, so that `any(x)` is another row's x each time, and a sum of floats differs in its last bits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from factory_lib.plan.expressions import SqlText
from factory_lib.plan.operators import Call, Expr, Window
from factory_lib.plan.sqltext import functions_called

_COMBINATORS = r"(If|Array|Map|OrNull|OrDefault|Distinct|ForEach|Resample|State|Merge|SimpleState|ArgMin|ArgMax)*"

_ORDERED = (
    r"any\w*|first_?value\w*|last_?value\w*|firstValue\w*|lastValue\w*|arg(And)?(Min|Max)|(min|max)_by"
    r"|group(Array|UniqArray|_?Concat|Format)\w*|array_(concat_)?agg|string_agg|topK\w*|approx_top\w*"
    r"|quantiles?(TDigest|DD|GK|Deterministic|Interpolated|Prometheus|BFloat16)?\w*|median\w*|sequence\w+|deltaSum\w*"
    r"|histogram|lttb|largestTriangle\w+|exponential\w+|nonNegativeDerivative|spark[bB]ar|stochastic\w+"
    r"|singleValueOrNull|hierarchicalKMeans|mergedJSONPatch|timeSeries\w+|flameGraph|MVTEncode|ST_AsMVT|windowFunnel"
    r"|retention|boundingRatio|maxIntersections\w*|intervalLengthSum|groupNumericIndexedVector|aggThrow"
    r"|estimateCompressionRatio"
)
_FREE = (
    r"count|min|max|(min|max)MappedArrays|uniq\w*|groupBit\w+|BIT_\w+|group(Uniq)?ArraySorted|groupArrayIntersect"
    r"|quantiles?Exact\w*|medianExact\w*|quantiles?Timing\w*|medianTiming\w*|distinct\w+|nothing\w*"
    r"|categoricalInformationValue|rank|dense_?rank|percent_?rank|cume_dist|row_number|ntile|nth_value|lag\w*|lead\w*"
)
_SUMMED = (
    r"sum\w*|avg\w*|(var|stddev|covar|corr|skew|kurt)\w*|(COVAR|VAR|STDDEV|STD)\w*|regr_\w+|simpleLinearRegression"
    r"|entropy|\w+Test\w*|cramersV\w*|theilsU|contingency|gini|anova|analysisOfVariance|rankCorr"
)


def _pattern(names: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{names}){_COMBINATORS}", re.IGNORECASE)


_IS_FREE, _IS_ORDERED, _IS_SUMMED = _pattern(_FREE), _pattern(_ORDERED), _pattern(_SUMMED)


def kind_of(function: str) -> str:
    """What the order of rows is to an aggregate function.

    Returns:
        "free": nothing; "summed": the last bits of floats; "ordered": which value it gives; "" for other functions.
    """
    kinds = (("free", _IS_FREE), ("ordered", _IS_ORDERED), ("summed", _IS_SUMMED))
    return next((kind for kind, pattern in kinds if pattern.fullmatch(function)), "")


def is_ordered(expr: Expr) -> bool:
    """Whether an aggregate over groups gives another value when rows come in another order."""
    return any(kind_of(name) == "ordered" for name, _ in _functions(expr, windows=False))


def is_summed(expr: Expr, type_of: Callable[[Expr], str]) -> bool:
    """Whether an aggregate, over groups or a window, may differ in its last bits when threads share its rows.

    Args:
        type_of: ClickHouse type of an argument, or an empty string where it is not known.
    """
    return any(
        kind_of(name) == "summed" and not (args and all(_is_exact(type_of(a)) for a in args))
        for name, args in _functions(expr, windows=True)
    )


def is_open(expr: Expr) -> bool:
    """Whether SQL text numbers rows or takes one of several: what it leaves open is decided anew each time."""
    return any(
        isinstance(e, SqlText) and any(kind_of(w) == "ordered" or w in _NUMBERING for w in functions_called(e.text))
        for e in expr.walk()
    )


_NUMBERING = frozenset(["row_number", "ntile", "nth_value", "lag", "lead", "lagInFrame", "leadInFrame"])


def _functions(expr: Expr, *, windows: bool) -> Iterator[tuple[str, tuple[Expr, ...]]]:
    """Names and arguments of the functions of an expression, with those over windows or without."""
    if isinstance(expr, Window) and not windows:
        return
    if isinstance(expr, Call):
        yield expr.name, expr.args
    if isinstance(expr, SqlText):
        yield from ((word, ()) for word in functions_called(expr.text))
    for child in expr.children():
        yield from _functions(child, windows=windows)


def _is_exact(ch_type: str) -> bool:
    return bool(re.fullmatch(r"(LowCardinality\()?(Nullable\()?(U?Int\d+|Bool|Decimal.*|Date\w*)\)*", ch_type))
