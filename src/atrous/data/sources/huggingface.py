"""Hugging Face ``datasets`` with two columns of images: a folder that ``save_to_disk`` wrote, or of Parquet files, or
a name of the hub.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atrous.data.dataset import Dataset
from atrous.data.files.documents import form_of, parsed, read_json
from atrous.data.files.mask_form import MaskForm
from atrous.data.sources.labels_toml import read_form
from atrous.data.sources.names import did_you_mean, drawn_for_validation, usual_split
from atrous.data.wrap import wrap
from atrous.errors import DatasetError, InputError
from atrous.labels import IGNORE, LabelSet

IMAGES = ("image", "pixel_values", "img", "photo")
MASKS = ("mask", "label", "labels", "annotation", "segmentation", "semantic_mask", "seg", "gt")
"""Names of the columns, of which the first that there is counts."""
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def open_huggingface(path: str, split: str) -> Dataset:
    """Open a split of ``hf:PATH`` or ``hf:OWNER/NAME``; the classes are those of a ``labels.toml`` in the folder, or of
    a ``labels.toml`` or ``id2label.json`` in the repository on the hub.

    Raises:
        DatasetError: it is not such a folder, datasets is not installed, the hub can't be reached, or a split, column
            or class is missing.
    """
    root = Path(path).expanduser()
    if not root.exists() and _HUB_NAME.fullmatch(path):
        outage = _outage(path)
        form, found = _form_on_hub(path, outage), _download(path, split, outage)
    else:
        found = _load(root)
        form = _form_in(root, path)
    rows = _split(found, split, path)
    columns = {name: feature for name, feature in rows.features.items() if type(feature).__name__ == "Image"}
    image = next((name for name in IMAGES if name in columns), None)
    mask = next((name for name in MASKS if name in columns), None)
    if image is None or mask is None:
        raise DatasetError(
            f"hf:{path} has the columns {', '.join(rows.features)}; expected two of images, called one of "
            f"{', '.join(IMAGES)} and one of {', '.join(MASKS)}: rename_column and save_to_disk"
        )
    if form.encoding != "index" or form.values:
        raise DatasetError(
            f"the labels.toml of hf:{path} has an encoding or values, which can't be used here; the values are the "
            "classes"
        )
    ignored = tuple(value for value in form.ignore if isinstance(value, int))
    return wrap(rows, form.label_set, image=image, mask=mask, name=f"hf:{split}", ignore=(*ignored, IGNORE))


def _form_in(root: Path, path: str) -> MaskForm:
    labels = root / "labels.toml"
    if not labels.is_file():
        raise DatasetError(f'hf:{path} does not name its classes; write {labels}: names = ["background", …]')
    return read_form(labels)


def _outage(name: str) -> Exception | None:
    """Why the hub can't be asked, if so: what is in the cache is used then, without the many tries of other requests.

    Raises:
        DatasetError: the hub has no such dataset.
    """
    _require_datasets(name)
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        huggingface_hub.HfApi().dataset_info(name, timeout=10)
    except RepositoryNotFoundError as error:
        raise _not_from_hub(name, error) from error
    except Exception as error:  # of the name or of the network: httpx and huggingface_hub have many
        return error
    return None


def _form_on_hub(name: str, outage: Exception | None) -> MaskForm:
    """The classes that a repository of the hub names, which are read before any image."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for file in ("labels.toml", "id2label.json"):
        try:
            found = huggingface_hub.hf_hub_download(
                name, file, repo_type="dataset", local_files_only=outage is not None
            )
        except LocalEntryNotFoundError as error:  # it isn't in the cache, which may know that there is none
            known = huggingface_hub.try_to_load_from_cache(name, file, repo_type="dataset")
            if known is not huggingface_hub._CACHED_NO_EXIST:
                raise _not_from_hub(name, outage or error) from error
            continue
        except EntryNotFoundError:
            continue
        except Exception as error:
            raise _not_from_hub(name, error) from error
        return read_form(Path(found)) if file == "labels.toml" else parsed(Path(found), _read_names)
    raise DatasetError(
        f"hf:{name} has no labels.toml or id2label.json on the hub, so its classes have no names; {_store(name)}, and "
        'write FOLDER/labels.toml: names = ["background", …]'
    )


