"""Signals: computed columns, declared with `@signal` on a function or on a class.

```python
@signal
def caption_length(caption: str) -> int:
    return len(caption)

@signal(output=Vector(64), batch=True)
class Embedding:
    def setup(self) -> None: ...                       # once in each worker process
    def prepare(self, image: Image.Image) -> Any: ...  # optional: each sample, right after its picture is decoded
    def __call__(self, prepared: list[Any]) -> Any: ...
```
"""

from __future__ import annotations

import copy
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

from factory_lib.errors import SignalError, nearest
from factory_lib.settings import as_stored
from factory_lib.signals.dependencies import declared_dependencies
from factory_lib.signals.inputs import Input, declared_inputs, resolve
from factory_lib.signals.outputs import ERROR_TYPE, Output, Vector, output_of
from factory_lib.signals.resources import ONE_CORE, Resources

_NAME = re.compile(r"[a-z][a-z0-9_]*")
DEFAULT_BATCH = 64


@dataclass(frozen=True, eq=False)
class Signal:
    """A computed column: what it reads, what it returns, and what computes it.

    Attributes:
        name: name of the column; errors go to the column `<name>_error`.
        target: the function, or the object whose `__call__` computes.
        inputs: what it reads, in the order of the parameters.
        output: type of the column.
        batch: samples in one call; 0 for a function of single samples.
        version: declared version; part of the fingerprint.
        pinned: the version replaces the source code in the fingerprint (to carry values through a refactoring).
        truncated: pictures from files that end early are accepted.
        timeout: seconds that a call may take; None for the setting `FACTORY_SIGNAL_TIMEOUT`, 0 for no end.
        depends_on: what the values depend on besides the code: files, folders, `env(…)`, functions, values.
        resources: what a process that computes it takes of a machine; no part of the fingerprint.
    """

    name: str
    target: Callable[..., Any]
    inputs: tuple[Input, ...]
    output: Output
    batch: int = 0
    version: str = ""
    pinned: bool = False
    truncated: bool = False
    timeout: float | None = None
    depends_on: tuple[Any, ...] = ()
    resources: Resources = ONE_CORE
    _home: tuple[str, str] = field(default=("", ""), repr=False)

    @property
    def columns(self) -> dict[str, str]:
        """The columns it makes, with their ClickHouse types."""
        return {self.name: self.output.clickhouse, f"{self.name}_error": ERROR_TYPE}

    @property
    def members(self) -> tuple[str, ...]:
        """The pointer columns whose bytes it reads."""
        return tuple(dict.fromkeys(given.column for given in self.inputs if given.kind != "value"))

    @property
    def values(self) -> tuple[str, ...]:
        """The columns whose values it reads."""
        return tuple(dict.fromkeys(given.column for given in self.inputs if given.kind == "value"))

    @property
    def reads(self) -> tuple[str, ...]:
        """All columns it reads."""
        return tuple(dict.fromkeys(given.column for given in self.inputs))

    @property
    def looks_up(self) -> tuple[str, ...]:
        """The versions that its object took what it knows from, as its attribute `looks_up` says: parents of what it
        makes."""
        return tuple(getattr(self.target, "looks_up", ()))

    @property
    def requires(self) -> tuple[str, ...]:
        """The distributions that computing it needs and the factory does not: what its class says as `requires`."""
        return tuple(getattr(self.target, "requires", ()))

    @property
    def has_setup(self) -> bool:
        """Whether a worker has to set it up (load a model) before the first sample."""
        return callable(getattr(self.target, "setup", None))

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The function or object itself, for `inspect` and documentation tools."""
        return self.target

    @property
    def declaration(self) -> dict[str, str]:
        """What of the declaration its values depend on; not its name, nor how many samples make a batch."""
        unit = (
            f" of {self.output.size}{', unit length' if self.output.unit else ''}"
            if isinstance(self.output, Vector)
            else ""
        )
        found = {
            "output": self.output.clickhouse + unit,
            "inputs": ", ".join(f"{given.parameter}={given.column}:{given.kind}" for given in self.inputs),
        }
        if self.truncated:
            found["truncated"] = "accepted"
        if (stored := as_stored()) and any(given.kind in {"image", "member"} for given in self.inputs):
            found["as stored"] = ", ".join(sorted(stored))
        if self.version:
            found["version"] = self.version + (" (pinned)" if self.pinned else "")
        return found

    @property
    def components(self) -> dict[str, str]:
        """What its values depend on now: dotted name -> short hash. Globals and files are looked at anew each time.

        What computing itself changed in this process (a memo, a counter, a model loaded on first use) counts as it was
        before the first value.
        """
        from factory_lib.signals.use import settled

        return settled(self)

    @property
    def fingerprint(self) -> str:
        """Hex digest over all components: equal fingerprints mean equal values for equal inputs."""
        from factory_lib.fingerprints.components import digest

        return digest(self.components)

    @property
    def fingerprint_name(self) -> str:
        """The name of the signal's components where other code uses it."""
        return f"signal:{self.name}"

    def __fingerprint__(self) -> dict[str, Any]:
        """What other code that uses the signal depends on."""
        declared = {f"depends_on[{place}]": one for place, one in enumerate(self.depends_on)}
        return {**self.declaration, **declared, **({} if self.pinned else {"target": self.target})}

    def named(self, name: str) -> Signal:
        """The same signal making a column of another name."""
        return replace(self, name=_checked_name(name, f"signal {self.name!r}"), _home=("", ""))

    def reading(self, **columns: str) -> Signal:
        """The same signal reading other columns, for instance `phash.reading(image="thumbnail")`.

        Raises:
            SignalError: no such parameter.
        """
        known = [given.parameter for given in self.inputs]
        for parameter in columns:
            if parameter not in known:
                raise SignalError(f"Signal {self.name!r} has no input {parameter!r}.", nearest(parameter, known))
        inputs = tuple(replace(given, column=columns.get(given.parameter, given.column)) for given in self.inputs)
        return replace(self, inputs=inputs, _home=("", ""))

    def needing(self, *, gpus: float = 0, cpus: float = 1, memory: int = 0) -> Signal:
        """The same signal where a process that computes it takes something else of a machine: `clip.needing(gpus=0.5)`.

        Raises:
            SignalError: no amounts.
        """
        return replace(self, resources=Resources.declared(gpus, cpus, memory, f"signal {self.name!r}"), _home=("", ""))

    def instance(self) -> Any:
        """An object of its own that is ready to compute: for a class, a copy on which `setup()` was called.

        Raises:
            SignalError: `setup()` failed.
        """
        if not self.has_setup:
            return self.target
        ready: Any = copy.copy(self.target)
        try:
            ready.setup()
        except Exception as error:
            raise SignalError(
                f"Signal {self.name!r}: setup() failed with {type(error).__name__}: {error}",
                "Nothing was computed; setup() runs once in each worker process before the first sample.",
            ) from error
        return ready

    def one(self, *values: Any) -> Any:
        """Compute the value of one sample now.

        Args:
            values: one for each input, in order; for images and bytes a path, a URI, bytes or a PIL picture.

        Returns:
            The value: for a `Vector` a float32 array (of length 1 where its vectors are), else what the signal returns.

        Raises:
            SignalError: wrong number of values, an input that cannot be read, or the signal failed.
        """
        from factory_lib.signals.single import compute_one

        return compute_one(self, values)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function (or a ready instance of the class) itself, with nothing converted."""
        from factory_lib.signals.use import using

        with using(self):
            return self.ready()(*args, **kwargs)

    def ready(self) -> Any:
        """The function, or an instance that is set up in this process: made anew only when the fingerprint changed."""
        if not self.has_setup:
            return self.target
        fingerprint = self.fingerprint
        known: tuple[str, Any] | None = self.__dict__.get("_made")
        if known is None or known[0] != fingerprint:
            known = (fingerprint, self.instance())
            object.__setattr__(self, "_made", known)
        return known[1]

    def __repr__(self) -> str:
        reads = ", ".join(f"{given.column} ({given.kind})" for given in self.inputs)
        return f"Signal({self.name}: {reads} -> {self.output.clickhouse})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by reference where its module can be imported and still holds it.

        The user's signals go to workers by value: see `compute.travel`.
        """
        module, attribute = self._home
        if module != "__main__" and getattr(sys.modules.get(module), attribute, None) is self:
            return _imported, (module, attribute)
        return Signal, self.parts()

    @property
    def module(self) -> str:
        """The module that declared it."""
        return self._home[0]

    @property
    def successor(self) -> str:
        """`module.name` that holds another signal of the same function or class now; "" where none does."""
        module, attribute = self._home
        now = getattr(sys.modules.get(module), attribute, None)
        if module == "__main__" or not isinstance(now, Signal) or now is self or now.name != self.name:
            return ""
        declared = _declared_as(self.target)
        return f"{module}.{attribute}" if declared == attribute and declared == _declared_as(now.target) else ""

    def parts(self) -> tuple[Any, ...]:
        """The arguments that make it anew."""
        return (
            self.name,
            self.target,
            self.inputs,
            self.output,
            self.batch,
            self.version,
            self.pinned,
            self.truncated,
            self.timeout,
            self.depends_on,
            self.resources,
        )


