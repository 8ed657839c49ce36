"""Whether the classes of a model are those of data, and a table from one to the other where they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from atrous.data.class_tables import read_class_table
from atrous.errors import InputError
from atrous.labels import LabelSet


def label_table(model: LabelSet, data: LabelSet, place: str | Path | None) -> Tensor | None:
    """The data's label of each of the model's, in the dtype of the data's masks; None if they are the same.

    Args:
        model: the classes of the model.
        data: the classes of the data.
        place: a class table from the model's to the data's; None if they must be the same.

    Raises:
        InputError: the classes differ, also after the class table, or the table ignores some of them.
    """
    if place is None:
        check_classes(model, data)
        return None
    mapped = read_class_table(place).applied(model)
    if missing := [name for name in mapped.label_set.names if name not in data.names]:
        raise InputError(f"{place}: the class '{missing[0]}' is not one of the data's: {', '.join(data.names)}")
    if mapped.label_set.ignore in mapped.numbers:
        ignored = model.names[mapped.numbers.index(mapped.label_set.ignore)]
        raise InputError(f"{place} ignores '{ignored}', and a prediction must be a class; let it become background")
    label = [data.names.index(name) for name in mapped.label_set.names]
    table = [label[number] for number in mapped.numbers]
    return torch.from_numpy(np.array(table, data.dtype))


def check_classes(model: LabelSet, data: LabelSet) -> None:
    """Refuse to evaluate a model on data of other classes.

    A model with numbered, unnamed classes is taken to have those of the data if their number is the same.

    Raises:
        InputError: the classes differ.
    """
    unnamed = LabelSet.numbered(len(model)).names
    if len(model) == len(data) and model.names in (data.names, unnamed):
        return
    message = (
        f"the model has {len(model)} classes ({', '.join(model.names)}), "
        f"but the data have {len(data)} ({', '.join(data.names)}); classes must be the same and in the same order"
    )
    if data.names == LabelSet.numbered(len(data)).names:
        message += "; the data's classes have no names: write labels.toml with names = [...] in its folder"
    raise InputError(message)
