"""Options that several commands share, each spelled once."""

import dataclasses
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from tfm import storage
from tfm.config import SENTENCE_LENGTH, Name
from tfm.decoding import Decode
from tfm.positions import Scheme, schemes
from tfm.positions.rotary import SCALING
from tfm.run_folder import RunFolder
from tfm.transformer.config import Weights

if TYPE_CHECKING:
    from etils import epath

    from tfm.translator import Translator


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and for which lengths.

    Attributes:
        model: Folder of a run, local or in a bucket.
        source_length: The most tokens of a line that are translated in one; a longer line is split.
            The run's own by default.
        rotary_scaling: Divides rotary positions; 2 reads twice the trained length. The run's own by
            default.
        ensemble: Folders of further models with the same vocabularies, which translate together
            with it; see --ensemble-average.
        weights: Of matrix products: auto computes as for activations, bfloat16 and int8 with fewer
            bits, which is faster on most hardware. The run's own by default.
    """

    model: str
    source_length: Annotated[int, SENTENCE_LENGTH] | None = None
    rotary_scaling: Annotated[float, SCALING] | None = None
    ensemble: tuple[Name, ...] | None = None
    weights: Weights | None = None

    def load(self, warm_up: bool = False) -> "Translator":
        """Opens the model, or the models; what was compiled ahead need not be compiled again.

        Args:
          warm_up: whether what is compiled from now on is kept in the folder of the run.
        """
        from tfm import translator

        _use_compiled(RunFolder(self.model).compiled, warm_up)
        lengths = given(self)
        folders = [lengths.pop("model"), *lengths.pop("ensemble", ())]
        models = [translator.load(folder, **lengths) for folder in folders]
        return translator.Ensemble(models) if len(models) > 1 else models[0]


@dataclass(frozen=True)
class PairModelOptions(ModelOptions):
    """Which model, for a command that is given translations too.

    Attributes:
        target_length: The most tokens of a given translation. The run's own by default.
    """

    target_length: Annotated[int, SENTENCE_LENGTH] | None = None


@dataclass(frozen=True)
class ServedModelOptions(ModelOptions):
    """Which model, here or behind a server.

    Attributes:
        model: Folder of a run, local or in a bucket.
        server: Instead of a model, the address of a `tfm serve`: "http://127.0.0.1:5000". Its API
            key, if it needs one, is read from the variable TFM_API_KEY.
        source_language: Of a server with several models; by default it is detected.
        target_language: Of a server with several models.
    """

    model: str = ""
    server: str | None = None
    source_language: str = "auto"
    target_language: str | None = None

    def load(self, warm_up: bool = False) -> Any:
        """Opens the model, or something that translates as it does."""
        if bool(self.model) == bool(self.server):
            raise ValueError("no model: give --model RUN or --server URL, and only one of them")
        local = {f.name: getattr(self, f.name) for f in dataclasses.fields(ModelOptions)}
        if not self.server:
            return ModelOptions(**local).load(warm_up)
        if warm_up or any(value is not None for name, value in local.items() if name != "model"):
            own = ", ".join("--" + name.replace("_", "-") for name in local if name != "model")
            raise ValueError(f"--server: leave out {own} and --warm-up, which are the server's own")
        from tfm.cli.remote import RemoteTranslator

        return RemoteTranslator(self.server, self.source_language, self.target_language)


def _use_compiled(folder: "epath.Path", warm_up: bool) -> None:
    """Has JAX look for compiled programs in a folder, and keep there what it compiles itself."""
    import jax

    if not warm_up and not folder.is_dir():
        return
    if warm_up:
        storage.make_folder(folder, "--warm-up")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def _decode_options() -> type:
    """``Decode`` with every field optional: what is not given is the run's own."""
    kinds = typing.get_type_hints(Decode, include_extras=True)
    fields = [
        (f.name, kinds[f.name] | None, dataclasses.field(default=None))
        for f in dataclasses.fields(Decode)
    ]
    options = dataclasses.make_dataclass("DecodeOptions", fields, frozen=True)
    options.__doc__ = Decode.__doc__
    return options


DecodeOptions: Any = _decode_options()
"""How to decode, in place of the run's own settings; help texts are those of ``Decode``."""

Model = Annotated[ModelOptions, tyro.conf.arg(name="")]
ServedModel = Annotated[ServedModelOptions, tyro.conf.arg(name="")]
PairModel = Annotated[PairModelOptions, tyro.conf.arg(name="")]
Decoding = Annotated[DecodeOptions, tyro.conf.arg(name="")]
UNCHANGED = DecodeOptions()


def given(options: Any) -> dict[str, Any]:
    """The fields of a dataclass of options that are not ``None``."""
    return {name: value for name, value in vars(options).items() if value is not None}


REGISTRY = ConstructorRegistry()
"""How tyro reads types of tfm."""


@REGISTRY.primitive_rule
def _scheme(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """A position scheme, such as ``rotary`` or ``rotary:base=500,scaling=2``."""
    if info.type is not Scheme:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(schemes.SCHEMES)}}}[:NAME=VALUE,...]",
        instance_from_str=lambda texts: schemes.parse(texts[0]),
        is_instance=lambda x: isinstance(x, Scheme),
        str_from_instance=lambda scheme: [schemes.to_text(scheme)],
    )