@overload
def signal(target: Callable[..., Any], /) -> Signal: ...
@overload
def signal(
    target: None = None,
    /,
    *,
    name: str | None = None,
    output: Any = None,
    inputs: Mapping[str, Any] | None = None,
    batch: bool | int = False,
    version: str = "",
    pinned: bool = False,
    truncated: bool = False,
    timeout: float | None = None,
    depends_on: Sequence[Any] = (),
    gpus: float = 0,
    cpus: float = 1,
    memory: int = 0,
) -> Callable[[Callable[..., Any]], Signal]: ...
@overload
def signal(
    target: Callable[..., Any],
    /,
    *,
    name: str | None = None,
    output: Any = None,
    inputs: Mapping[str, Any] | None = None,
    batch: bool | int = False,
    version: str = "",
    pinned: bool = False,
    truncated: bool = False,
    timeout: float | None = None,
    depends_on: Sequence[Any] = (),
    gpus: float = 0,
    cpus: float = 1,
    memory: int = 0,
) -> Signal: ...
def signal(
    target: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    output: Any = None,
    inputs: Mapping[str, Any] | None = None,
    batch: bool | int = False,
    version: str = "",
    pinned: bool = False,
    truncated: bool = False,
    timeout: float | None = None,
    depends_on: Sequence[Any] = (),
    gpus: float = 0,
    cpus: float = 1,
    memory: int = 0,
) -> Signal | Callable[[Callable[..., Any]], Signal]:
    """Declare a signal: a function, a class (made without arguments) or an object with `__call__`.

    Inputs are the parameters without a default: annotated `bytes` they get the bytes of the member of that name,
    annotated `PIL.Image.Image` its decoded RGB picture, else the value of the column of that name. The output type is
    the return annotation.

    Args:
        target: function, class or object; left out when used as `@signal(...)`.
        name: name of the column; default the function's name, or the class's in snake_case.
        output: type of the value where it is not annotated: a type or `Vector(n)`.
        inputs: parameter -> column name, -> type, or -> (column name, type), overriding names and annotations.
        batch: the function gets lists of samples and returns one value each; a number sets how many (default 64).
        version: declared version, part of the fingerprint.
        pinned: the version stands for the code: values stay valid while it does, however the code is rewritten.
        truncated: accept pictures from files that end early.
        timeout: seconds that a call may take before its sample (or batch, then tried one by one) gets an error;
            default `FACTORY_SIGNAL_TIMEOUT`, 0 for no end.
        depends_on: what the values depend on and the code does not show: files and folders (`Path("labels.json")`, by
            content), the environment (`env("LANG")`), functions and values.
        gpus: GPUs that a process which computes it has to itself; 0.5 where two fit on one.
        cpus: cores that it takes, and threads of libraries.
        memory: bytes of main memory; default `FACTORY_WORKER_BYTES`.

    Raises:
        SignalError: the declaration cannot be used; the message says why.
    """
    needs = Resources.declared(gpus, cpus, memory, f"signal {name or getattr(target, '__name__', '')!r}")

    def declare(given: Callable[..., Any]) -> Signal:
        return _declare(given, name, output, inputs, batch, version, pinned, truncated, timeout, depends_on, needs)

    return declare if target is None else declare(target)


