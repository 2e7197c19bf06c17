"""YAML files of people as typed models: the only way in which they come into this package."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


def read_yaml(path: str | Path, kind: type[Model], what: str, error: type[ValueError]) -> Model:
    """The model of this ``kind`` in a YAML file; an empty file is one without keys.

    Raises ``error``, naming file and key, where it can't be read or is not ``what``, such as "a domain".
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return kind.model_validate({} if values is None else values)
    except ValidationError as problem:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}"
            for fault in problem.errors()[:5]
        )
        keys = ", ".join(kind.model_fields)
        raise error(f"{path} does not describe {what}: {faults}. Its keys are {keys}.") from problem
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise error(f"{path} can't be read as {what} in YAML: {problem}.") from problem
