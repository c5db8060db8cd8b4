"""CSV and its relatives."""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.reading.scanning import scan, write

from feast_embeddings.errors import InputError
from feast_embeddings.reading import read_table

HEADER = "user_id,item_id,timestamp\n"


def test_ids_stay_as_they_are_written(tmp_path: Path) -> None:
    """Codes, dates, long numbers and spaces are text, character by character."""
    ids = ["007", "1e3", "2024-01-01", "12345678901234567890", " a ", "NA", "null", "+1", "1_0", "７", "True", "0x10"]
    log = write(tmp_path / "log.csv", "user_id,item_id\n" + "".join(f"{id},{id}\n" for id in ids))

    assert [user for user, _ in scan(log)[0]] == ids


def test_ids_are_numbers_where_that_is_asked_for(tmp_path: Path) -> None:
    """Each must be written in the plain way, or it would be another id than it was."""
    good = [0, -7, 2**63 - 1, -(2**63)]
    log = write(tmp_path / "log.csv", "user_id,item_id\n" + "".join(f"{id},1\n" for id in good))
    assert [user for user, _ in scan(log, id_type="int")[0]] == good

    bad = ["007", "+1", "1.0", "1e3", str(2**63), " 1", "x", "٥"]
    log = write(tmp_path / "bad.csv", "user_id,item_id\n" + "".join(f"{id},1\n" for id in bad))
    rows, faults, _ = scan(log, id_type="int")
    assert (rows, faults.counts) == ([], {"whose user_id is not a whole number of 64 bits": len(bad)})


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"], ids=["comma", "semicolon", "tab", "bar"])
@pytest.mark.parametrize("compressed", [None, "gzip", "zstd"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["unix", "windows", "old-mac"])
def test_delimiters_line_ends_and_compression(
    tmp_path: Path, delimiter: str, compressed: str | None, line_end: str
) -> None:
    """The delimiter is told by the names; quotes may hold any; byte order mark and blank lines are nothing."""
    text = io.StringIO(newline="")
    rows = [("u,1", "i;1"), ("u\t2", "i|2"), ('a "b"', "é🎈")]
    csv.writer(text, delimiter=delimiter, lineterminator=line_end).writerows([("user_id", "item_id"), *rows])
    content = b"\xef\xbb\xbf" + text.getvalue().encode()
    content += (line_end + line_end).encode()
    if compressed == "gzip":
        path = write(tmp_path / "log.csv.gz", gzip.compress(content))
    elif compressed == "zstd":
        path = write(tmp_path / "log.csv.zst", pa.Codec("zstd").compress(content, asbytes=True))
    else:
        path = write(tmp_path / "log.csv", content)

    assert scan(path)[0] == rows


def test_values_of_several_lines(tmp_path: Path) -> None:
    """A quoted value may go on in the next line; rows are counted as rows."""
    log = write(tmp_path / "log.csv", 'user_id,title,item_id\n"a\nb","x, ""y""\n\nz",1\nc,"t",2\n,"u\nv",3\n')
    rows, faults, _ = scan(log)

    assert rows == [("a\nb", "1"), ("c", "2")]
    with pytest.raises(InputError, match=r"1 of 3 rows cannot be used: 1 without user_id \(row 3\)"):
        faults.settle("log.csv", "error")


@pytest.mark.parametrize("rows", [3, 200_000], ids=["few", "many"])
@pytest.mark.parametrize("stray", ['u,i,"never closed', 'u,i,"a"b"', 'u,"i,x', '"u,i,x'])
def test_a_stray_quote_is_one_bad_row(tmp_path: Path, stray: str, rows: int) -> None:
    """No other row is lost, however long the file is, and the line is named."""
    before = [f"a{k},i{k % 50},t" for k in range(rows)]
    after = [f'b{k},i{k % 50},"t, {k}"' for k in range(rows)]
    log = write(tmp_path / "log.csv", "\n".join(["user_id,item_id,title", *before, stray, *after]))
    found, faults, _ = scan(log)

    assert [user for user, _ in found] == [line.split(",")[0] for line in [*before, *after]]
    assert (faults.rows, faults.bad) == (2 * rows + 1, 1)
    with pytest.raises(InputError, match=f"never closed \\(line {rows + 2} "):
        faults.settle("log.csv", "error")


@pytest.mark.parametrize("value", ['"a"z', '"a"z"b"', '"a" z'])
def test_text_after_a_closing_quote_is_one_bad_row(tmp_path: Path, value: str) -> None:
    """It is neither dropped nor joined to the value."""
    path = write(tmp_path / "log.csv", f"user_id,item_id\nb,x\n{value},x\nc,y\n")
    rows, faults, _ = scan(path, time=None)
    assert rows == [("b", "x"), ("c", "y")]
    with pytest.raises(InputError, match=r"1 with text after a closing quote, or .* \(line 3 "):
        faults.settle("log.csv", "error")


def test_blanks_around_a_quoted_value_are_not_part_of_it(tmp_path: Path) -> None:
    """As docs/input.md says; within the quotes they are."""
    path = write(tmp_path / "log.csv", 'user_id,item_id\n"a" ,x\n "b",x\n"  c ", x \n')
    assert scan(path, time=None)[0] == [("a", "x"), ("b", "x"), ("  c ", " x ")]


def test_quotes_within_values_are_characters(tmp_path: Path) -> None:
    """Inches in a value without quotes do not open one."""
    log = write(tmp_path / "log.csv", 'user_id,title,item_id\na,5" screen,1\nb,say "hi",2\nc,6" and 7",3\n')

    assert scan(log)[0] == [("a", "1"), ("b", "2"), ("c", "3")]


def test_every_kind_of_bad_row_is_listed_at_once(tmp_path: Path) -> None:
    """With counts, up to three examples each, and where they are."""
    log = write(
        tmp_path / "log.csv",
        HEADER.encode() + b"a,1,2024-01-01\n,1,2024-01-01\nb,,2024-01-01\nc,1,N/A\nd,1\ne,1,2024-01-01,x\n"
        b"\xff,1,2024-01-01\n,1,2024-01-01\n,1,2024-01-01\n,1,2024-01-01\n,2,soon\n",
    )
    rows, faults, _ = scan(log)

    assert [row[:2] for row in rows] == [("a", "1")]
    assert (faults.rows, faults.bad) == (11, 10)
    with pytest.raises(InputError) as error:
        faults.settle("log.csv", "error")
    assert str(error.value) == (
        "log.csv: 10 of 11 rows cannot be used: 5 without user_id (row 2, row 8, row 9, …); 2 whose timestamp is not a "
        "time (row 4 'N/A', row 11 'soon'); 1 without item_id (row 3); 1 with too few values (line 6 'd,1'); 1 with "
        "too many values (line 7 'e,1,2024-01-01,x'); 1 not UTF-8 (line 8 '?,1,2024-01-01'); correct them, or leave "
        "them out with --on-bad-rows drop"
    )
    faults.settle("log.csv", "drop")


def test_rows_are_counted_with_the_bad_ones(tmp_path: Path) -> None:
    """Stray quotes, blank lines and values of several lines do not shift the row that is named."""
    content = 'user_id,title,item_id\n\na,"x\ny",1\nb,"open,2\nc,z,3\n,z,4\nd,"open,5\n,z,6\n'
    with pytest.raises(InputError, match=r"2 without user_id \(row 4, row 6\); 2 .* never closed \(line 5 .*, line 8 "):
        scan(write(tmp_path / "log.csv", content))[1].settle("log.csv", "error")


def test_long_lines(tmp_path: Path) -> None:
    """A value of several megabytes in a column that is not read is no fault."""
    log = write(tmp_path / "log.csv", f'user_id,html,item_id\na,{"z" * 5_000_000},1\nb,"{"y," * 500_000}",2\n')

    assert scan(log)[0] == [("a", "1"), ("b", "2")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "log.csv is empty; expected a line of column names"),
        (b"\n\n", "log.csv is empty; expected a line of column names"),
        (b"user,item_id\n1,2\n", "has no column 'user_id'; its columns are 'user', 'item_id'; did you mean 'user'?"),
        (b"user_id,user_id,item_id\n1,2,3\n", "has two columns 'user_id'; rename one"),
        (b"\xff,item_id\n1,2\n", "the column names are not UTF-8"),
        ("user_id,item_id\n1,2\n".encode("utf-16"), "is UTF-16, expected UTF-8; save it as UTF-8"),
    ],
    ids=["empty", "blank", "missing", "twice", "latin", "utf-16"],
)
def test_unusable_files(tmp_path: Path, content: bytes, message: str) -> None:
    """One line that names the file."""
    with pytest.raises(InputError) as error:
        scan(write(tmp_path / "log.csv", content))
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "end"), [(gzip.compress(b"a,b\n"), "gz"), (b"\x28\xb5\x2f\xfd\0", "zst")], ids=["gz", "zst"]
)
def test_compressed_without_saying_so(tmp_path: Path, content: bytes, end: str) -> None:
    with pytest.raises(InputError, match=rf"rename it to end in \.{end}"):
        scan(write(tmp_path / "log.csv", content), time=None)