def _declare(
    target: Callable[..., Any],
    name: str | None,
    output: Any,
    inputs: Mapping[str, Any] | None,
    batch: bool | int,
    version: str,
    pinned: bool,
    truncated: bool,
    timeout: float | None,
    depends_on: Sequence[Any],
    resources: Resources,
) -> Signal:
    if isinstance(target, Signal):
        raise SignalError(f"{target.name!r} is a signal already.", "Use .named() or .reading() for a variant of it.")
    if not callable(target):
        raise SignalError(f"@signal needs a function or a class, not {type(target).__name__}.")
    given = getattr(target, "__name__", type(target).__name__)
    where = f"signal {name or given!r}"
    if pinned and not version:
        raise SignalError(f"{where}: pinned=True needs a version to pin.", 'Write version="1", pinned=True.')
    if timeout is not None and not timeout >= 0:
        raise SignalError(f"{where}: timeout={timeout!r} is no number of seconds.", "Give 0 for no end.")
    if isinstance(target, type):
        target = _made(target, where)
    column = _checked_name(name or _snake_case(given), where)
    prepare = getattr(target, "prepare", None)
    if prepare is not None and not batch:
        raise SignalError(f"{where}: prepare() is for batches.", "Add batch=True, or do it all in __call__.")
    declared = declared_inputs(prepare or target, inputs, bool(batch) and prepare is None, where)
    size = 0 if batch is False else DEFAULT_BATCH if batch is True else int(batch)
    home = (getattr(target, "__module__", "") or "", given)
    returned = _declared_output(target, output, bool(batch), where)
    made = Signal(
        column,
        target,
        declared,
        returned,
        size,
        version,
        pinned,
        truncated,
        timeout,
        declared_dependencies(depends_on, where),
        resources,
        home,
    )
    object.__setattr__(made, "__doc__", target.__doc__)
    return made