def _read_names(file: Path) -> MaskForm:
    with form_of('an id2label.json: {"0": "name of class 0", "1": …}, or a list of names'):
        data = read_json(file)
        names = dict(enumerate(data)) if isinstance(data, list) else {int(key): str(data[key]) for key in data}
        if sorted(names) != list(range(len(names))):
            raise InputError(f"its numbers are {', '.join(map(str, sorted(names)[:12]))}, expected 0, 1, 2, …")
        return MaskForm(LabelSet(tuple(names[number] for number in sorted(names))))


def _download(name: str, split: str, outage: Exception | None) -> Mapping[str, Any]:
    """The splits of a dataset of the hub, from the cache of ``datasets`` once they are there. The hub is asked for
    their names first, so that a wrong one downloads nothing.
    """
    datasets = _require_datasets(name)
    try:
        if outage is None:
            there = map(usual_split, datasets.get_dataset_split_names(name))
            _require_split(list(there), split, name)
        found = datasets.load_dataset(name)
    except DatasetError:
        raise
    except Exception as error:  # of pyarrow, or of datasets, which has errors of many kinds
        if outage is not None:
            raise _not_from_hub(name, outage) from error
        raise DatasetError(f"hf:{name} can't be loaded ({error}); {_store(name)} may show why") from error
    return found if isinstance(found, Mapping) else {"": found}


def _not_from_hub(name: str, error: Exception) -> DatasetError:
    return DatasetError(
        f"hf:{name}: there is no such folder, and the hub gives no dataset of this name "
        f"({' '.join(str(error).split())}); correct the name, or where there is no network, store it with another "
        f"machine: {_store(name)}"
    )


def _store(name: str) -> str:
    return f"datasets.load_dataset('{name}').save_to_disk('FOLDER') stores it as hf:FOLDER"


def _require_datasets(path: str | Path) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DatasetError(f"hf:{path} needs Hugging Face's datasets: pip install 'atrous[hf]'") from error
    return datasets


def _load(root: Path) -> Mapping[str, Any]:
    """The splits of a folder."""
    datasets = _require_datasets(root)
    if not root.is_dir():
        raise DatasetError(f"hf:{root} is not a folder, nor OWNER/NAME of the hub; {_store('OWNER/NAME')}")
    try:
        if (root / "dataset_dict.json").is_file() or (root / "dataset_info.json").is_file():
            found = datasets.load_from_disk(str(root))
        else:
            found = datasets.load_dataset("parquet", data_dir=str(root))
    except Exception as error:  # of pyarrow, or of datasets, which has errors of many kinds
        raise DatasetError(
            f"hf:{root} can't be read ({error}); expected a folder of save_to_disk, or Parquet files"
        ) from error
    return found if isinstance(found, Mapping) else {"": found}


def _split(found: Mapping[str, Any], split: str, path: str) -> Any:
    there = {usual_split(name): rows for name, rows in found.items()}
    _require_split(list(there), split, path)
    if split in there:
        return there[split]
    (rows,) = there.values()
    chosen = [row for row in range(len(rows)) if split == "all" or drawn_for_validation(str(row)) == (split == "val")]
    return rows.select(chosen)


def _require_split(there: Sequence[str], split: str, path: str) -> None:
    """Refuse a split that there is not; of a single one, ``train``, ``val`` and ``all`` are drawn."""
    if split in there or (len(there) == 1 and split in ("train", "val", "all")):
        return
    raise DatasetError(
        f"hf:{path} has no split '{split}'{did_you_mean(split, there)}; available splits: {', '.join(there)}"
    )
