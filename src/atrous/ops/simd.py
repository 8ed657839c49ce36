"""Explicit vectors of sixteen float32 for numba, whose loops are not reliably vectorised.

They compile to the registers of the machine: one of AVX-512, two of AVX2, four of SSE or NEON. The functions work
only inside ``njit``. Vectors live in registers; they are loaded from and stored to an array's :func:`address` plus an
index, which counts floats (or integers).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.datamodel import models, register_default
from numba.extending import intrinsic

LANES = 16

_FLOAT, _INT, _INDEX, _HALF = ir.FloatType(), ir.IntType(32), ir.IntType(64), ir.IntType(16)
_FLOATS, _INTS, _HALVES = (ir.VectorType(kind, LANES) for kind in (_FLOAT, _INT, _HALF))
_BYTES = {_INDEX: 8, _HALVES: 2}


class _VectorType(types.Type):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__("float32x16")


@register_default(_VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FLOATS)


_vector, _address, _number = _VectorType(), types.int64, types.float32


def _instruction(result: Any, *parameters: Any) -> Callable[[Callable[..., Any]], Any]:
    """Make an ``njit`` function from one that generates its instructions, given a builder and the arguments."""

    def decorate(generate: Callable[..., Any]) -> Any:
        def emit(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            value = generate(builder, *arguments)
            return context.get_dummy_value() if result is types.void else value

        def typed(_: Any, *__: Any) -> Any:
            return result(*parameters), emit

        typed.__name__, typed.__doc__ = generate.__name__, generate.__doc__
        typed.__signature__ = inspect.signature(generate)  # type: ignore[attr-defined]
        return intrinsic(typed)

    return decorate


def _pointer(builder: Any, kind: Any, address: Any, index: Any) -> Any:
    """A pointer to values of a kind, ``index`` elements after an address."""
    size = _INDEX(_BYTES.get(kind, 4))
    return builder.inttoptr(builder.add(address, builder.mul(index, size)), kind.as_pointer())


@intrinsic  # type: ignore[untyped-decorator]
def address(_: Any, array: Any) -> Any:
    """The address of a contiguous array's values; valid only up to the last line that names the array.

    Functions are cheaper to call with addresses than with arrays, which are reference-counted.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.ptrtoint(data, _INDEX)

    return _address(array), emit


@_instruction(_vector, _address, types.int64)
def load(builder: Any, address: Any, index: Any) -> Any:
    """Load sixteen floats from an index on."""
    vector = builder.load(_pointer(builder, _FLOATS, address, index))
    vector.align = 4
    return vector


@_instruction(types.void, _address, types.int64, _vector)
def store(builder: Any, address: Any, index: Any, vector: Any) -> None:
    """Store sixteen floats from an index on."""
    builder.store(vector, _pointer(builder, _FLOATS, address, index), align=4)


@_instruction(_vector, _address, types.int64)
def load_bfloat16(builder: Any, address: Any, index: Any) -> Any:
    """Load sixteen bfloat16 numbers as floats."""
    halves = builder.load(_pointer(builder, _HALVES, address, index))
    halves.align = 2
    return builder.bitcast(builder.shl(builder.zext(halves, _INTS), ir.Constant(_INTS, [16] * LANES)), _FLOATS)


@_instruction(types.void, _address, types.int64, _vector)
def store_bfloat16(builder: Any, address: Any, index: Any, vector: Any) -> None:
    """Store sixteen floats as bfloat16, rounded to nearest, ties to even."""
    bits, sixteen = builder.bitcast(vector, _INTS), ir.Constant(_INTS, [16] * LANES)
    odd = builder.and_(builder.lshr(bits, sixteen), ir.Constant(_INTS, [1] * LANES))
    rounded = builder.add(builder.add(bits, ir.Constant(_INTS, [0x7FFF] * LANES)), odd)
    rounded = builder.trunc(builder.lshr(rounded, sixteen), _HALVES)
    none = builder.fcmp_unordered("uno", vector, vector)  # rounding up a NaN could turn it into a number
    halves = builder.select(none, ir.Constant(_HALVES, [0x7FC0] * LANES), rounded)
    builder.store(halves, _pointer(builder, _HALVES, address, index), align=2)


@_instruction(_number, _address, types.int64)
def load_number(builder: Any, address: Any, index: Any) -> Any:
    """Load one float32."""
    return builder.load(_pointer(builder, _FLOAT, address, index))


@_instruction(types.void, _address, types.int64, _number)
def store_number(builder: Any, address: Any, index: Any, number: Any) -> None:
    """Store one float32."""
    builder.store(number, _pointer(builder, _FLOAT, address, index))


@_instruction(types.int64, _address, types.int64)
def load_id(builder: Any, address: Any, index: Any) -> Any:
    """Load one int32 as int64."""
    return builder.sext(builder.load(_pointer(builder, _INT, address, index)), _INDEX)


@_instruction(types.int64, _address, types.int64)
def load_index(builder: Any, address: Any, index: Any) -> Any:
    """Load one int64."""
    return builder.load(_pointer(builder, _INDEX, address, index))