def _declared_as(target: Any) -> str:
    """The name under which a function, or the class of an object, was declared."""
    return str(getattr(target, "__qualname__", type(target).__qualname__))


def _made(kind: type, where: str) -> Callable[..., Any]:
    if not any("__call__" in vars(base) for base in kind.__mro__):
        raise SignalError(
            f"{where}: the class has no __call__.", "Write __call__(self, …) with the inputs as parameters."
        )
    try:
        made: Callable[..., Any] = kind()
    except TypeError as error:
        raise SignalError(
            f"{where}: the class cannot be made without arguments ({error}).",
            f"Decorate an object instead: signal({kind.__name__}(…), name=…).",
        ) from None
    return made


def _declared_output(target: Callable[..., Any], output: Any, batch: bool, where: str) -> Output:
    if output is not None:
        return output_of(output, where)
    annotation = inspect.signature(target).return_annotation
    if isinstance(annotation, str):
        annotation = resolve(annotation, target)
    if annotation is inspect.Signature.empty or annotation is None:
        raise SignalError(
            f"{where}: it does not say what it returns.", "Annotate the return type (-> float) or give output=."
        )
    if isinstance(annotation, str):
        raise SignalError(f"{where}: the return annotation {annotation!r} cannot be resolved.", "Give output= instead.")
    if batch and getattr(annotation, "__origin__", None) is list:
        annotation = annotation.__args__[0]
    return output_of(annotation, where)


def _checked_name(name: str, where: str) -> str:
    if not _NAME.fullmatch(name):
        hint = "Give name=, in lower case: letters, digits, underscores, a letter first."
        raise SignalError(f"{where}: {name!r} cannot name a column.", hint)
    if name.endswith("_error") or name in {"shard", "position", "sample_id", "key"}:
        raise SignalError(f"{where}: the column name {name!r} is taken by the factory.", "Give another name=.")
    return name


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _imported(module: str, attribute: str) -> Signal:
    import importlib

    found: Signal = getattr(importlib.import_module(module), attribute)
    return found
