"""An autoencoder's network behind one face, whichever class it is of: what it is made of, encoding, decoding.

Pictures are (1, 3, H, W) in [-1, 1] for every class; what each makes of them is here. ``scaling_factor`` and
``shift_factor`` of diffusers' settings are not used: statistics measured for each channel take their place
(``pretrained``). diffusers is imported when a network of it is first needed. It must not read files.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from transfusion.autoencoder.quantise import nearest
from transfusion.autoencoder.settings import MOST_COUNT, MOST_LAYERS, MOST_LEVELS
from transfusion.autoencoder.space import SpaceError
from transfusion.autoencoder.taesd import COLOURS, NUM_LEVELS, Taesd

if TYPE_CHECKING:
    from diffusers import VQModel
    from diffusers.models.autoencoders.vae import VectorQuantizer

BUILD_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a constructor that is handed settings of wrong types may raise."""
LAYERS = (  # settings that count layers
    *("layers_per_block", "num_encoder_blocks", "num_decoder_blocks"),
    *("encoder_layers_per_block", "decoder_layers_per_block"),
)
SHOWN = 3  # names of weights that a message tells


class Encoded(NamedTuple):
    """A latent of the network's own scale.

    Attributes:
        mean: (1, C, h, w).
        std: Spread of the posterior, of the same shape; None where the encoder names a point.
    """

    mean: Tensor
    std: Tensor | None = None