def test_a_note_of_excel(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 1 is a note of Excel on the delimiter; remove it"):
        scan(write(tmp_path / "log.csv", "sep=;\nuser_id;item_id\na;b\n"), time=None)


def test_not_compressed_after_all(tmp_path: Path) -> None:
    """A file that is not what its ending says is an error of ours."""
    with pytest.raises(InputError, match="cannot be read"):
        scan(write(tmp_path / "log.csv.gz", HEADER + "a,1,2024-01-01\n"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "-2"], [1, -2]),
        (["1", "02"], ["1", "02"]),
        (["1E3", "2E4"], ["1E3", "2E4"]),
        (["+1", "2"], ["+1", "2"]),
        (["1", "12345678901234567890"], ["1", "12345678901234567890"]),
        (["9007199254740993", "0.5"], ["9007199254740993", "0.5"]),
        (["19.90", "0.3"], [19.9, 0.3]),
        (["1", ".5"], [1.0, 0.5]),
        (["1e-05", "2.5"], [1e-05, 2.5]),
        (["true", "False"], [True, False]),
        (["yes", "no"], ["yes", "no"]),
        (["2024-02-30", "2024-01-01"], ["2024-02-30", "2024-01-01"]),
        (["10:00", "11:00"], ["10:00", "11:00"]),
        (["NA", "1"], ["NA", "1"]),
    ],
)
def test_columns_of_tables(tmp_path: Path, values: list[str], expected: list[object]) -> None:
    """A column is numbers only if each value is written as one in the way that gives it back."""
    path = write(tmp_path / "items.csv", "item_id,x,y\n" + "".join(f"{n},{x},\n" for n, x in enumerate(values)))
    table = read_table(path, ids=("item_id",))

    assert table["x"].to_pylist() == expected
    assert [type(value) for value in table["x"].to_pylist()] == [type(value) for value in expected]
    assert table["y"].to_pylist() == [None] * len(values)


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6) | st.sampled_from(
    ['"', ",", "\n", "a\r\nb"]
)


