"""Refusals of wrong arguments by name: rank, dtype and shape of arrays, at trace time.

A public function makes one ``Check`` with its own name and shows it the arguments. The letters that
an argument's name ends with are its dimensions, and a letter has one size in all arguments::

    check = Check("attend")
    check.floats(q_BTNH=q_BTNH, k_BSKH=k_BSKH, v_BSKH=v_BSKH)

raises "attend: v_BSKH [B,S,K,H] has shape (2, 9, 4, 8), but S is 7 in k_BSKH". A check reads what
JAX knows while it traces, so compiled programs do not contain it. Values are checked only where
they are known, which arguments of a function under ``jit`` are not.
"""

from collections.abc import Mapping
from typing import Any

from tfm.values import Values, kind_of, known_values, shown

_ARRAYS = {"float": "a float", "int": "an integer", "bool": "a bool"}
_MAY_BE_EMPTY = "BT"  # the batch and the queries: nothing is summed over them


class Check(Values):
    """The checks of one call of ``function``; each raises ``ValueError``.

    Args:
      function: its name, with which every message begins.
      sizes: of letters that are known before any array is seen: (size, where it is from).
    """

    def __init__(self, function: str, **sizes: tuple[int, str]) -> None:
        super().__init__(function)
        self.sizes = sizes

    def floats(self, letters: str | None = None, /, **arrays: Any) -> None:
        """Float arrays of any precision.

        Args:
          letters: dimensions, if the names do not end with them; "...D" is any number before D.
        """
        self.arrays(("float",), letters, **arrays)

    def ints(self, letters: str | None = None, /, **arrays: Any) -> None:
        """Arrays of integers, signed or not."""
        self.arrays(("int",), letters, **arrays)

    def bools(self, letters: str | None = None, /, **arrays: Any) -> None:
        """Bool arrays."""
        self.arrays(("bool",), letters, **arrays)

    def arrays(self, kinds: tuple[str, ...], letters: str | None = None, /, **arrays: Any) -> None:
        """Arrays of these kinds, of "float", "int" and "bool"."""
        for name, x in arrays.items():
            wanted = name.rpartition("_")[2] if letters is None else letters
            shape = getattr(x, "shape", None)
            if shape is None or kind_of(getattr(x, "dtype", None)) not in kinds:
                kind = " or ".join(_ARRAYS[kind] for kind in kinds)
                raise self.error(
                    f"{name} is {shown(x)}; it must be {kind} array {_brackets(wanted)}"
                )
            last = wanted.removeprefix("...")
            leading = len(shape) - len(last)
            if leading < 0 or (leading and last == wanted):
                raise self.error(f"{name} has shape {tuple(shape)}; it must have {_rank(wanted)}")
            self._fit(name, last, shape, shape[leading:])

    def _fit(self, name: str, letters: str, whole: tuple, shape: tuple) -> None:
        """Gives new letters their sizes, and compares those of known ones."""
        for letter, size in zip(letters, shape, strict=True):
            known = self.sizes.get(letter)
            if known is None:
                self.sizes[letter] = size, name
                wrong = size < 1 and letter not in _MAY_BE_EMPTY
                but = f"{letter} must be 1 or more"
            else:
                wrong = known[0] != size
                but = f"{letter} is {known[0]} in {known[1]}"
            if wrong:
                raise self.error(f"{name} {_brackets(letters)} has shape {tuple(whole)}, but {but}")

    def size(self, letter: str) -> int:
        """The size of a letter in the arrays checked so far."""
        return self.sizes[letter][0]

    def not_empty(self, letters: str) -> None:
        """These letters, which may be 0 elsewhere, are 1 or more here."""
        for letter in letters:
            size, name = self.sizes[letter]
            if size < 1:
                raise self.error(f"{letter} is 0 in {name}; it must be 1 or more")

    def mask(self, mask: Any, letters: str = "BNTS", name: str = "mask") -> None:
        """``None``, or a bool array that broadcasts to these dimensions or to the last two."""
        if mask is None:
            return
        if kind_of(getattr(mask, "dtype", None)) != "bool":
            raise self.error(
                f"{name} is {shown(mask)}; it must be bool, True = may attend: compare it with 0, "
                "or pass numbers to add to the scores as bias"
            )
        self._broadcasts(name, letters, mask.shape)

    def bias(self, bias: Any, letters: str = "BNTS", name: str = "bias") -> None:
        """``None``, or a float array that broadcasts to these dimensions or to the last two."""
        if bias is None:
            return
        kind = kind_of(getattr(bias, "dtype", None))
        if kind != "float":
            mask = "; pass a bool array as mask" if kind == "bool" else ""
            raise self.error(
                f"{name} is {shown(bias)}; it must be a float array {_brackets(letters)}{mask}"
            )
        self._broadcasts(name, letters, bias.shape)

    def _broadcasts(self, name: str, letters: str, shape: tuple) -> None:
        last = letters[-2:]
        if len(shape) not in (len(last), len(letters)):
            ranks = " or ".join(dict.fromkeys((_rank(letters), _rank(last))))
            raise self.error(
                f"{name} has shape {tuple(shape)}; it must have {ranks}, of which any may be 1"
            )
        letters = letters[-len(shape) :]
        for letter, size in zip(letters, shape, strict=True):
            known = self.sizes.setdefault(letter, (size, name)) if size != 1 else (1, name)
            if known[0] != size:
                padding = "; masks.padding makes [B,1,1,S] of [B,S]" if letters == "TS" else ""
                raise self.error(
                    f"{name} {_brackets(letters)} has shape {tuple(shape)}, but {letter} is "
                    f"{known[0]} in {known[1]}{padding}"
                )

    def heads(self) -> None:
        """N is a multiple of K."""
        (N, of_n), (K, of_k) = self.sizes["N"], self.sizes["K"]
        if N % K:
            raise self.error(
                f"{N} query heads are not a multiple of {K} key/value heads (N in {of_n}, K in "
                f"{of_k})"
            )

    def key(self, key: Any, rows: int | None = None, name: str = "key") -> None:
        """A key of ``jax.random.key``, or if ``rows`` is given one for each equal part of them."""
        kind = kind_of(getattr(key, "dtype", None))
        if kind != "key":
            old = kind == "int" and key.ndim
            how = "jax.random.wrap_key_data(key)" if old else "jax.random.key(seed)"
            raise self.error(f"{name} is {shown(key)}; it must be a typed key: pass {how}")
        if key.ndim and rows is None:
            raise self.error(f"{name} has shape {key.shape}; it must be a single key")
        if key.ndim and (key.ndim > 1 or not key.size or rows % key.size):
            raise self.error(
                f"{name} has shape {key.shape}; it must be a single key, or an array of keys "
                f"whose number divides {rows}, the first dimension"
            )

    def optional_key(self, key: Any) -> None:
        """``None``, which is inference, or a key, or one for each equal part of the batch B."""
        if key is not None:
            self.key(key, self.size("B"))

    def dropout(self, rate: Any, key: Any, rows: int, name: str = "dropout_rate") -> None:
        """A rate in [0, 1), and a key unless it is 0."""
        self.rate(**{name: rate})
        if key is not None:
            self.key(key, rows)
        elif rate:
            raise self.error(
                f"{name} is {rate}, but key is None: pass key=jax.random.key(seed), or {name}=0 "
                "for inference"
            )

    def within(self, count: int, what: str, /, **ids: Any) -> None:
        """Known values are 0 to count - 1, the numbers of ``what``."""
        for name, x in ids.items():
            values = known_values(x)
            if values is None:
                continue
            for value in values[(values < 0) | (values >= count)].flat:
                raise self.error(f"{name} holds {value}, but {what} are 0 to {count - 1}")

    def params(self, tree: Any, leaves: Mapping[str, str], declared_by: str) -> None:
        """The parameters in a nested dict: float arrays.

        Args:
          leaves: path → letters. A parameter whose path ends with "?" may be missing.
          declared_by: the function that declares them.
        """
        for path, letters in leaves.items():
            name, x = _leaf(tree, path.removesuffix("?"))
            if x is not None:
                self.floats(letters, **{name: x})
            elif path == path.removesuffix("?"):
                raise self.error(f"{name} is missing; make params as {declared_by} declares them")

    def declared(
        self,
        tree: Any,
        shapes: Mapping[str, tuple[int, ...]],
        declared_by: str,
        root: str = "params",
    ) -> None:
        """The parameters in a nested dict: float arrays of the declared shapes (path → shape)."""
        for path, shape in shapes.items():
            name, x = _leaf(tree, path, root)
            if x is None or x.shape != shape or kind_of(x.dtype) != "float":
                given = "is missing" if x is None else f"is {shown(x)}"
                raise self.error(
                    f"{name} {given}; {declared_by} declares a float array of shape {shape}"
                )


def _leaf(tree: Any, path: str, root: str = "params") -> tuple[str, Any]:
    """The name of a parameter, and the array that a nested dict holds there, ``None`` if none."""
    names = path.split("/")
    written = root + "".join(f"[{name!r}]" for name in names)
    try:
        for name in names:
            tree = tree[name]
    except (KeyError, IndexError, TypeError, AttributeError):
        return written, None
    return written, tree if hasattr(tree, "shape") and hasattr(tree, "dtype") else None


def _brackets(letters: str) -> str:
    dots = ["..."] if letters.startswith("...") else []
    return f"[{','.join(dots + list(letters.removeprefix('...')))}]"


def _rank(letters: str) -> str:
    count = len(letters.removeprefix("..."))
    more = " or more" if letters.startswith("...") else ""
    return f"{count}{more} dimension{'s' if count != 1 or more else ''} {_brackets(letters)}"
