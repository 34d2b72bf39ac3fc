"""A user's own arrays: what comes out of npz and CSV files, and everything that is refused."""

import csv
import io
import json
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import lab.datasets.array_files
import lab.datasets.csv_table
from lab.config import TASKS, TrainConfig
from lab.datasets import load, split
from lab.datasets.array_files import read_arrays
from lab.datasets.arrays import build_dataset
from lab.datasets.own import find_upload, keep_upload, list_uploads
from lab.datasets.tasks import PUBLISHED
from lab.errors import DataError, UnknownName
from lab.jobs.files import FolderFiles

FEATURES = np.array([[0.0, 5.0], [1.0, 10.0], [0.5, 15.0], [0.25, 5.0]])
LABELS = np.array([3, 10, 3, 10])


def npz(**values) -> bytes:
    file = io.BytesIO()
    np.savez(file, **values)
    return file.getvalue()


def table(*lines: str) -> bytes:
    return "\n".join([*lines, ""]).encode()


def read(content: bytes):
    return build_dataset(read_arrays(content, "my file"), "mine", "my file")


def good(**changed) -> bytes:
    return npz(**{"features": FEATURES, "labels": LABELS, **changed})


def test_an_archive_of_arrays():
    dataset = read(good())
    # a column within 0..1 is left alone, another is mapped onto 0..1
    assert dataset.features.tolist() == [[0.0, 0.0], [1.0, 0.5], [0.5, 1.0], [0.25, 0.0]]
    assert dataset.features.dtype == np.float64
    assert dataset.labels.tolist() == [0, 1, 0, 1]
    assert dataset.classes == ("3", "10")
    assert (dataset.groups, dataset.test_idx, dataset.name) == (None, None, "mine")
    assert dataset.source == (
        "my file; 1 of 2 features mapped onto 0..1 by their minimum and maximum over all rows"
    )


def test_features_within_range_stay_as_they_are_and_nothing_is_said():
    dataset = read(good(features=FEATURES / 20))
    np.testing.assert_array_equal(dataset.features, FEATURES / 20)
    assert dataset.source == "my file"


def test_a_table_with_all_columns():
    lines = ["x, label ,group,y,test", '0,"b, c",ann,2e0,0', "1,a,bob,3,TRUE", "", "1,a,bob,4,1"]
    dataset = read(table(*lines, "0.5,a,ann,2,false", '0,"b, c",bob,2,0', "0,a,ann,2,0"))
    assert dataset.classes == ("a", "b, c")
    assert dataset.labels.tolist() == [1, 0, 0, 0, 1, 0]
    assert dataset.groups.tolist() == [0, 1, 1, 0, 1, 0]
    assert dataset.test_idx.tolist() == [1, 2]
    assert dataset.features.tolist() == [[0, 0], [1, 0.5], [1, 1], [0.5, 0], [0, 0], [0, 0]]
    assert split(dataset, "random", 7).test_idx.tolist() == [1, 2]


def test_a_byte_order_mark_and_windows_lines_do_not_matter():
    text = "\ufefflabel,x\r\na,0\r\nb,1\r\na,1\r\nb,0\r\n"
    assert read(text.encode()).features.tolist() == [[0], [1], [1], [0]]


def test_labels_that_are_whole_numbers_are_sorted_by_value():
    dataset = read(table("x,label", "0,10", "1,9", "0,10", "1,9"))
    assert dataset.classes == ("9", "10")
    mixed = read(table("x,label", "0,10", "1,09", "0,10", "1,09"))
    assert mixed.classes == ("09", "10")


finite = st.floats(-1e308, 1e308)
names = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=5)


@st.composite
def data(draw):
    rows, columns = draw(st.integers(4, 12)), draw(st.integers(1, 4))
    features = draw(arrays(np.float64, (rows, columns), elements=finite))
    features[0, 0] = 0.0 if features[1, 0] else 1.0
    two = draw(st.lists(names, min_size=2, max_size=2, unique=True))
    labels = [two[i % 2] for i in range(rows)]
    groups = draw(st.lists(names, min_size=rows, max_size=rows))
    return features, labels, groups