class Kind(NamedTuple):
    """One class of autoencoders.

    Attributes:
        name: Its name, as diffusers writes it.
        module: Returns the class.
        channels: Tells the channels of latents from settings.
        factor: Tells the pixels along a side for each element of a latent; a pair of the encoder's and the decoder's.
        encode: Encodes (1, 3, H, W) in [-1, 1].
        decode: Decodes (1, C, h, w) of the network's own scale into (1, 3, H, W), about [-1, 1]; for a quantising
            network, vectors of its codebook.
    """

    name: str
    module: Callable[[], type[nn.Module]]
    channels: Callable[[Mapping[str, Any]], int]
    factor: Callable[[Mapping[str, Any]], tuple[int, int]]
    encode: Callable[[Any, Tensor], Encoded]
    decode: Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """A network of some class. It computes in float32, also where autocasting is on.

    Attributes:
        kind: Its class.
        settings: All arguments of its constructor, as JSON has them.
        module: The network.
        dtype: In which its weights came, and are kept.
    """

    kind: Kind
    settings: Mapping[str, Any]
    module: nn.Module = field(repr=False)
    dtype: torch.dtype

    @property
    def channels(self) -> int:
        """Channels of its latents."""
        return self.kind.channels(self.settings)

    @property
    def factor(self) -> int:
        """Pixels along a side of a picture for each element of its latent."""
        return self.kind.factor(self.settings)[0]

    @property
    def num_codes(self) -> int | None:
        """Vectors in its codebook; None where it has none."""
        return int(self.settings["num_vq_embeddings"]) if self.kind == VQ else None

    @property
    def has_spread(self) -> bool:
        """Whether its encoder tells a posterior, and not a point alone."""
        return self.kind == KL

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.module.parameters()).device

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its class, the settings that are not their defaults, and its weights in the dtype they came in."""
        defaults = _defaults(self.kind)
        told = {name: value for name, value in self.settings.items() if name not in defaults or defaults[name] != value}
        found = hashlib.sha256(json.dumps([self.kind.name, told], sort_keys=True).encode())
        for name, weight in sorted(self.weights().items()):
            found.update(f"{name} {weight.dtype} {list(weight.shape)}\n".encode())
            found.update(weight.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def weights(self) -> dict[str, Tensor]:
        """Return its weights and buffers on the CPU, in the dtype they came in."""
        state = {name: value.detach().cpu() for name, value in self.module.state_dict().items()}
        return {name: value.to(self.dtype) if value.is_floating_point() else value for name, value in state.items()}

    @torch.no_grad()
    def encode(self, picture: Tensor) -> Encoded:
        """Encode (1, 3, H, W) in [-1, 1]; a quantising network's is the vector before the quantiser."""
        with torch.autocast(self.device.type, enabled=False):
            return self.kind.encode(self.module, picture.to(self.device))

    @torch.no_grad()
    def codes(self, latent: Tensor) -> Tensor:
        """Name the nearest vector of the codebook for each of a latent (1, C, h, w): (1, h, w) int64.

        Raises:
            SpaceError: It has no codebook.
        """
        vectors = latent.to(self.device).permute(0, 2, 3, 1)
        return nearest(vectors.flatten(0, 2), self._codebook().embedding.weight).view(vectors.shape[:3])

    @torch.no_grad()
    def vectors(self, codes: Tensor) -> Tensor:
        """Return the vectors (1, C, h, w) of codes (1, h, w).

        Raises:
            SpaceError: It has no codebook.
        """
        return self._codebook().embedding(codes.to(self.device)).permute(0, 3, 1, 2).contiguous()

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Decode (1, C, h, w), for a quantising network vectors of its codebook, into (1, 3, H, W), about [-1, 1]."""
        with torch.autocast(self.device.type, enabled=False):
            return self.kind.decode(self.module, latent.to(self.device))

    def _codebook(self) -> "VectorQuantizer":
        if self.kind != VQ:
            raise SpaceError(f"{self.kind.name} has no codebook; take a VQModel")
        return cast("VQModel", self.module).quantize


def kind_named(name: object, where: object) -> Kind:
    """Return the class of a name.

    Raises:
        SpaceError: It is none of ours.
    """
    for kind in KINDS:
        if kind.name == name:
            return kind
    raise SpaceError(
        f"autoencoder class {str(name)[:80]!r} is unknown ({where}); expected {', '.join(kind.name for kind in KINDS)}"
    )


def wrapped(module: nn.Module, dtype: torch.dtype = torch.float32, where: object = "the network") -> Autoencoder:
    """Put a network, as it is, behind its face; nothing of it changes, so that one in training may be saved.

    Args:
        module: A network of one of diffusers' classes named here, or a ``Taesd``.
        dtype: In which its weights are kept.
        where: Where it was read, for messages.

    Raises:
        SpaceError: It is of another class, or does not turn pictures of three colours into ones of the same size.
    """
    kind = kind_named(type(module).__name__, where)
    settings = _settings_of(module, kind)
    colours = sorted({settings.get("in_channels", COLOURS), settings.get("out_channels", COLOURS)})
    if colours != [COLOURS]:
        raise SpaceError(f"{where} is for pictures of {colours} channels; expected {COLOURS}")
    encoder, decoder = kind.factor(settings)
    if encoder != decoder:
        raise SpaceError(f"{where} divides sides by {encoder} and multiplies them by {decoder}; both must agree")
    return Autoencoder(kind, settings, module, dtype)


def loaded(module: nn.Module, dtype: torch.dtype, where: object) -> Autoencoder:
    """Put a network that was read behind its face, for evaluation and in float32.

    Raises:
        SpaceError: As ``wrapped``, or its weights are not finite.
    """
    for name, value in module.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise SpaceError(f"the weight {name} of {where} holds numbers that are not finite; take another file")
    return wrapped(module.float().eval().requires_grad_(False), dtype, where)


def built(kind: Kind, settings: Mapping[str, Any], weights: Mapping[str, Tensor], where: object) -> Autoencoder:
    """Build a network from its settings and weights.

    It is built without memory first, so that settings of another file cost nothing, and no random number is drawn.

    Raises:
        SpaceError: The settings or the weights are not those of such a network.
    """
    check_counts(settings, where)
    make = kind.module()
    try:
        with torch.device("meta"):
            module = make(**settings)
    except BUILD_FAULTS as error:
        raise SpaceError(f"{kind.name} cannot be built from the settings of {where}: {told(error)}") from error
    expected = module.state_dict()
    refuse_mismatched(
        where,
        missing=sorted(set(expected) - set(weights)),
        unexpected=sorted(set(weights) - set(expected)),
        mismatched=[
            f"{name} of {list(weights[name].shape)} for {list(value.shape)}"
            for name, value in expected.items()
            if name in weights and weights[name].shape != value.shape
        ],
    )
    dtype = common_dtype(value.dtype for value in weights.values())
    module.load_state_dict({name: _as_computed(value) for name, value in weights.items()}, assign=True)
    return loaded(module, dtype, where)


def check_counts(settings: Mapping[str, Any], where: object) -> None:
    """Check settings that somebody else wrote, before anything is built of them.

    Raises:
        SpaceError: They ask for more levels, layers, channels or codes than any network has.
    """
    for name, setting in settings.items():
        most, left = MOST_LAYERS if name in LAYERS else MOST_COUNT, [setting]
        while left:
            value = left.pop()
            if isinstance(value, list | tuple):
                found: list[Any] = list(cast("Iterable[Any]", value))
                if len(found) > (MOST_COUNT if name.startswith("latents_") else MOST_LEVELS):  # those are of channels
                    raise SpaceError(_too_much(where, name, f"a list of {len(found)}", MOST_LEVELS))
                left += found
            elif isinstance(value, int | float) and abs(value) > most:
                raise SpaceError(_too_much(where, name, f"{value:.6g}" if value < 1e300 else "a huge number", most))


def _too_much(where: object, name: str, value: str, most: int) -> str:
    return f"{where} asks for {name} {value}, where at most {most} is taken; the file is damaged, or a hostile one"


def refuse_mismatched(where: object, *, missing: list[str], unexpected: list[str], mismatched: list[str]) -> None:
    """Refuse weights of another network.

    Raises:
        SpaceError: Any list names a weight.
    """
    found = [("missing", missing), ("unexpected", unexpected), ("of another shape", mismatched)]
    faults = [
        f"{len(names)} {fault}, such as {', '.join(map(str, names[:SHOWN]))}" for fault, names in found if len(names)
    ]
    if faults:
        raise SpaceError(f"the weights of {where} are not those of its settings: {'; '.join(faults)}")


def common_dtype(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    """Return the dtype that all floating weights share if float32 holds it exactly, else float32."""
    found = {dtype for dtype in dtypes if dtype.is_floating_point}
    return found.pop() if len(found) == 1 and found <= {torch.float16, torch.bfloat16} else torch.float32


def told(error: BaseException) -> str:
    """Tell an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _as_computed(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _settings_of(module: nn.Module, kind: Kind) -> dict[str, Any]:
    given = cast(Any, module).settings if kind == TAESD else cast(Any, module).config
    names = inspect.signature(kind.module().__init__).parameters
    return json.loads(json.dumps({name: given[name] for name in names if name in given}))


def _defaults(kind: Kind) -> dict[str, Any]:
    parameters = inspect.signature(kind.module().__init__).parameters.values()
    known = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    return json.loads(json.dumps(known))


@contextmanager
def needing_diffusers() -> Generator[None]:
    """Turn a failed import of diffusers into an error that says what to install.

    Raises:
        SpaceError: It cannot be imported.
    """
    try:
        yield
    except (ImportError, RuntimeError) as error:  # its lazy modules raise RuntimeError about what they lack
        raise SpaceError(
            f"this autoencoder needs diffusers: pip install 'transfusion[autoencoder]' ({told(error)})"
        ) from error


def _kl() -> type[nn.Module]:
    with needing_diffusers():
        from diffusers import AutoencoderKL
    return AutoencoderKL


def _encode_kl(module: nn.Module, picture: Tensor) -> Encoded:
    posterior = cast(Any, module).encode(picture).latent_dist
    return Encoded(posterior.mean, posterior.std)


def _halvings(settings: Mapping[str, Any]) -> tuple[int, int]:
    factor = 2 ** (len(settings["block_out_channels"]) - 1)
    return factor, factor


def _vq() -> type[nn.Module]:
    with needing_diffusers():
        from diffusers import VQModel
    return VQModel


def _decode_vq(module: "VQModel", vectors: Tensor) -> Tensor:
    """Do what VQModel.decode does after its quantiser."""
    return module.decoder(module.post_quant_conv(vectors), vectors if module.config["norm_type"] == "spatial" else None)


def _tiny() -> type[nn.Module]:
    with needing_diffusers():
        from diffusers import AutoencoderTiny
    return AutoencoderTiny


def _factor_tiny(settings: Mapping[str, Any]) -> tuple[int, int]:
    ups = len(settings["num_decoder_blocks"]) - 1
    return 2 ** (len(settings["num_encoder_blocks"]) - 1), settings["upsampling_scaling_factor"] ** ups


def _dc() -> type[nn.Module]:
    with needing_diffusers():
        from diffusers import AutoencoderDC
    return AutoencoderDC


def _factor_dc(settings: Mapping[str, Any]) -> tuple[int, int]:
    """A level without layers changes no size, but for the first, whose change is then at the picture itself."""

    def factor(layers: list[int]) -> int:
        return 2 ** (sum(1 for number in layers[:-1] if number > 0) + (layers[0] == 0))

    return factor(settings["encoder_layers_per_block"]), factor(settings["decoder_layers_per_block"])


def _channels(settings: Mapping[str, Any]) -> int:
    return settings["latent_channels"]


def _sample(module: nn.Module, latent: Tensor) -> Tensor:
    return cast(Any, module).decode(latent).sample


def _latents(module: nn.Module, picture: Tensor) -> Encoded:
    return Encoded(cast(Any, module).encode(picture).latents)


def _encode_dc(module: nn.Module, picture: Tensor) -> Encoded:
    return Encoded(cast(Any, module).encode(picture).latent)


def _channels_vq(settings: Mapping[str, Any]) -> int:
    return settings["vq_embed_dim"] or settings["latent_channels"]


def _taesd() -> type[nn.Module]:
    return Taesd


def _factor_taesd(settings: Mapping[str, Any]) -> tuple[int, int]:
    del settings
    return 2**NUM_LEVELS, 2**NUM_LEVELS


def _encode_taesd(module: Taesd, picture: Tensor) -> Encoded:
    """Bring pictures to [0, 1], as its authors have them."""
    return Encoded(module.encoder((picture + 1) / 2))


def _decode_taesd(module: Taesd, latent: Tensor) -> Tensor:
    return module.decoder(latent) * 2 - 1


KL = Kind("AutoencoderKL", _kl, _channels, _halvings, _encode_kl, _sample)
VQ = Kind("VQModel", _vq, _channels_vq, _halvings, _latents, _decode_vq)
TINY = Kind("AutoencoderTiny", _tiny, _channels, _factor_tiny, _latents, _sample)  # brings pictures to [0, 1] itself
DC = Kind("AutoencoderDC", _dc, _channels, _factor_dc, _encode_dc, _sample)
TAESD = Kind("Taesd", _taesd, _channels, _factor_taesd, _encode_taesd, _decode_taesd)
KINDS = (KL, VQ, TINY, DC, TAESD)
