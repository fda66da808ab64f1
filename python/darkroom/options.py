"""Arguments: their names, their types, and the refusal of others.

The names are those of the program's parameter tables (docs/parameters.md). Ranges are the program's business: it checks them
before anything is computed and its message comes back as InvalidRequestError.
"""
from __future__ import annotations

import difflib
import inspect
import operator
import os
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar

from .errors import InvalidRequestError, UnknownArgumentError

Path = str | os.PathLike[str]


class RequestOptions(TypedDict, total=False):
    """What to generate: the table "What to generate" of docs/parameters.md, without the prompt."""

    negative_prompt: str
    width: int
    height: int
    num_frames: int
    num_inference_steps: int
    guidance_scale: float
    flow_shift: float
    sampler: str
    seed: int | Sequence[int]
    noise: str
    num_outputs_per_prompt: int
    fps: float
    initial_latents: Path
    initial_latents_first: int
    image_path: Path
    mask_path: Path
    strength: float
    vae_tile_size: int


class OutputOptions(TypedDict, total=False):
    """Where results go."""

    save_output: bool
    output_path: Path
    output_file_name: str
    output_format: str
    output_quality: int
    return_frames: bool
    priority: int
    timeout_s: float


class GenerateOptions(RequestOptions, OutputOptions, total=False):
    """Everything that generate and stream take beside the prompt."""


class EngineOptions(TypedDict, total=False):
    """How to run a model: the tables "Model and machine", "Several ranks" and "Scheduler and
    workers" of docs/parameters.md."""

    device: str
    dtype: str
    quantization: str
    quantization_max_error: float
    attention_backend: str
    text_encoder_cpu_offload: bool
    image_encoder_cpu_offload: bool
    vae_cpu_offload: bool
    dit_cpu_offload: bool
    dit_layerwise_offload: bool
    pin_cpu_memory: bool
    offload_budget_mb: int
    text_encoder_device: str
    enable_compile: bool
    enable_torch_compile: bool
    warmup_mode: str
    warmup_resolutions: str
    embedding_cache_mb: int
    embedding_cache_path: Path
    threads: int
    pin_threads: str
    cpu: str
    offline: bool
    hub_cache: Path
    trace_path: Path
    log_level: str
    num_gpus: int
    dp_size: int
    tp_size: int
    sp_degree: int
    ulysses_degree: int
    ring_degree: int
    enable_cfg_parallel: bool
    use_fsdp_inference: bool
    hsdp_shard_dim: int
    distributed_backend: str
    dist_timeout: float
    batching_max_size: int
    batching_delay_ms: float
    watchdog_factor: float
    watchdog_min_s: float
    max_retries: int


class PretrainedOptions(EngineOptions, total=False):
    """Everything that from_pretrained takes beside the model."""


REFUSED = {
    "dump_tensors": "darkroom generate --dump-tensors writes them",
    "checkpoint_every_s": "generations of this package are not resumed",
}


def names(options: type) -> list[str]:
    return list(typing.get_type_hints(options))


def check_names(given: Iterable[str], options: type, where: str) -> None:
    known = names(options)
    for name in given:
        if name in REFUSED:
            raise UnknownArgumentError(f"{where}: {name} is not accepted: {REFUSED[name]}")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f", did you mean {near[0]}?" if near else "."
            raise UnknownArgumentError(f"{where}: unknown argument '{name}'{hint} Accepted are {', '.join(known)}")


def clean(given: Mapping[str, Any], options: type, where: str) -> dict[str, Any]:
    """The arguments that are set, as plain values of their types; None stands for "not set"."""
    check_names(given, options, where)
    hints = typing.get_type_hints(options)
    return {name: _plain(name, value, hints[name]) for name, value in given.items() if value is not None}


def _plain(name: str, value: Any, hint: Any) -> Any:
    try:
        if hint is bool:
            return _flag(value)
        if hint is int:
            return whole(value)
        if hint is float:
            return float(value)
        if hint == Path:
            return os.path.abspath(os.fspath(value))
        if hint is str and isinstance(value, str):
            return value
        if name == "seed":
            return [whole(v) for v in value] if isinstance(value, Sequence) else whole(value)
    except (TypeError, ValueError):
        pass
    accepted = {bool: "True or False", int: "a whole number", float: "a number", str: "a text", Path: "a path"}
    raise InvalidRequestError(f"{name} is {value!r}, accepted is {accepted.get(hint, 'a whole number or a list of them')}")


def whole(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError("a truth value")
    return operator.index(value)


def _flag(value: Any) -> bool:
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise TypeError("no truth value")


class _Unset:
    def __repr__(self) -> str:
        return "unset"


Function = TypeVar("Function", bound=Callable[..., Any])


def shows(options: type) -> Callable[[Function], Function]:
    """Lets help() and inspect.signature() show the single arguments instead of **options."""

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        known = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        hints = options.__annotations__
        more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_Unset(), annotation=_text(hints[name]))
                for name in names(options)]
        function.__signature__ = signature.replace(parameters=known + more)  # type: ignore[attr-defined]
        return function

    return decorate


def _text(annotation: Any) -> str:
    return str(getattr(annotation, "__forward_arg__", annotation))