@given(data())
@settings(max_examples=60, deadline=None)
def test_npz_and_csv_of_the_same_data_are_the_same_and_lie_in_range(values):
    features, labels, groups = values
    archive = npz(features=features, labels=np.array(labels), groups=np.array(groups))
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow([*(f"x{i}" for i in range(features.shape[1])), "label", "group"])
    for row, label, group in zip(features, labels, groups, strict=True):
        writer.writerow([*map(repr, map(float, row)), label, group])
    one, other = read(archive), read(file.getvalue().encode())
    np.testing.assert_array_equal(one.features, other.features)
    assert [one.classes[i] for i in one.labels] == labels
    assert [other.classes[i] for i in other.labels] == labels
    for i in range(len(groups)):
        same = np.array(groups) == groups[i]
        np.testing.assert_array_equal(one.groups == one.groups[i], same)
        np.testing.assert_array_equal(other.groups == other.groups[i], same)
    assert one.features.min() >= 0
    assert one.features.max() <= 1
    outside = (features.min(axis=0) < 0) | (features.max(axis=0) > 1)
    np.testing.assert_array_equal(one.features[:, ~outside], features[:, ~outside])
    for column in np.flatnonzero(outside):  # the order of a column's values is kept
        order = np.argsort(features[:, column], kind="stable")
        assert (np.diff(one.features[order, column]) >= 0).all()


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_archive_is_refused_or_read_and_nothing_else(given_data):
    content = bytearray(good())
    for _ in range(given_data.draw(st.integers(1, 4))):
        content[given_data.draw(st.integers(0, len(content) - 1))] = given_data.draw(
            st.integers(0, 255)
        )
    # an error of any other kind would be a fault of the reader's
    with suppress(DataError):
        dataset = read(bytes(content[: given_data.draw(st.integers(1, len(content)))]))
        assert dataset.features.shape == FEATURES.shape


