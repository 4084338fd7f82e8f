"""Tables: no cell of them is a formula, whatever a file or a model is called."""

from __future__ import annotations

import csv

import pytest

from napari_cmunet.util.safe_files import write_table

SIGNS = "=+-@"


def cells(path, delimiter=","):
    with path.open(newline="", encoding="utf-8") as file:
        return [cell for row in csv.reader(file, delimiter=delimiter) for cell in row]


@pytest.mark.parametrize(
    "name",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "\uff1d1",
        "\uff0b1",
        "\uff0d1",
        "\uff201",
        'a;=HYPERLINK("x")',
        "a;;@x",
        "a;\t=1",
        "a\t=1",
        "a\r\n=1",
        'a";=1',
        "a; +1",
    ],
)
def test_no_cell_begins_a_formula(tmp_path, name):
    path = tmp_path / "a.csv"
    write_table(path, ["name", "value"], [{"name": name, "value": 1}] * 2)
    for delimiter in ",;\t|":
        for cell in cells(path, delimiter):
            start = cell.lstrip(' "\r\n\t')
            assert start[:1] not in set(SIGNS), (delimiter, cell)
            assert start[:1] not in set("\uff1d\uff0b\uff0d\uff20"), (delimiter, cell)


def test_what_is_no_formula_stays_as_it_is(tmp_path):
    path = tmp_path / "a.csv"
    names = ["a.tif", "a-b+c=d@e.tif", "x;y.tif", "Müller, A", 'a "b"', "", "\ud800"]
    write_table(path, ["name", "value"], [{"name": n, "value": -1.5} for n in names])
    expected = ["a.tif", "a-b+c=d@e.tif", "x;y.tif", "Müller, A", 'a "b"', "", "?"]
    assert cells(path)[2::2] == expected
    assert cells(path)[3::2] == ["-1.5"] * len(names)
