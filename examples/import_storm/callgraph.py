"""The functions of the generated libraries: who calls whom, what each returns, and the same as C.

All arithmetic is modulo 2**32, as C's ``unsigned int`` does it, and every argument of every call is a constant. So the
generator knows what each function returns without having compiled it: a driver that gets the right sum has really run
the right libraries.

Rules of the file: random numbers come from the given generator only, in a fixed order. A function calls the next one of
its chain, and the last one of a chain in a library with a lower number: calls never go in a circle, and their number
grows with that of the functions, not with the power of the depth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from random import Random

MASK = 0xFFFFFFFF


class Call(NamedTuple):
    """One call, with its arguments."""

    library: int
    function: int
    arguments: tuple[int, ...]


class Function(NamedTuple):
    """Returns constant + the sum of weight x argument + what its calls return."""

    weights: tuple[int, ...]
    constant: int
    calls: tuple[Call, ...]
    inner: int  # the constant and what the calls return

    def returns(self, arguments: tuple[int, ...]) -> int:
        """Its result for *arguments*."""
        return (self.inner + sum(w * a for w, a in zip(self.weights, arguments))) & MASK


class Library(NamedTuple):
    """One shared library. ``needs`` are the numbers of the libraries that it is linked with."""

    name: str
    utility: bool
    package: int
    needs: tuple[int, ...]
    functions: tuple[Function, ...]
    entries: tuple[Call, ...]  # what its entry function calls: the first of each chain, and one of each needed library

    def symbol(self, function: int, longer: int) -> str:
        """The name of a function, made *longer* by that many letters as long C++ names are."""
        filler = "_" + ("abcdefghij" * (longer // 10 + 1))[: longer - 1] if longer else ""
        return f"{self.name}_f{function}{filler}"


def around(random: Random, average: int) -> int:
    """Half to one and a half times *average*, as in Pynamic, but at least 1 (0 for 0)."""
    return max(1, random.randint(average // 2, average + average // 2)) if average else 0


def call(random: Random, number: int, index: int, function: Function) -> Call:
    """A call with random arguments."""
    return Call(number, index, tuple(random.randrange(1, 16_000) for _ in function.weights))


class Graph:
    """All libraries so far, to which :meth:`add` adds one."""

    def __init__(self, random: Random, *, functions: int, arguments: int, depth: int) -> None:
        """
        :param functions: average number of functions of a library
        :param arguments: average number of arguments of a function
        :param depth: how many functions of a library call one another in a chain
        """
        self.random, self.libraries = random, list[Library]()
        self.functions, self.arguments, self.depth = functions, arguments, depth

    def add(self, name: str, *, utility: bool, package: int, needs: tuple[int, ...]) -> None:
        """Make one, which calls functions of those that it *needs*."""
        random, number = self.random, len(self.libraries)
        made: dict[int, Function] = {}
        count = around(random, self.functions)
        for index in reversed(range(count)):  # the callee first: its result is part of the caller's
            calls = []
            if index + 1 < count and index % self.depth != self.depth - 1:
                calls.append(call(random, number, index + 1, made[index + 1]))
            if needs:
                calls.append(self._elsewhere(random.choice(needs)))
            weights = tuple(random.randrange(1, 1000) for _ in range(random.randint(0, 2 * self.arguments)))
            constant = random.randrange(MASK)
            returned = sum(self._result(c, number, made) for c in calls)
            made[index] = Function(weights, constant, tuple(calls), (constant + returned) & MASK)
        functions = tuple(made[index] for index in range(count))
        entries = [call(random, number, index, functions[index]) for index in range(0, count, self.depth)]
        entries += [self._elsewhere(needed) for needed in needs]
        self.libraries.append(Library(name, utility, package, needs, functions, tuple(entries)))

    def entry_returns(self, library: Library) -> int:
        """What the entry function of a finished *library* returns."""
        return sum(self._result(c, -1, {}) for c in library.entries) & MASK

    def source(self, number: int, longer: int) -> str:
        """A library as C: its functions, and ``NAME_entry``."""
        library = self.libraries[number]
        foreign = {c[:2] for f in library.functions for c in f.calls if c.library != number}
        foreign |= {c[:2] for c in library.entries if c.library != number}
        own = [(number, index) for index in range(len(library.functions))]
        lines = [f"{self._head(n, i, longer)};" for n, i in [*sorted(foreign), *own]]
        for index, function in enumerate(library.functions):
            terms = [f"{function.constant}u", *(f"{w}u * a{i}" for i, w in enumerate(function.weights))]
            terms += [self._written(c, longer) for c in function.calls]
            lines.append(f"{self._head(number, index, longer)}\n{{\n    return {' + '.join(terms)};\n}}")
        total = "\n        + ".join(self._written(c, longer) for c in library.entries)
        lines.append(f"unsigned int {library.name}_entry(void)\n{{\n    return {total};\n}}")
        return "\n".join([*lines, ""])

    # -- parts ---------------------------------------------------------------------------------------------------

    def _elsewhere(self, number: int) -> Call:
        functions = self.libraries[number].functions
        index = self.random.randrange(len(functions))
        index = min(index - index % self.depth + self.depth, len(functions)) - 1  # the last one of its chain
        return call(self.random, number, index, functions[index])

    def _result(self, one: Call, number: int, made: dict[int, Function]) -> int:
        function = made[one.function] if one.library == number else self.libraries[one.library].functions[one.function]
        return function.returns(one.arguments)

    def _head(self, number: int, index: int, longer: int) -> str:
        library = self.libraries[number]
        names = ", ".join(f"unsigned int a{i}" for i in range(len(library.functions[index].weights)))
        return f"unsigned int {library.symbol(index, longer)}({names or 'void'})"

    def _written(self, one: Call, longer: int) -> str:
        given = ", ".join(f"{a}u" for a in one.arguments)
        return f"{self.libraries[one.library].symbol(one.function, longer)}({given})"
