"""What a verb prints for programs. It must stay light: help comes without torch."""

import json
import math


def json_text(value: object) -> str:
    """Write a value as JSON that any program reads: a number that is none becomes null."""
    return json.dumps(_finite(value))


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