class Trap:
    """Would be run by unpickling."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def with_nan(value: float) -> np.ndarray:
    features = FEATURES.copy()
    features[2, 1] = value
    return features


def forged(header: dict) -> bytes:
    """Return an archive whose features state another shape or type than they have."""
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, header)
    member.write(bytes(64))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("features.npy", member.getvalue())
        archive.writestr("labels.npy", b"no array")
    return file.getvalue()


def header(shape: tuple[int, ...], descr: str = "<f8") -> dict:
    return {"descr": descr, "fortran_order": False, "shape": shape}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "my file: empty"),
        (good()[:-30], "my file: no whole npz archive"),
        (npz(features=FEATURES), "my file: no array 'labels'"),
        (npz(labels=LABELS), "my file: no array 'features'"),
        (good(group=LABELS), "my file: array 'group' is none of features, labels, groups, test"),
        (good(features=np.array([[Trap()] * 2] * 4)), "features: an array of Python objects"),
        (good(labels=np.array([Trap()] * 4)), "labels: an array of Python objects"),
        (forged(header((10**6, 2))), r"features: shape \(1000000, 2\) of float64 does not fit"),
        (forged(header((4, 1))), r"features: shape \(4, 1\) of float64 does not fit"),
        (forged(header((10**7, 2))), r"features: shape \(10000000, 2\), at most 10,000,000 val"),
        (forged(header((8,), "<U0")), "features: values of no bytes"),
        (forged(header((4, 2))), "my file: labels: cannot be read"),
        (good(features=with_nan(np.nan)), "features: row 3, column 2: nan is not finite"),
        (good(features=with_nan(-np.inf)), "features: row 3, column 2: -inf is not finite"),
        (good(features=FEATURES[:, 0]), r"features: shape \(4,\), not \(rows, features\)"),
        (good(features=FEATURES[:, :0]), r"features: shape \(4, 0\), not \(rows, features\)"),
        (good(features=FEATURES[:0]), r"features: shape \(0, 2\), not \(rows, features\)"),
        (good(features=FEATURES + 0j), "features: complex128 are no real numbers"),
        (good(features=FEATURES.astype(str)), "features: <U32 are no real numbers"),
        (good(features=np.ones((4, 2))), "features: every row is the same"),
        (good(labels=LABELS[:3]), r"labels: shape \(3,\), but features have 4 rows"),
        (good(labels=LABELS[:, None]), r"labels: shape \(4, 1\), but features have 4 rows"),
        (good(labels=LABELS * 1.0), "labels: float64 are neither whole numbers nor strings"),
        (good(labels=np.array(["a", "", "a", "b"])), "labels: row 2 is empty"),
        (good(labels=np.full(4, 7)), "labels: there is one class only, '7'"),
        (good(labels=np.array([1, 2, 1, 1])), "labels: class '2' has 1 rows, at least 2"),
        (good(groups=LABELS[:2]), r"groups: shape \(2,\), but features have 4 rows"),
        (good(test=LABELS > 3), "labels: class '10' has 0 training rows, at least 2"),
        (good(test=LABELS), "test: int64 are not true or false"),
        (good(test=np.zeros(3, bool)), r"test: shape \(3,\), but features have 4 rows"),
        (good(test=np.zeros(4, bool)), "test: no row is marked"),
        (good(test=np.ones(4, bool)), "labels: class '3' has 0 training rows"),
        (b"\xff\xfe\x00", "my file: neither npz nor UTF-8 text"),
        (table("0.5,1.5,a", "0.1,1.1,b"), "line 1: no header with a column 'label'"),
        (table("label,x,x", "a,1,2"), "line 1: column 'x' has no name of its own"),
        (table("label,x,", "a,1,2"), "line 1: column '' has no name of its own"),
        (table("label,group", "a,1"), "line 1: no column of features beside label, group"),
        (table("label,groups,x", "a,1,2"), "line 1: column 'groups': the special columns are"),
        (table("label,x"), "my file: no rows below a header"),
        (b"\n\n", "my file: no rows below a header"),
        (table("label,x", "a,1", "b"), "line 3: 1 fields, the header has 2"),
        (table("label,x", "a,1", "b,1,2"), "line 3: 3 fields, the header has 2"),
        (table("label,x", "a,1", "", "b,one"), "line 4, column 'x': 'one' is no number"),
        (table("label,x", "a,1_0"), "line 2, column 'x': '1_0' is no number"),
        (table("label,x", "a,"), "line 2, column 'x': '' is no number"),
        (table("label,x", 'a,"1'), "line 2: unexpected end of data"),
        (table("label,x", "a,1", "b,nan"), "features: row 2, column 'x': nan is not finite"),
        (table("label,x", "a,1", ",2"), "labels: row 2 is empty"),
        (table("label,x,test", "a,1,0", "b,2,2"), "row 2, column 'test': '2' is none of 0, 1"),
    ],
)
def test_what_cannot_be_used_is_refused_with_place_and_reason(content, reason):
    with pytest.raises(DataError, match=reason) as refused:
        read(content)
    assert str(refused.value).startswith("my file")


def test_too_much_is_refused_before_it_is_read(monkeypatch):
    bombs = io.BytesIO()
    with zipfile.ZipFile(bombs, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", bytes(2_000_000))
    monkeypatch.setattr(lab.datasets.array_files, "MOST_BYTES", 1_000_000)
    with pytest.raises(DataError, match=r"my file, unpacked: 2,000,000 bytes, at most 1,000,000"):
        read(bombs.getvalue())
    with pytest.raises(DataError, match="my file: 1,000,001 bytes, at most 1,000,000"):
        read(b"x" * 1_000_001)
    monkeypatch.setattr(lab.datasets.csv_table, "MOST_VALUES", 3)
    with pytest.raises(DataError, match="my file: line 5: more than 3 values"):
        read(table("label,x", "a,0", "b,1", "a,1", "b,0"))


def test_a_file_is_a_task_for_this_machine(tmp_path):
    path = tmp_path / "mine.npz"
    path.write_bytes(good())
    dataset = load(f"file:{path}")
    assert (dataset.name, len(dataset.labels)) == ("mine.npz", 4)
    with pytest.raises(DataError, match=r"none\.csv: cannot be read \(No such file"):
        load(f"file:{tmp_path / 'none.csv'}")


def test_an_upload_is_kept_by_its_content_and_read_again(tmp_path):
    uploads = FolderFiles(tmp_path / "datasets")
    info = keep_upload(uploads, good(test=np.array([0, 0, 0, 0, 1, 1], bool), **six()), "mine.npz")
    assert (info.name, info.rows, info.features, info.test_rows) == ("mine.npz", 6, 2, 2)
    assert (info.classes, info.talkers) == (("3", "10"), False)
    dataset = load(info.task, uploads=uploads)
    assert (dataset.name, dataset.test_idx.tolist()) == ("mine.npz", [4, 5])
    again = keep_upload(uploads, good(test=np.array([0, 0, 0, 0, 1, 1], bool), **six()), "renamed")
    assert again.task == info.task
    assert list_uploads(uploads) == [again] == [find_upload(uploads, info.task)]


def six() -> dict[str, np.ndarray]:
    return {"features": np.vstack([FEATURES, FEATURES[:2]]), "labels": np.tile([3, 10], 3)}


def test_what_is_refused_is_not_kept(tmp_path):
    with pytest.raises(DataError, match=r"bad\.csv: line 1"):
        keep_upload(FolderFiles(tmp_path), b"1,2,3\n", "bad.csv")
    assert list(tmp_path.iterdir()) == []
    assert list_uploads(FolderFiles(tmp_path / "never made")) == []


def test_an_upload_that_is_missing_or_altered_is_an_error(tmp_path):
    task = keep_upload(FolderFiles(tmp_path), good(), "mine").task
    with pytest.raises(UnknownName, match="'upload:0123456789abcdef': this service has no such"):
        load("upload:0123456789abcdef", uploads=FolderFiles(tmp_path))
    with pytest.raises(DataError, match="an upload is known to the service that has it"):
        load(task)
    (content,) = tmp_path.glob("*.data")
    content.write_bytes(good(labels=LABELS[::-1]))
    with pytest.raises(DataError, match=r"\.data: altered, its sha256 does not begin with"):
        load(task, uploads=FolderFiles(tmp_path))
    content.unlink()
    with pytest.raises(DataError, match=r"\.data: cannot be read"):
        load(task, uploads=FolderFiles(tmp_path))


@pytest.mark.parametrize("task", [*TASKS, "file:data/my.csv", "upload:0123456789abcdef"])
def test_a_config_names_a_task(task):
    assert TrainConfig(task=task).task == task


@pytest.mark.parametrize(
    "task", ["", "file:", "upload:../../jobs", "upload:0123", "upload:0123456789ABCDEF", "vowel"]
)
def test_a_config_with_another_task_lists_what_there_is(task):
    with pytest.raises(ValueError, match="there are vowels, vowels12, digits, mnist, mnist28"):
        TrainConfig(task=task)


@pytest.mark.parametrize("info", PUBLISHED, ids=lambda info: info.task)
def test_what_is_listed_of_a_built_in_task_is_true(info, data_folder):
    dataset = load(info.task, folder=data_folder)
    assert dataset.features.shape == (info.rows, info.features)
    assert dataset.classes == info.classes
    assert (dataset.groups is not None) == info.talkers
    assert (None if dataset.test_idx is None else len(dataset.test_idx)) == info.test_rows


def test_every_built_in_task_is_listed():
    assert tuple(info.task for info in PUBLISHED) == TASKS
    json.dumps([info.__dict__ for info in PUBLISHED])
