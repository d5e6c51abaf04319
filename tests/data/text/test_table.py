"""Tables of texts. Truth: the bytes that the test wrote, and the line of its mistake."""

import numpy as np
import pytest

from jaxdiff.data import text


def written(home, name, content):
    path = home / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_tabs_by_name(tmp_path):
    """Quotes are letters like others; spaces around are not; a blank line is none."""
    path = written(tmp_path, "a.tsv", 'id\tlabel\ttext\n1\tbad\t"so" bad \n\n2\tgood\tfine, é\n')
    data = text.load(path)
    assert data.texts == ('"so" bad', "fine, é")
    assert data.classes == ("bad", "good")
    assert data.labels.tolist() == [0, 1]
    assert data.labels.dtype == np.int32
    assert data.name == "a.tsv"


def test_commas_with_quotes(tmp_path):
    path = written(tmp_path, "a.csv", '\ufefftext,label\n"one, ""two""\nthree",x\nfour,y\n')
    data = text.load(path)
    assert data.texts == ('one, "two"\nthree', "four")
    assert data.labels.tolist() == [0, 1]


def test_by_number(tmp_path):
    path = written(tmp_path, "a.tsv", "0\tfirst\r\n1\tsecond\r\n")
    data = text.load(path, text="1", label="0")
    assert data.texts == ("first", "second")
    assert data.classes == ("0", "1")


def test_known_classes_keep_their_places(tmp_path):
    path = written(tmp_path, "a.tsv", "text\tlabel\nt\tz\n")
    data = text.load(path, classes=("z", "a"))
    assert data.classes == ("z", "a")
    assert data.labels.tolist() == [0]


def test_texts_alone(tmp_path):
    path = written(tmp_path, "a.tsv", "text\tlabel\none\t\ntwo\tx\n")
    assert text.read_texts(path) == ("one", "two")


MISTAKES = {
    "no label": ("text\tlabel\na\tx\nb\t \n", r"line 3 has no label"),
    "empty text": ("text\tlabel\na\tx\n \ty\n", r"line 3 has an empty text"),
    "too few columns": ("text\tlabel\na\tx\nb\n", r"line 3 must have 2 columns, got 1"),
    "too many columns": ("text\tlabel\na\tx\nb\tc\ty\n", r"line 3 must have 2 columns, got 3"),
    "no such column": ("words\tlabel\na\tx\n", r"line 1 must name a column 'text' once, got words"),
    "twice": ("text\ttext\tlabel\na\tx\ty\n", r"line 1 must name a column 'text' once"),
    "nothing": ("", r"holds no texts"),
    "a header alone": ("text\tlabel\n", r"holds no texts"),
    "one class": ("text\tlabel\na\tx\nb\tx\n", r"two classes or more, got only 'x'"),
    "other encoding": ("text\tlabel\na\tx\nb\u00e9\ty\n".encode("latin-1"), r"line 3 is not UTF-8"),
}


@pytest.mark.parametrize(("content", "message"), MISTAKES.values(), ids=list(MISTAKES))
def test_mistakes_name_the_line(content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        text.load(written(tmp_path, "a.tsv", content))


def test_an_open_quote(tmp_path):
    path = written(tmp_path, "a.csv", 'text,label\nfine,x\n"open,y\n')
    with pytest.raises(ValueError, match=r"line 3: unexpected end of data"):
        text.load(path)


def test_columns_by_number_that_are_not_there(tmp_path):
    path = written(tmp_path, "a.tsv", "a\tx\n")
    with pytest.raises(ValueError, match=r"line 1 must have 3 columns, got 2"):
        text.load(path, text="2", label="0")
    with pytest.raises(ValueError, match=r"all names or all numbers, got text and 1"):
        text.load(path, label="1")


def test_an_unknown_label(tmp_path):
    path = written(tmp_path, "a.tsv", "text\tlabel\na\tx\nb\tnew\n")
    with pytest.raises(ValueError, match=r"line 3 has label 'new', must be one of x, y"):
        text.load(path, classes=("x", "y"))


def test_no_file_and_no_kind(tmp_path):
    with pytest.raises(FileNotFoundError):
        text.load(tmp_path / "none.tsv")
    with pytest.raises(ValueError, match=r"data must be a .tsv, .csv or .txt table"):
        text.load(tmp_path / "a.json")
