"""The vowel table: parsing on small generated files, the paper's task on the real one."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from lab.datasets import load, load_or_fallback, split, vowels
from lab.datasets.files import read_file
from lab.datasets.vowels import parse_vowels, parse_vowels12
from lab.errors import DataError

COLUMN_NUMBERS = "  1    2   3    4    5    6    7    8    9   10    11  12   13    14  15   16"


def row(name: str, first: int = 100) -> str:
    return " ".join([name, *(str(first + i) for i in range(15))])


def table(*rows: str) -> str:
    return "\r\n".join(["(c) a header", "", COLUMN_NUMBERS, *rows, ""])


def test_features_are_the_twelve_formants_over_their_maxima():
    dataset = parse_vowels(table(row("w01ae"), row("w10iy", 300)))
    # Columns 4 to 6 and 8 to 16 of the file hold 102, 103, 104 and 106 to 114 in the first row.
    small = np.array([102, 103, 104, *range(106, 115)], dtype=float)
    np.testing.assert_array_equal(dataset.features, [small / (small + 200), np.ones(12)])
    assert [dataset.classes[label] for label in dataset.labels] == ["ae", "iy"]
    assert dataset.groups.tolist() == [1, 10]


def test_only_women_and_the_seven_vowels_are_kept():
    others = [row(name) for name in ("m01ae", "b01ae", "g01ae", "w01eh", "w01oo")]
    assert parse_vowels(table(*others, row("w02er"))).groups.tolist() == [2]


def test_rows_outside_the_authors_draw_are_left_out():
    dataset = parse_vowels(table(row("w04ae"), row("w04er"), row("w05ae")))
    assert dataset.groups.tolist() == [4, 5]
    assert dataset.labels.tolist() == [4, 0]


@pytest.mark.parametrize("column", [4, 5, 6, *range(8, 17)])
def test_a_row_with_an_unmeasurable_formant_is_left_out(column):
    fields = row("w01ae").split()
    fields[column - 1] = "0"
    dataset = parse_vowels(table(" ".join(fields), row("w02ae")))
    assert dataset.groups.tolist() == [2]


@pytest.mark.parametrize("column", [2, 3, 7])
def test_a_zero_elsewhere_does_not_matter(column):
    fields = row("w01ae").split()
    fields[column - 1] = "0"
    assert parse_vowels(table(" ".join(fields))).groups.tolist() == [1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no line with the column numbers"),
        (row("w01ae"), "no line with the column numbers"),
        (table(), "no complete row of a woman"),
        (table(row("m01ae")), "no complete row of a woman"),
        (table(row("w01ae"), "w02ae 1 2 3"), "line 5: not 15 whole numbers"),
        (table(row("w01ae") + " 7"), "line 4: not 15 whole numbers"),
        (table(row("w01ae").replace(" 103 ", " -3 ")), "line 4: not 15 whole numbers"),
        (table(row("w01ae").replace(" 103 ", " 1o3 ")), "line 4: not 15 whole numbers"),
        (table(row("w1ae")), "line 4: 'w1ae' is not talker and vowel"),
        (table(row("w01xx")), "line 4: 'w01xx' is not talker and vowel"),
    ],
)
def test_what_cannot_be_read_is_named(text, reason):
    with pytest.raises(DataError, match=reason):
        parse_vowels(text)


@pytest.fixture
def small_file(tmp_path, monkeypatch):
    """Return a folder with a small vowel file that takes the place of the published one."""
    content = table(row("w01ae"), row("w10iy", 300)).encode()
    checksum = hashlib.sha256(content).hexdigest()
    published = replace(vowels.FILE, size=len(content), sha256=checksum)
    monkeypatch.setattr(vowels, "FILE", published)
    path = tmp_path / published.path
    path.parent.mkdir()
    path.write_bytes(content)
    return tmp_path


def test_reads_from_the_folder_that_the_environment_names(small_file, monkeypatch):
    monkeypatch.setenv("PNNLAB_DATA", str(small_file))
    assert load("vowels").groups.tolist() == [1, 10]
    dataset, reason = load_or_fallback()
    assert dataset.name == "vowels"
    assert reason is None


def test_a_missing_file_is_an_error_and_no_download(tmp_path):
    with pytest.raises(DataError, match=r"vowdata\.dat: cannot be read \(No such file"):
        load("vowels", folder=tmp_path, base_url="http://127.0.0.1:9/never-asked")


def test_a_truncated_file_is_an_error(small_file):
    path = small_file / vowels.FILE.path
    path.write_bytes(path.read_bytes()[:-7])
    size = vowels.FILE.size
    with pytest.raises(DataError, match=f"truncated, {size - 7} of {size} bytes"):
        load("vowels", folder=small_file)


def test_an_altered_file_is_an_error(small_file):
    path = small_file / vowels.FILE.path
    path.write_bytes(path.read_bytes().replace(b"102", b"201"))
    with pytest.raises(DataError, match="altered, its sha256 is not"):
        load("vowels", folder=small_file)


def test_the_fallback_is_digits_with_a_reason_in_one_line(tmp_path):
    dataset, reason = load_or_fallback(folder=tmp_path)
    assert dataset.name == "digits"
    assert "\n" not in reason
    assert "the digits are used" in reason
    assert "vowdata.dat: cannot be read" in reason


def test_the_real_file_gives_the_papers_task(data_folder):
    dataset = load("vowels", folder=data_folder)
    assert dataset.features.shape == (259, 12)
    assert np.bincount(dataset.labels).tolist() == [37] * 7
    assert len(set(dataset.groups)) == 48
    # Column means of the authors' published 259 rows, to their rounding: another draw of 37
    # rows a vowel moves them by some 1e-3.
    authors = [0.528161, 0.598928, 0.734028, 0.536837, 0.598279, 0.738256]
    authors += [0.565124, 0.59266, 0.736211, 0.598555, 0.61495, 0.728924]
    np.testing.assert_allclose(dataset.features.mean(axis=0), authors, atol=1e-6)


def test_the_real_files_maxima(data_folder):
    dataset = load("vowels", folder=data_folder)
    maxima = [1163, 3049, 3831, 1152, 3057, 3816, 1117, 3039, 3806, 1046, 3006, 3859]
    hertz = dataset.features * maxima
    np.testing.assert_allclose(hertz, np.round(hertz), atol=1e-9)
    assert dataset.features.max(axis=0).tolist() == [1.0] * 12


def test_the_recorded_length_is_that_of_the_real_file(data_folder):
    assert len(read_file(vowels.FILE, data_folder)) == vowels.FILE.size


def test_twelve_vowels_of_all_talkers_who_keep_their_identity():
    names = ["m01ae", "w01ae", "b01uw", "g17oo", "w04ae", "m01eh"]
    unmeasurable = row("b02ae").replace(" 114", " 0")
    dataset = parse_vowels12(table(*(row(name) for name in names), unmeasurable))
    assert [dataset.classes[label] for label in dataset.labels] == [name[3:] for name in names]
    assert dataset.groups.tolist() == [1, 101, 201, 317, 104, 1]
    with pytest.raises(DataError, match="no complete row"):
        parse_vowels12(table(unmeasurable))


def test_the_real_files_twelve_vowels(data_folder):
    dataset = load("vowels12", folder=data_folder)
    # 1,668 rows, of which 71 have a formant that is not measurable
    assert dataset.features.shape == (1597, 12)
    assert dataset.features.max(axis=0).tolist() == [1.0] * 12
    assert dataset.features.min() > 0
    assert np.bincount(dataset.labels, minlength=12).min() > 100
    talkers = np.unique(dataset.groups)
    assert np.bincount(talkers // 100).tolist() == [45, 48, 27, 19]
    s = split(dataset, "talker", 0)
    assert not set(dataset.groups[s.train_idx]) & set(dataset.groups[s.test_idx])
