"""The configuration of a cell: all that determines its numbers, but for the seed."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pfa_cli.algorithms.registry import OptionValue, entry
from pfa_cli.errors import UsageError, unknown

# Lists of TOML and JSON become tuples; all else is taken as it is written ("2" is not 2, true is not 1).
_Whole = Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(strict=False)]

# Settings that mean something for one network or data set only; elsewhere they are None.
_BELONGS_TO = {
    "hidden_sizes": ("network", "mlp"),
    "image_size": ("dataset", "imagefolder"),
    "corrupt_share_percent": ("dataset", "imagefolder"),
}

_TRAINING_IMAGES = {"mnist": 60_000, "cifar10": 50_000}  # a folder's images are counted when it is read


class Configuration(BaseModel):
    """One row of settings; immutable, checked, and identified by its ``hash``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    recipe: str
    algorithm: str
    dataset: Literal["mnist", "cifar10", "imagefolder"] = Field(description="data set")
    network: Literal["mlp", "resnet20", "resnet18"] = Field(description="network")
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
    train_images: int | None = Field(None, gt=0, description="train on the first N images only (trials)")
    test_images: int | None = Field(None, gt=0, description="test on the first N images only (trials)")
    validation_images: int = Field(0, ge=0, description="images held out of the training set")
    split_seed: int = Field(0, ge=0, description="seed of the choice of validation images")
    image_size: int | None = Field(None, ge=8, description="side of the crop in pixels (imagefolder)")
    corrupt_share_percent: float | None = Field(
        None, ge=0, le=100, description="unreadable images that end the run, in % of the split (imagefolder)"
    )
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = Field(
        "fp32", description="arithmetic of the network"
    )
    probe_images: int = Field(128, gt=0, description="training images on which the error angle is measured")
    accumulation: int = Field(1, gt=0, description="parts a batch is split into, to fit a small GPU")
    options: dict[str, OptionValue] = Field(default_factory=dict)

    @field_validator("algorithm")
    @classmethod
    def _known_algorithm(cls, algorithm: str) -> str:
        return entry(algorithm).name

    @model_validator(mode="before")
    @classmethod
    def _complete_options(cls, data: Any) -> Any:
        """Every option of the algorithm enters, so that a changed default changes the hash."""
        if not isinstance(data, Mapping) or not isinstance(data.get("algorithm"), str):
            return data
        options = data.get("options", {})
        for name, value in options.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{name} (={value}) must be a finite number")
        return {**data, "options": entry(data["algorithm"]).check_options(options)}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, (kind, owner) in _BELONGS_TO.items():
            given, needed = getattr(self, name) is not None, getattr(self, kind) == owner
            if needed and not given:
                raise ValueError(f"{kind} {owner} needs {name}")
            if given and not needed:
                raise ValueError(f"{name} is a setting of {kind} {owner}, not of {getattr(self, kind)}")
        if self.network != "mlp" and self.dataset == "mnist":
            raise ValueError(f"network {self.network} needs colour images; mnist is for network mlp")
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"milestones (={list(self.milestones)}) must be in ascending order")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"batch_size (={self.batch_size}) must be divisible by accumulation (={self.accumulation})"
            )
        return self

    def check_ranks(self, ranks: int) -> None:
        """UsageError if a batch does not divide among ``ranks`` processes, each with ``accumulation`` parts."""
        if self.batch_size % (ranks * self.accumulation):
            raise UsageError(
                f"batch_size (={self.batch_size}) must be divisible by ranks × accumulation "
                f"(={ranks} × {self.accumulation})"
            )

    def check_batch(self) -> None:
        """UsageError if a batch takes more images than there are in the training set."""
        there_are = _TRAINING_IMAGES.get(self.dataset, math.inf) - self.validation_images
        images = max(0, min(there_are, self.train_images or math.inf))
        if self.batch_size > images:
            raise UsageError(
                f"batch_size (={self.batch_size}) must be at most the number of training images (={images})"
            )

    @property
    def hash(self) -> str:
        """16 hex digits of sha256 over the canonical JSON of every setting that is not None.

        None is left out so that a setting introduced later, None by default, renames no earlier cell.
        """
        settings = self.model_dump(mode="json", exclude_none=True)
        text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


# What a recipe's [base] table and --set may name for every algorithm, with its meaning.
BASE_SETTINGS: Mapping[str, str] = {
    name: field.description or ""
    for name, field in Configuration.model_fields.items()
    if name not in ("recipe", "algorithm", "options")
}


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
