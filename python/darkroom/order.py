"""One prompt with its arguments, checked: what a backend gets, and how its outputs become a result."""
from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import files, options
from .errors import InvalidRequestError
from .result import Output, Result

LAST_SEED = 2 ** 64 - 1
MOST_OUTPUTS = 64
ONLY_SAVED = ("output_path", "output_file_name", "output_format", "output_quality")


@dataclass
class Order:
    prompt: str
    parameters: dict[str, Any]
    """Of the request, without prompt, seed and num_outputs_per_prompt."""
    seeds: list[int] | None
    """Of each output; None: whoever makes them chooses."""
    count: int
    save_output: bool
    output_path: str
    output_file_name: str | None
    output_format: str | None
    output_quality: int | None
    return_frames: bool | None
    priority: int
    timeout_s: float | None
    prompt_index: int = 0
    prompt_count: int = 1

    def check_frames(self, num_frames: int) -> None:
        """Once it is known how many frames there will be."""
        if num_frames > 1 and self.output_format in files.PICTURES:
            raise InvalidRequestError(f"output_format is {self.output_format}, which holds one frame, and num_frames "
                                      f"{num_frames}; accepted are {', '.join(files.VIDEOS)}")

    def extension(self, num_frames: int) -> str:
        return self.output_format or ("png" if num_frames == 1 else "mp4")

    def save(self, output: Output, extension: str) -> None:
        """Gives an output its file."""
        quality = self.output_quality if output._program is not None else None
        if self.output_file_name is None:
            stem = os.path.join(self.output_path, f"{files.slug(self.prompt)}-{output.seed}")
            output.path = files.save_new(stem, extension, lambda path: output.save(path, quality))
            return
        name = self.output_file_name
        if files.extension_of(name):
            name = os.path.splitext(name)[0]
        if self.prompt_count * self.count > 1:
            name = f"{name}-{self.prompt_index * self.count + output.index}"
        output.path = output.save(os.path.join(self.output_path, f"{name}.{extension}"), quality)

    def finish(self, outputs: list[Output], seconds: float, job_id: str | None = None) -> Result:
        """Saves what is to be saved. Blocks."""
        for output in outputs:
            if self.save_output:
                self.save(output, output._format or self.extension(output.num_frames))
            if self.return_frames is False:
                output._drop()
            output._release()
        return Result(self.prompt, outputs, seconds, job_id, self.return_frames is True)


def make(prompt: object, given: Mapping[str, Any], place: tuple[int, int] = (0, 1)) -> Order:
    """Checks the arguments of one call."""
    if not isinstance(prompt, str):
        raise InvalidRequestError(f"prompt is {type(prompt).__name__}, accepted is a text")
    cleaned = options.clean(given, options.GenerateOptions, "generate")
    output = {name: cleaned.pop(name) for name in options.names(options.OutputOptions) if name in cleaned}
    _check_output(output)
    seeds, count = _seeds(cleaned)
    file_name, chosen = output.get("output_file_name"), output.get("output_format")
    return Order(
        prompt=prompt, parameters=cleaned, seeds=seeds, count=count, save_output=output.get("save_output", True),
        output_path=output.get("output_path") or os.path.abspath("outputs"), output_file_name=file_name,
        output_format=chosen or (files.extension_of(file_name) if file_name else None) or None,
        output_quality=output.get("output_quality"), return_frames=output.get("return_frames"),
        priority=output.get("priority", 0), timeout_s=output.get("timeout_s"), prompt_index=place[0], prompt_count=place[1])


def _check_output(output: Mapping[str, Any]) -> None:
    if output.get("save_output") is False:
        useless = [name for name in ONLY_SAVED if name in output]
        if useless:
            raise InvalidRequestError(f"{useless[0]} means nothing with save_output=False: accepted is one of the two")
    chosen, name = output.get("output_format"), output.get("output_file_name")
    if chosen is not None and chosen not in files.FORMATS:
        raise InvalidRequestError(f"output_format is '{chosen}', accepted are {', '.join(files.FORMATS)}")
    if name is not None:
        files.check_name(name)
        told = files.extension_of(name)
        if chosen is not None and told and told.replace("jpeg", "jpg") != chosen.replace("jpeg", "jpg"):
            raise InvalidRequestError(f"output_format is {chosen} and output_file_name '{name}': accepted are equal ones")
    if not 1 <= output.get("output_quality", 1) <= 100:
        raise InvalidRequestError(f"output_quality is {output['output_quality']}, accepted are whole numbers from 1 to 100")
    if not -10 <= output.get("priority", 0) <= 10:
        raise InvalidRequestError(f"priority is {output['priority']}, accepted are whole numbers from -10 to 10")
    if not output.get("timeout_s", 1) > 0:
        raise InvalidRequestError(f"timeout_s is {output['timeout_s']}, accepted are numbers above 0")


def _seeds(parameters: dict[str, Any]) -> tuple[list[int] | None, int]:
    seed, count = parameters.pop("seed", None), parameters.pop("num_outputs_per_prompt", None)
    listed = isinstance(seed, list)
    if listed and count is not None and count != len(seed):
        raise InvalidRequestError(f"seed has {len(seed)} entries and num_outputs_per_prompt is {count}: accepted are equal ones")
    count = len(seed) if listed else 1 if count is None else count
    if not 1 <= count <= MOST_OUTPUTS:
        raise InvalidRequestError(f"{count} outputs of a prompt, accepted are 1 to {MOST_OUTPUTS}")
    if seed is None:
        return None, count
    seeds = seed if listed else [(seed + i) & LAST_SEED for i in range(count)]
    for value in seed if listed else [seed]:
        if not 0 <= value <= LAST_SEED:
            raise InvalidRequestError(f"seed is {value}, accepted are whole numbers from 0 to 2^64 - 1")
    return seeds, count
