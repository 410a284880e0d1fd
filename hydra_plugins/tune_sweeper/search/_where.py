"""Constraints in a user's words: `lr * 128 / batch_size < 0.2`, evaluated without running code."""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ._space import Values

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type, Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_NAMED = {"true": True, "false": False, "null": None}
_LONGEST = 1000  # characters: deeper nesting would end Python's own parser
_ALLOWED = "names, numbers, strings, + - * / // %, comparisons, in, and, or, not"


@dataclass(frozen=True)
class Where:
    """A test of configurations; a name that a configuration lacks makes the test pass.

    Calling it raises ValueError for values that the expression cannot compare or compute with.

    Raises:
        ValueError: text that is not an expression, uses more than arithmetic and comparisons, or
            names something that is neither searched nor in `constants`.

    >>> Where("lr * 10 < momentum", {"momentum": 0.9}, ("lr",))({"lr": 0.05})
    True
    """

    text: str
    constants: Mapping[str, Any]  # the fixed values of the config that the expression may name
    searched: tuple[str, ...]
    _tree: ast.expr = field(init=False, repr=False, compare=False)
    _fixed: Mapping[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.text) > _LONGEST:
            raise ValueError(f"where: an expression of {len(self.text)} characters is too long")
        try:
            tree = ast.parse(self.text.strip(), mode="eval").body
        except (SyntaxError, RecursionError, MemoryError) as error:
            reason = getattr(error, "msg", "too deep")
            raise ValueError(f"where={self.text!r} is not an expression: {reason}") from error
        self._check(tree)
        is_claim = isinstance(tree, ast.Compare | ast.BoolOp)
        if not is_claim and not (isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not)):
            raise ValueError(f"where={self.text!r} compares nothing; write for instance lr < 0.1")
        object.__setattr__(self, "_tree", tree)
        # Read once: looking up in a config takes 0.1 ms, and a strategy asks thousands of times.
        named = {name for node in ast.walk(tree) if (name := _dotted(node))} - {*self.searched}
        fixed = {name: self.constants[name] for name in named if name in self.constants}
        object.__setattr__(self, "_fixed", {**_NAMED, **fixed})

    def __call__(self, values: Values) -> bool:
        try:
            return bool(self._value(self._tree, values))
        except KeyError:  # the parameter does not exist in this configuration
            return True
        except ZeroDivisionError:
            return False
        except TypeError as error:
            raise ValueError(f"where={self.text!r} fails for {dict(values)}: {error}") from error

    def _check(self, node: ast.expr) -> None:
        if (name := _dotted(node)) is not None:
            if name not in self.searched and name not in self.constants and name not in _NAMED:
                raise ValueError(f"where={self.text!r} names {name!r}, which the config has not")
            return
        if not _is_allowed(node):
            source = ast.unparse(node)
            raise ValueError(f"where={self.text!r}: {source!r} is not allowed, only {_ALLOWED}")
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._check(child)

    def _value(self, node: ast.expr, values: Values) -> Any:
        if (name := _dotted(node)) is not None:
            return values[name] if name in self.searched else self._fixed[name]
        match node:
            case ast.Constant(value):
                return value
            case ast.List(items) | ast.Tuple(items):
                return [self._value(item, values) for item in items]
            case ast.UnaryOp(op, operand):
                value = self._value(operand, values)
                return not value if isinstance(op, ast.Not) else -value
            case ast.BinOp(left, op, right):
                return self._compute(op, self._value(left, values), self._value(right, values))
            case ast.BoolOp(op, parts):
                how = all if isinstance(op, ast.And) else any
                return how(self._value(part, values) for part in parts)
            case ast.Compare(left, ops, comparators):
                return self._compare([left, *comparators], ops, values)
        raise AssertionError("every node was checked when the expression was made")

    def _compute(self, op: ast.operator, left: Any, right: Any) -> Any:
        """Arithmetic of numbers; "a" * 10 ** 10 would be a way to fill the memory."""
        for side in (left, right):
            if not isinstance(side, int | float):
                raise TypeError(f"{side!r} is no number to compute with")
        return _BINARY[type(op)](left, right)

    def _compare(self, nodes: list[ast.expr], ops: list[ast.cmpop], values: Values) -> bool:
        sides = [self._value(node, values) for node in nodes]
        pairs = zip(sides, ops, sides[1:], strict=False)
        return all(_COMPARE[type(op)](left, right) for left, op, right in pairs)


def _dotted(node: ast.AST) -> str | None:
    """`optimizer.momentum` for such a chain of names, None for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = _dotted(node.value)
        return None if head is None else f"{head}.{node.attr}"
    return None


def _is_allowed(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value):
            return isinstance(value, bool | int | float | str | None)
        case ast.BinOp(op=op):
            return type(op) in _BINARY
        case ast.Compare(ops=ops):
            return all(type(op) in _COMPARE for op in ops)
        case ast.UnaryOp(op=op):
            return isinstance(op, ast.Not | ast.USub)
    return isinstance(node, ast.BoolOp | ast.List | ast.Tuple)