@settings(deadline=None)
@given(rows=st.lists(st.tuples(cells, cells, cells), max_size=12), delimiter=st.sampled_from(",;\t|"))
@example(rows=[("00\x80\x80\x80", "0\r\x80\x80\x80", "0000\x80𐀀")], delimiter=",")
def test_what_csv_writes_is_read_back(rows: list[tuple[str, str, str]], delimiter: str) -> None:
    """Whatever text the rows hold; an empty value is a null."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b", "c"), *rows])
    with pytest.MonkeyPatch.context() as patch:
        # So short blocks are cut in the middle of rows and of quoted values.
        patch.setattr("feast_embeddings.reading.lines.BLOCK_BYTES", 16)
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder) / "t.csv", text.getvalue())
            table = read_table(path, as_text=("a", "b", "c"))
    assert [tuple(row.values()) for row in table.to_pylist()] == [tuple(cell or None for cell in row) for row in rows]


@pytest.mark.parametrize("blank", ["", "\n\r\n"])
@pytest.mark.parametrize("ends", [["\n"], ["\r\n"], ["\r\r\n"], ["\n", "\r\n"], ["\r\n", "\n", "\r\r\n"]])
def test_line_ends(tmp_path: Path, ends: list[str], blank: str) -> None:
    """Files put together of several, and those that Windows wrote twice over; blank lines before the names too."""
    lines = ["user_id,item_id", "a,x", '"b\nc\r\nd",y', "", "e,z", '"f\rg",z', "h", "i,x,y", "j,x", ",z"]
    text = blank + "".join(line + ends[n % len(ends)] for n, line in enumerate(lines))
    rows, faults, _ = scan(write(tmp_path / "log.csv", text), time=None)
    assert rows == [("a", "x"), ("b\nc\r\nd", "y"), ("e", "z"), ("f\rg", "z"), ("j", "x")]
    assert faults.counts == {"with too few values": 1, "with too many values": 1, "without user_id": 1}
    before = blank.count("\n")
    places = rf"\(row 8\).*\(line {before + 9} 'h'\).*\(line {before + 10} 'i,x,y'\)"
    with pytest.raises(InputError, match=places):
        faults.settle("log", "error")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n"])
def test_a_stray_carriage_return(tmp_path: Path, end: str) -> None:
    """It makes its own line a bad row, and no other."""
    lines = ["user_id,item_id,title", "a,x,1", "b,y\rz,2", '"c\rd",x,3', 'e,"x""",4\r5', "f,x,6"]
    rows, faults, _ = scan(write(tmp_path / "log.csv", end.join(lines)), time=None)
    assert rows == [("a", "x"), ("c\rd", "x"), ("f", "x")]
    assert (faults.rows, faults.counts) == (5, {"with a stray carriage return": 2})
    with pytest.raises(InputError, match=r"\(line 3 'b,y\\rz,2', line 5 "):
        faults.settle("log", "error")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16", "utf-32"])
def test_other_encodings(tmp_path: Path, encoding: str) -> None:
    """One line says so, with a mark or without."""
    path = write(tmp_path / "log.csv", "user_id,item_id\na,x\n".encode(encoding))
    with pytest.raises(InputError, match=r"UTF-16.*save it as UTF-8"):
        scan(path, time=None)
