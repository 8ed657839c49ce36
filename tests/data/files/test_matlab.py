"""MATLAB files: what scipy reads is read the same, and a damaged file is an error, never a crash."""

import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskError, read_mask
from atrous.data.files.matlab import MatlabMask
from atrous.data.files.matlab_structure import checked_file, variables
from atrous.data.sources.person_part import merge_parts
from atrous.label_sets import PERSON_PART, VOC

VALUES = np.arange(12, dtype=np.uint16).reshape(3, 4)
FORM = MaskForm(VOC)


def written(compressed: bool = False, **contents: object) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, contents, do_compression=compressed)
    return file.getvalue()


def nested(depth: int) -> object:
    cell = np.empty((1, 1), object)
    cell[0, 0] = nested(depth - 1) if depth else VALUES
    return cell


CONTENTS = {
    **{str(np.dtype(kind)): VALUES.astype(kind) for kind in "bBhHiIqQfd"},
    "bool": VALUES > 3,
    "characters": np.array(["ab", "cd"]),
    "accents": "é€",
    "nothing": np.zeros((0, 0)),
    "cells": nested(5),
    "struct": {"a": VALUES, "b": {"text": "x", "cell": nested(1)}},
    "structs": np.array([[(1.0, VALUES), ("x", nested(0))]], [("one", object), ("two", object)]),
    "no fields": np.zeros((1, 0), [("one", object)]),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_scipy_reads_a_checked_file_as_it_reads_the_file_itself(content: object, compressed: bool) -> None:
    data = written(compressed, first=VALUES, content=content, last=1)
    (found,) = (variable for variable in variables(data) if variable.name == "content")
    checked, whole = (scipy.io.loadmat(file)["content"] for file in (checked_file(data, found), io.BytesIO(data)))
    assert repr(checked) == repr(whole)
    assert (checked.dtype, checked.shape) == (whole.dtype, whole.shape)
    assert [variable.name for variable in variables(data)] == ["first", "content", "last"]


def changed(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + struct.pack("<I", value) + data[at + 4 :]


MATRIX = 128
TYPE = MATRIX + 8 + 16 + 16 + 8  # behind tag, flags, shape and the name in a small element
DAMAGED = {
    "a data type that does not exist": (TYPE, 99),
    "a data type of another size": (TYPE, 2),
    "a small element where there is none": (TYPE, 2 << 16 | 2),
    "a data type that scipy has no entry for": (TYPE, 8),
    "a class that does not exist": (MATRIX + 16, 77),
    "an object": (MATRIX + 16, 3),
    "a cell without contents": (MATRIX + 16, 1),
    "a struct without names": (MATRIX + 16, 2),
    "a sparse matrix": (MATRIX + 16, 5),
    "complex numbers": (MATRIX + 16, 0x800 | 11),
    "text": (MATRIX + 16, 4),
    "a shape of another number of values": (MATRIX + 32, 2**10),
    "a negative side": (MATRIX + 36, 2**32 - 4),
    "more dimensions than there are": (MATRIX + 28, 200),
    "a size beyond the end": (MATRIX + 4, 2**31),
    "a size of nothing": (MATRIX + 4, 0),
    "no matrix": (MATRIX, 13),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_each_damage_is_an_error_that_names_the_file(damage: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(changed(written(S=VALUES), *damage))
    with pytest.raises(MaskError, match=r"a\.mat: (not a readable MATLAB file \(|it contains|its S contains)"):
        read_mask(MatlabMask(tmp_path / "a.mat", "S"), FORM)


def test_cells_in_each_other_end_somewhere(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(written(True, anno=nested(50)))
    with pytest.raises(MaskError, match=r"131072 matrices, or 20 in each other"):
        read_mask(MatlabMask(tmp_path / "a.mat", "anno", merge_parts, same_size=False), MaskForm(PERSON_PART))


def test_a_variable_that_decompresses_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mat").write_bytes(written(True, S=np.zeros((3000, 2000), np.uint8)))
    assert (tmp_path / "a.mat").stat().st_size < 10_000
    monkeypatch.setenv("ATROUS_DECODE_LIMIT_GB", "0.01")
    with pytest.raises(MaskError, match=r"a\.mat: .*(limit|GB)"):
        read_mask(MatlabMask(tmp_path / "a.mat", "S"), FORM)


def test_a_file_of_version_4_is_still_read(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"S": VALUES}, format="4")
    np.testing.assert_array_equal(read_mask(MatlabMask(tmp_path / "a.mat", "S"), FORM), VALUES)


def test_a_file_of_version_7_3_says_how_to_save_it(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    with pytest.raises(MaskError, match=r"a\.mat: not a readable MATLAB file \(version 7\.3; save it .* -v7\)"):
        read_mask(MatlabMask(tmp_path / "a.mat", "S"), FORM)


@pytest.mark.parametrize("content", [np.array(["ab", "cd"]), nested(0)], ids=["text", "cells"])
def test_a_variable_of_something_else_than_numbers_says_so(content: object, tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(written(S=content))
    with pytest.raises(MaskError, match=r"a\.mat: (its S contains text, cells|it contains S; expected a matrix)"):
        read_mask(MatlabMask(tmp_path / "a.mat", "S"), FORM)


MUTATE = """
import random, sys
from pathlib import Path
from atrous.data.files.masks import MaskError, read_mask
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.matlab import MatlabMask
from atrous.data.sources.person_part import merge_parts
from atrous.label_sets import PERSON_PART

*seeds, file = map(Path, sys.argv[1:])
draw, read = random.Random(0), 0
for number in range(1500):
    data = bytearray(seeds[number % len(seeds)].read_bytes())
    for _ in range(draw.choice((1, 1, 2, 5))):
        at = draw.randrange(120, len(data))
        match draw.randrange(3):
            case 0: data[at] = draw.randrange(256)
            case 1: del data[at : at + draw.choice((1, 4, 8))]
            case 2: data[at : at + 4] = draw.choice((0, 1, 8, 99, 2**31 - 1, 2**32 - 1)).to_bytes(4, "little")
    file.write_bytes(data)
    for variable, convert in (("S", None), ("anno", merge_parts)):
        mask = MatlabMask(file, variable, convert, False) if convert else MatlabMask(file, variable)
        try:
            read_mask(mask, MaskForm(PERSON_PART))
            read += 1
        except MaskError:
            pass
print(read)
"""


def test_mutated_files_are_read_or_refused_and_never_end_the_process(tmp_path: Path) -> None:
    part = np.array([[("hair", VALUES.astype(np.uint8))]], [("part_name", object), ("mask", object)])
    thing = np.array(
        [[("person", VALUES.astype(np.uint8), part)]], [("class", object), ("mask", object), ("parts", object)]
    )
    seeds = [tmp_path / f"{number}.seed" for number in range(2)]
    for number, seed in enumerate(seeds):
        seed.write_bytes(written(bool(number), S=VALUES % 7, anno={"objects": thing}))
    done = subprocess.run(
        [sys.executable, "-c", MUTATE, *map(str, seeds), str(tmp_path / "a.mat")], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 100


@pytest.mark.shared
@pytest.mark.parametrize("case", ["mat_crash_567.mat", "mat_crash_1424.mat"])
def test_files_that_once_ended_the_process_are_errors(case: str, shared: Path) -> None:
    code = f"""
from pathlib import Path
from atrous.data.files.masks import MaskError
from atrous.data.files.matlab import MatlabMask
file = Path({str(shared / "cases" / case)!r})
for variable in ("LabelMap", "segmentation", "S", "anno"):
    try:
        MatlabMask(file, variable).open()
    except MaskError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"{case}: ") == 4