@_instruction(_vector, _number)
def spread(builder: Any, number: Any) -> Any:
    """A vector of sixteen copies of a number."""
    one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), number, _INT(0))
    return builder.shuffle_vector(one, ir.Constant(_FLOATS, ir.Undefined), ir.Constant(_INTS, None))


@_instruction(_number, _number)
def reciprocal(builder: Any, number: Any) -> Any:
    """1 / x, without numba's check for zero."""
    return builder.fdiv(_FLOAT(1.0), number)


def _call(builder: Any, name: str, *arguments: Any) -> Any:
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * len(arguments))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"{name}.v{LANES}f32"), arguments)


def _if(builder: Any, relation: str, a: Any, b: Any, c: Any) -> Any:
    return builder.select(builder.fcmp_ordered(relation, a, b), c, ir.Constant(_FLOATS, [0.0] * LANES))


def _maximum(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


_one, _two, _three = (_instruction(_vector, *[_vector] * count) for count in (1, 2, 3))
add = _two(lambda builder, a, b: builder.fadd(a, b))
subtract = _two(lambda builder, a, b: builder.fsub(a, b))
multiply = _two(lambda builder, a, b: builder.fmul(a, b))
multiply_add = _three(lambda builder, a, b, c: _call(builder, "llvm.fmuladd", a, b, c))
"""a · b + c, rounded once if the machine can."""
nearest_integer = _one(lambda builder, a: _call(builder, "llvm.rint", a))
larger = _two(_maximum)
if_less = _three(lambda builder, a, b, c: _if(builder, "<", a, b, c))
"""c where a < b, and 0 elsewhere."""
if_equal = _three(lambda builder, a, b, c: _if(builder, "==", a, b, c))
"""c where a = b, and 0 elsewhere."""


@_one
def _power_of_two(builder: Any, n: Any) -> Any:
    """2ⁿ for integers from -126 to 127."""
    exponent = builder.add(builder.fptosi(n, _INTS), ir.Constant(_INTS, [127] * LANES))
    return builder.bitcast(builder.shl(exponent, ir.Constant(_INTS, [23] * LANES)), _FLOATS)


def _fold(builder: Any, vector: Any, combine: Callable[[Any, Any, Any], Any]) -> Any:
    """Reduce sixteen numbers to one, combining halves."""
    for half in (8, 4, 2, 1):
        lanes = ir.Constant(_INTS, [(i + half) % LANES for i in range(LANES)])
        vector = combine(builder, vector, builder.shuffle_vector(vector, ir.Constant(_FLOATS, ir.Undefined), lanes))
    return builder.extract_element(vector, _INT(0))


_reduction = _instruction(_number, _vector)
total = _reduction(lambda builder, a: _fold(builder, a, lambda builder, a, b: builder.fadd(a, b)))
largest = _reduction(lambda builder, a: _fold(builder, a, _maximum))


@_instruction(types.void, _address, types.int64, _address, _address, types.int64)
def transpose(builder: Any, source: Any, source_step: Any, rows: Any, target: Any, target_step: Any) -> None:
    """Transpose sixteen rows of sixteen floats; source and target have rows ``source_step`` and ``target_step`` floats
    apart.

    ``rows`` is the address of sixteen int64: the rows of the source to take.
    """
    vectors = []
    for i in range(LANES):
        row = builder.load(_pointer(builder, _INDEX, rows, _INDEX(i)))
        vectors.append(builder.load(_pointer(builder, _FLOATS, source, builder.mul(row, source_step))))
        vectors[-1].align = 4
    for half in (8, 4, 2, 1):  # swap the off-diagonal quarters of ever smaller squares
        upper = [LANES + (j ^ half) if j & half else j for j in range(LANES)]
        lower = [LANES + j if j & half else j ^ half for j in range(LANES)]
        for i in (i for i in range(LANES) if not i & half):
            a, b = vectors[i], vectors[i + half]
            vectors[i] = builder.shuffle_vector(a, b, ir.Constant(_INTS, upper))
            vectors[i + half] = builder.shuffle_vector(a, b, ir.Constant(_INTS, lower))
    for i, vector in enumerate(vectors):
        builder.store(vector, _pointer(builder, _FLOATS, target, builder.mul(_INDEX(i), target_step)), align=4)


@njit(cache=True)  # type: ignore[untyped-decorator]
def exponential(x: Any) -> Any:
    """The exponential of numbers up to 88, to a relative error of 2·10⁻⁷; 0 below -87."""
    n = nearest_integer(multiply(x, spread(1.44269504)))
    # The remainder in two steps, because one float does not hold log 2 exactly enough; then Cephes' polynomial.
    rest = multiply_add(n, spread(-0.693359375), x)
    rest = multiply_add(n, spread(2.12194440e-4), rest)
    p = multiply_add(spread(1.9875691500e-4), rest, spread(1.3981999507e-3))
    p = multiply_add(p, rest, spread(8.3334519073e-3))
    p = multiply_add(p, rest, spread(4.1665795894e-2))
    p = multiply_add(p, rest, spread(1.6666665459e-1))
    p = multiply_add(p, rest, spread(5.0000001201e-1))
    p = add(multiply_add(p, multiply(rest, rest), rest), spread(1.0))
    return multiply(if_less(spread(-87.0), x, p), _power_of_two(larger(n, spread(-126.0))))
