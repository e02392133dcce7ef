"""The configuration of a cell: all that determines its numbers, but for the seed."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pfa_cli import registry
from pfa_cli.errors import PfaError, UsageError, unknown
from pfa_cli.plugins import Source
from pfa_cli.registry import (
    DATASETS,
    NETWORKS,
    OPTIONS_OF,
    DatasetEntry,
    Declaration,
    Entry,
    NetworkEntry,
    OptionValue,
    flat,
)
from pfa_cli.wording import count

# Lists of TOML and JSON become tuples; all else is taken as it is written ("2" is not 2, true is not 1).
_Whole = Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(strict=False)]

_E = TypeVar("_E", bound=Declaration)
_Role = Literal["algorithm", "network", "dataset"]
_FIND: Mapping[str, Callable[[str], Declaration]] = {
    "algorithm": registry.algorithm,
    "network": registry.network,
    "dataset": registry.dataset,
}

# Settings and options that enter the hash at their default too, as all did at first. A later one enters only where it
# differs from its default, so that it renames no cell of before; hence such a default may never change.
_HASHED_AT_DEFAULT = {
    "validation_images", "split_seed", "precision", "probe_images", "accumulation", "options",
    "mirror_samples", "mirror_rate", "rate", "noise", "leak", "expansion", "form",
}  # fmt: skip
_LARGEST = 2**63 - 1  # of a whole number in the database and in torch


_CELL = ("recipe", "algorithm")


class Configuration(BaseModel):
    """One row of settings; immutable, checked, and identified by its ``hash``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    recipe: str
    algorithm: str
    dataset: str = Field(description="data set, or file.py:function")
    network: str = Field(description="network, or file.py:function")
    hidden_sizes: _Whole | None = Field(None, description="units of each hidden layer (mlp)")
    epochs: int = Field(gt=0, description="epochs of training")
    batch_size: int = Field(gt=0, description="images per step; an epoch's last incomplete batch is dropped")
    learning_rate: float = Field(gt=0, description="learning rate of the first epoch")
    milestones: _Whole = Field(description="epochs completed when the learning rate is multiplied")
    learning_rate_factor: float = Field(gt=0, description="what the learning rate is multiplied by")
    momentum: float = Field(ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(ge=0, description="coupled L2 weight decay, of all parameters")
    first_epoch_weight_decay: float | None = Field(
        None, ge=0, description="weight decay of the first epoch, where it is another one"
    )
    first_epoch_decay: float | None = Field(
        None,
        ge=0,
        description="the same as a total over the epoch's steps, learning rate · weight decay · steps / (1 - momentum)",
    )
    train_images: int | None = Field(None, gt=0, description="train on the first N images only (trials)")
    test_images: int | None = Field(None, gt=0, description="test on the first N images only (trials)")
    validation_images: int = Field(0, ge=0, description="images held out of the training set")
    split_seed: int = Field(0, ge=0, description="seed of the choice of validation images")
    image_size: int | None = Field(None, ge=8, description="side of the crop in pixels (photographs)")
    corrupt_share_percent: float | None = Field(
        None, ge=0, le=100, description="unreadable images that end the run, in % of the split (photographs)"
    )
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = Field(
        "fp32", description="arithmetic of the network"
    )
    probe_images: int = Field(128, gt=0, description="training images on which the error angle is measured")
    accumulation: int = Field(1, gt=0, description="parts a batch is split into, to fit a small GPU")
    draws: Literal["own", "published"] = Field(
        "own", description="order of random draws: pfa's own, or that of the published runs (mnist, cifar10)"
    )
    options: dict[str, OptionValue] = Field(default_factory=dict)
    network_options: dict[str, OptionValue] | None = None
    dataset_options: dict[str, OptionValue] | None = None
    sources: dict[_Role, str] | None = Field(None, description="sha256 of the files of plug-ins")
    # Where the plug-ins are. It travels to other processes with the configuration, and is not stored with it.
    plugins: dict[_Role, Source] = Field(default_factory=dict, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, data: Any) -> Any:
        """Names in place of the files of plug-ins, and every option of what they name, so that each has a value."""
        if not isinstance(data, Mapping):
            return data
        _check_numbers(data)
        settings = dict(data)
        plugins: dict[str, Source] = {}
        named = set(cls.model_fields)
        for role, find in _FIND.items():
            if not isinstance(settings.get(role), str):
                continue
            entry = find(settings[role])
            if entry.source is not None:
                plugins[role] = entry.source
            if taken := named & entry.options.keys():
                raise UsageError(
                    f"{role} {settings[role]}: its option {min(taken)} has the name of another setting"
                )
            named |= entry.options.keys()
            settings[role] = entry.name
            given = settings.get(OPTIONS_OF[role])
            if given is None or isinstance(given, Mapping):
                options = entry.check_options(given or {})
                settings[OPTIONS_OF[role]] = options if options or role == "algorithm" else None
        if plugins:
            settings["sources"] = {role: source.sha256 for role, source in plugins.items()}
            settings["plugins"] = plugins
        return settings

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for kind, entry, all_ in (
            ("network", self.network_entry, NETWORKS),
            ("dataset", self.dataset_entry, DATASETS),
        ):
            for name in _own(all_):
                needed, given = name in entry.settings, getattr(self, name) is not None
                if needed and not given:
                    raise ValueError(f"{kind} {entry.name} needs {name}")
                if given and not needed:
                    owners = ", ".join(other.name for other in all_.values() if name in other.settings)
                    raise ValueError(
                        f"{name} is a setting of {kind} {owners}, not of {entry.name}: leave it out"
                    )
        shape = self.dataset_entry.input_shape
        if shape is not None and len(shape) == 1 and not self.network_entry.takes_vectors:
            raise ValueError(f"network {self.network} needs images, and {self.dataset} has rows of pixels")
        try:
            last_rate = self.learning_rate * self.learning_rate_factor ** len(self.milestones)
        except OverflowError:
            last_rate = math.inf
        if last_rate == math.inf:
            raise ValueError(
                f"learning_rate_factor (={self.learning_rate_factor:g}) makes the learning rate infinite at the "
                f"last of {count(len(self.milestones), 'milestone')}"
            )
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"milestones (={list(self.milestones)}) must be in ascending order")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"batch_size (={self.batch_size}) must be divisible by accumulation (={self.accumulation})"
            )
        if self.first_epoch_decay is not None and self.first_epoch_weight_decay is not None:
            raise ValueError(
                "first_epoch_decay and first_epoch_weight_decay say the same in two ways: give one"
            )
        if self.draws == "published":
            self._check_published()
        return self

    def _check_published(self) -> None:
        """ValueError if the published code has no such run, whose draws could be repeated."""
        experiment = {"mnist": "mlp", "cifar10": "resnet20"}
        if experiment.get(self.dataset) != self.network:
            raise ValueError(
                f"draws (='published') are known for mlp on mnist and resnet20 on cifar10, not for {self.network} on "
                f"{self.dataset}"
            )
        if self.algorithm not in ("bp", "fa", "sf", "pfa", "pfa-o"):
            raise ValueError(
                f"draws (='published') are known for bp, fa, sf, pfa and pfa-o, not for {self.algorithm}"
            )
        free = {"form", "expansion"} if self.algorithm == "pfa" else {"form"}
        for name, option in self.algorithm_entry.options.items():
            if name not in free and self.options[name] != option.default:
                raise ValueError(
                    f"draws (='published') are known for {name} = {option.default} only, not {self.options[name]}"
                )

    def check_ranks(self, ranks: int) -> None:
        """UsageError if a batch does not divide among ``ranks`` processes, each with ``accumulation`` parts."""
        if self.batch_size % (ranks * self.accumulation):
            raise UsageError(
                f"batch_size (={self.batch_size}) must be divisible by ranks × accumulation "
                f"(={ranks} × {self.accumulation})"
            )

    def check_batch(self) -> None:
        """UsageError if a batch takes more images than there are in the training set."""
        entry = self.dataset_entry
        there_are = entry.train_images if entry.train_images is not None and entry.fixed_size else math.inf
        images = max(0, min(there_are - self.validation_images, self.train_images or math.inf))
        if self.batch_size > images:
            raise UsageError(
                f"batch_size (={self.batch_size}) must be at most the number of training images (={images})"
            )

    @property
    def algorithm_entry(self) -> Entry:
        """What the registry says of the algorithm. PfaError if its plug-in is not the one that was planned with."""
        return self._entry("algorithm", registry.algorithm)

    @property
    def network_entry(self) -> NetworkEntry:
        """What the registry says of the network; raises as `algorithm_entry`."""
        return self._entry("network", registry.network)

    @property
    def dataset_entry(self) -> DatasetEntry:
        """What the registry says of the data set; raises as `algorithm_entry`."""
        return self._entry("dataset", registry.dataset)

    @property
    def algorithm_reference(self) -> str:
        """What `Recipe.configuration` takes for this algorithm: its name, or where its file is."""
        return self.plugins["algorithm"].reference if "algorithm" in self.plugins else self.algorithm

    def _entry(self, role: _Role, find: Callable[[str], _E]) -> _E:
        planned = self.plugins.get(role)
        if planned is None:
            return find(getattr(self, role))
        entry = find(planned.reference)
        if entry.source is None or entry.source.sha256 != planned.sha256:
            raise PfaError(
                f"{planned.reference} was edited after this run was planned: give the command again, and it is "
                "another configuration"
            )
        return entry

    @property
    def source_texts(self) -> dict[str, str] | None:
        """The files of the plug-ins, name → text, to be stored with the run; None if it has none."""
        texts: dict[str, str] = {}
        for role, source in self.plugins.items():
            same_name = texts.setdefault(source.file, source.text) != source.text
            if same_name:
                texts[f"{role}/{source.file}"] = source.text
        return texts or None

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """The shape of one image; None where it is known only once the data set is read."""
        if "image_size" in self.dataset_entry.settings and self.image_size is not None:
            return (3, self.image_size, self.image_size)
        return self.dataset_entry.input_shape

    @property
    def dataset_identity(self) -> str:
        """Equal for configurations that train on the same images, as text."""
        shared = {
            "dataset", "train_images", "test_images", "validation_images", "split_seed", "dataset_options",
            *self.dataset_entry.settings,
        }  # fmt: skip
        source = (self.sources or {}).get("dataset", "")
        # In published draws the order of images depends on the algorithm.
        cell = self.hash if self.draws == "published" else ""
        return self.model_dump_json(include=shared) + source + cell

    @property
    def hash(self) -> str:
        """16 hex digits of sha256 over the canonical JSON of the settings, but for the defaults of later ones."""
        return self.hash_of(self.model_dump(mode="json"))

    @classmethod
    def hash_of(cls, stored: Mapping[str, Any]) -> str:
        """The hash of a configuration as it is stored, also of one whose plug-ins are not at hand."""
        text = json.dumps(cls._hashed(stored), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def settings_of(cls, stored: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that tell a stored configuration from others of its recipe and algorithm, all options among them."""
        return {name: value for name, value in flat(cls._hashed(stored)).items() if name not in _CELL}

    @classmethod
    def _hashed(cls, stored: Mapping[str, Any]) -> dict[str, Any]:
        """What enters the hash: neither None nor a later setting's default, so that it renames no earlier cell."""
        settings = {
            name: value
            for name, value in stored.items()
            if value is not None
            and (name in _HASHED_AT_DEFAULT or name not in cls.model_fields or value != _default(cls, name))
        }
        for role, ours in (("algorithm", registry.ALGORITHMS), ("network", NETWORKS), ("dataset", DATASETS)):
            given, entry = settings.pop(OPTIONS_OF[role], None), ours.get(stored.get(role, ""))
            defaults = {name: option.default for name, option in entry.options.items()} if entry else {}
            options = {
                name: value
                for name, value in (given.items() if isinstance(given, Mapping) else ())
                if name in _HASHED_AT_DEFAULT or name not in defaults or value != defaults[name]
            }
            if options or role == "algorithm":
                settings[OPTIONS_OF[role]] = options
        return settings


def _own(entries: Mapping[str, NetworkEntry] | Mapping[str, DatasetEntry]) -> list[str]:
    """The settings that some networks (or data sets) have and others have not; elsewhere they are None."""
    return sorted({name for entry in entries.values() for name in entry.settings})


def _default(model: type[BaseModel], name: str) -> Any:
    """The default of a setting as it is stored; for one that has none, something that equals no value."""
    default = model.model_fields[name].get_default(call_default_factory=True)
    return list(default) if isinstance(default, tuple) else default


def _check_numbers(value: Any, name: str = "") -> None:
    """UsageError for a number that neither the database nor torch can hold."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_numbers(inner, str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_numbers(inner, name)
    elif isinstance(value, int) and abs(value) > _LARGEST:
        digits = str(value) if abs(value) < 10**30 else f"about 10^{int(math.log10(abs(value)))}"
        raise UsageError(f"{name} (={digits}) must be below 2^63")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name} (={value}) must be a finite number")


# Of the settings that need not be given: what a configuration stored before they existed stands for.
DEFAULTS: Mapping[str, Any] = {
    name: _default(Configuration, name)
    for name, field in Configuration.model_fields.items()
    if not field.is_required()
}

# What a recipe's [base] table and --set may name for every algorithm, with its meaning.
BASE_SETTINGS: Mapping[str, str] = {
    name: field.description or ""
    for name, field in Configuration.model_fields.items()
    if name not in ("recipe", "algorithm", "sources", "plugins") and not name.endswith("options")
}

LIST_SETTINGS = frozenset(
    name for name, field in Configuration.model_fields.items() if "tuple" in str(field.annotation)
)
"""The settings that are lists themselves."""


def configure(settings: Mapping[str, Any], where: str) -> Configuration:
    """The checked configuration; UsageError that opens with ``where`` (a file or "--set")."""
    try:
        return Configuration.model_validate(dict(settings))
    except ValidationError as error:
        raise explain(error, where, {"": BASE_SETTINGS}) from None
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def explain(error: ValidationError, where: str, tables: Mapping[str, Iterable[str]]) -> UsageError:
    """pydantic's first complaint in words a person can act on.

    ``tables`` holds the valid keys of each table of a file, the file's own keys under "".
    """
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    context, value = first.get("ctx", {}), first["input"]
    match first["type"]:
        case "extra_forbidden":
            *table, last = first["loc"]
            text = str(unknown("key", str(last), tables[str(table[0]) if table else ""]))
        case "missing":
            text = f"{key} is missing"
        case "value_error":
            text = str(context["error"])
        case "literal_error":
            choices = [choice.strip(" '") for choice in context["expected"].replace(" or ", ", ").split(",")]
            text = str(unknown(f"value of {key}", str(value), choices))
        case "tuple_type":
            text = f"{key} (={value!r}) must be a list of whole numbers, for example [20, 30]"
        case "int_type" | "int_from_float":
            text = f"{key} (={value!r}) must be a whole number"
        case "float_type":
            text = f"{key} (={value!r}) must be a number"
        case _:
            text = f"{key} (={value!r}) {first['msg'].replace('Input should', 'must')}"
    return UsageError(f"{where}: {text}")
