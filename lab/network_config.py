"""How a network is described: physical layers, and digital stages around them.

    features -> first -> [ before -> measurement -> after ] * (layers - 1)
             -> before -> measurement -> last -> logits

What flows is (samples, passes, channels). A stage stands in the config by its `kind`. Imports
neither torch nor drivers.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Stage(_Strict):
    def model_post_init(self, _context: object) -> None:
        """Count `kind` as given: a stage that is written without its defaults still says it."""
        self.model_fields_set.add("kind")


class Repeat(_Stage):
    """Repeat each feature to fill the channels of x, the rest is ones; 0..1 stays 0..1."""

    kind: Literal["repeat"] = "repeat"


class Series(_Stage):
    """Write the features (0..1) as a series around 0, from -0.5 to 0.5, with silence after it."""

    kind: Literal["series"] = "series"


class Linear(_Stage):
    """Mix everything with a trained matrix and offset, the only stage that mixes digitally.

    As the first stage and between two layers every output starts with the given mean and spread
    (standard deviation) over the training samples; as the last it starts at zero. Between two
    layers it goes from a layer's outputs to the next one's inputs. decay: weight decay of the
    matrix.
    """

    kind: Literal["linear"] = "linear"
    mean: float = 0.5
    spread: float = Field(0.15, gt=0)
    decay: float = Field(0.0, ge=0)


class Rescale(_Stage):
    """Multiply and shift each channel of each pass by trained numbers.

    start: "spread" gives every channel mean 0.5 and the given standard deviation over the training
    samples; "signs" starts without a shift and with factors (spread + 0.3 N) times a random sign,
    so that parallel passes see the same input differently.
    """

    kind: Literal["rescale"] = "rescale"
    start: Literal["spread", "signs"] = "spread"
    spread: float = Field(0.2, gt=0)


class BrightnessFree(_Stage):
    """Divide each measured row by its mean: pulse energy drops out."""

    kind: Literal["brightness-free"] = "brightness-free"


class Standardise(_Stage):
    """Subtract each channel's mean and divide by a standard deviation, then times `spread`.

    Both are constants from the training samples, measured once. by: one deviation for each
    "channel", or for each "pass".
    """

    kind: Literal["standardise"] = "standardise"
    by: Literal["channel", "pass"] = "channel"
    spread: float = Field(1.0, gt=0)


class Skip(_Stage):
    """Mix in, past the measurement, `share` of the network's encoded input or the layer's own."""

    kind: Literal["skip"] = "skip"
    of: Literal["input", "layer"] = "input"
    share: float = Field(0.3, ge=0, le=1)
    trained: bool = False


class Permute(_Stage):
    """Reorder the channels by one fixed random permutation, the same for all passes and layers."""

    kind: Literal["permute"] = "permute"


class Windows(_Stage):
    """Read the logits as means over windows of neighbouring channels, one for each class.

    margin: channels at either end that carry no class. weighted: with a trained weight for each
    channel of each pass, and an offset for each class. The logits start with deviation `gain`.
    """

    kind: Literal["windows"] = "windows"
    margin: int = Field(4, ge=0)
    weighted: bool = False
    gain: float = Field(3.0, gt=0)


First = Annotated[Repeat | Series | Linear, Field(discriminator="kind")]
Between = Annotated[
    Rescale | BrightnessFree | Standardise | Skip | Permute, Field(discriminator="kind")
]
After = Annotated[
    Rescale | BrightnessFree | Standardise | Skip | Permute | Linear, Field(discriminator="kind")
]
Last = Annotated[
    BrightnessFree | Standardise | Permute | Windows | Linear, Field(discriminator="kind")
]
Theta = Literal["dark", "normal", "data"]


class NetworkConfig(_Strict):
    """A physical neural network; the defaults are those of the vowels on the optical bench.

    layers: measurements one after the other; parallel: passes, measurements of each sample within
    a layer, each with parameters of its own. theta: how the physical parameters start, "dark"
    (squares of uniform numbers) or "normal" (around the middle of their range, deviation 0.1); with
    "data" there are none: the digital stage before fills theta's channels too.
    signed: the digital stages' 0 is the middle of x's range, and -1 and 1 are its ends.
    """

    layers: int = Field(5, ge=1, le=50)
    parallel: int = Field(1, ge=1, le=64)
    theta: Theta = "dark"
    signed: bool = False
    first: First = Repeat()
    before: tuple[Between, ...] = ()
    after: tuple[After, ...] = (BrightnessFree(), Rescale(), Skip())
    last: tuple[Last, ...] = (BrightnessFree(), Windows())

    @property
    def mixes_between(self) -> bool:
        """Say whether a digital matrix stands between two layers."""
        return self.layers > 1 and any(isinstance(stage, Linear) for stage in self.after)

    @model_validator(mode="after")
    def _layers_follow(self) -> "NetworkConfig":
        if self.theta == "data" and self.layers > 1 and not self.mixes_between:
            raise ValueError(
                f"theta = 'data' fills x and theta, more than a layer puts out: not {self.layers} "
                "layers but 1, unless a linear stage stands between them"
            )
        return self

    @field_validator("last")
    @classmethod
    def _ends_with_logits(cls, last: tuple[Last, ...]) -> tuple[Last, ...]:
        reads = [isinstance(stage, (Windows, Linear)) for stage in last]
        if sum(reads) != 1 or not reads[-1]:
            raise ValueError("the logits come from windows or linear: one of them, as the last")
        return last
