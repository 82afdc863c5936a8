"""The user's own files: what is understood, and one clear line for everything that is not."""

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab.data import DataError, corpus

ROWS = [{"prompt": f"Question {n}?", "response": f"Answer {n}, with “quotes”\nand lines."} for n in range(20)]


def rows_of(made):
    return [row for rows in made.splits.values() for row in rows]


def same(made, rows):
    key = lambda row: sorted(row.items())  # noqa: E731
    return sorted(rows_of(made), key=key) == sorted(rows, key=key)


@pytest.fixture
def write(tmp_path):
    """Write text or bytes to a file of that name and return its path as the user would type it."""

    def to(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return to


def quoted(rows, mark=","):
    def cell(text):
        return '"' + text.replace('"', '""') + '"'

    lines = [list(rows[0]), *(row.values() for row in rows)]
    return "\n".join(mark.join(map(cell, line)) for line in lines) + "\n"


def parquet(rows, path):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", quoted(ROWS)),
        ("A.CSV", quoted(ROWS)),
        ("a.csv", quoted(ROWS, ";")),
        ("a.tsv", quoted(ROWS, "\t")),
        ("a.csv", "\ufeff" + quoted(ROWS)),
        ("a.csv", quoted(ROWS).replace("\n", "\r\n")),
        ("a.csv", quoted(ROWS) + "\n\n"),
        ("a.jsonl", "\n".join(json.dumps(row) for row in ROWS)),
        ("a.jsonl", "\ufeff" + "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)),
        ("a.json", json.dumps(ROWS, indent=1)),
    ],
)
def test_every_kind_of_file_gives_its_rows(write, name, content):
    made = corpus(write(name, content))
    assert same(made, ROWS) and made.columns == ("prompt", "response")
    assert set(made.splits) == {"train", "validation", "test"} and name in made.source


def test_parquet_gives_its_rows(tmp_path):
    path = parquet([row | {"id": n, "score": 0.5} for n, row in enumerate(ROWS)], tmp_path / "a.parquet")
    assert same(corpus(path), ROWS)


def test_paragraphs_of_a_txt_are_documents(write):
    text = "First,\r\nin two lines.\r\n\r\n \t\r\n\r\nSecond.\n\nThird.\n\n\nFirst,\nin two lines.\n"
    made = corpus(write("a.txt", text))
    assert sorted(row["text"] for row in rows_of(made)) == [
        "First,\nin two lines.", "First,\nin two lines.", "Second.", "Third."
    ]  # fmt: skip
    homes = [{row["text"] for row in rows} for rows in made.splits.values()]
    assert sum(map(len, homes)) == 3  # the repeated paragraph is in one split


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(alphabet="ab ,;\"'\n\té€\u2028😀", min_size=1), min_size=3, max_size=9, unique=True))
def test_any_text_survives_csv_and_jsonl(tmp_path_factory, texts):
    texts = [text for text in texts if text.strip()]
    if len(set(texts)) < 3:
        return
    rows = [{"text": text} for text in texts]
    folder = tmp_path_factory.mktemp("texts")
    (folder / "a.csv").write_bytes(quoted(rows).encode())
    (folder / "a.jsonl").write_bytes("\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode())
    assert same(corpus(folder / "a.csv"), rows) and same(corpus(folder / "a.jsonl"), rows)


def test_columns_are_renamed_and_unknown_ones_ignored(write):
    rows = [{"id": n, "question": r["prompt"], "answer": r["response"]} for n, r in enumerate(ROWS)]
    made = corpus(write("a.json", json.dumps(rows)), columns={"question": "prompt", "answer": "response"})
    assert same(made, ROWS)
    again = corpus(made.name, **json.loads(json.dumps(dict(made.options))))
    assert again.fingerprint == made.fingerprint


def test_columns_may_be_swapped(write):
    made = corpus(write("a.json", json.dumps(ROWS)), columns={"prompt": "response", "response": "prompt"})
    assert same(made, [{"prompt": row["response"], "response": row["prompt"]} for row in ROWS])


def test_labels_may_be_numbers(write):
    rows = [{"text": f"t{n}", "label": n % 2} for n in range(9)]
    assert {row["label"] for row in rows_of(corpus(write("a.json", json.dumps(rows))))} == {"0", "1"}


def test_rows_with_the_same_prompt_are_in_one_split(write):
    rows = [{"prompt": f"p{n % 5}", "chosen": f"c{n}", "rejected": "r"} for n in range(50)]
    splits = corpus(write("a.json", json.dumps(rows))).splits
    assert sum(len({row["prompt"] for row in held}) for held in splits.values()) == 5


def test_a_folder_of_texts_keeps_each_file_in_one_split(write, tmp_path):
    for n in range(12):
        write(f"texts/{n}.txt", "\n\n".join(f"File {n}, paragraph {p}." for p in range(4)))
    write("texts/notes.md", "not read")
    made = corpus(tmp_path / "texts")
    assert len(rows_of(made)) == 48 and made.columns == ("text",)
    files = [{row["text"].split(",")[0] for row in rows} for rows in made.splits.values()]
    assert sum(map(len, files)) == 12


def test_two_texts_are_split_by_paragraph_and_repeats_come_once(write, tmp_path):
    for name in "ab":
        write(f"texts/{name}.txt", "Both.\n\n" + "\n\n".join(f"{name} {p}" for p in range(9)))
    assert len(rows_of(corpus(tmp_path / "texts"))) == 19


def test_named_splits_are_used_as_they_are(write, tmp_path):
    for name, rows in (("train", ROWS[:10]), ("val", ROWS[10:15]), ("test", ROWS[15:])):
        write(f"d/{name}.jsonl", "\n".join(map(json.dumps, rows)))
    made = corpus(tmp_path / "d")
    assert list(made.splits.items()) == [
        ("train", ROWS[:10]),
        ("validation", ROWS[10:15]),
        ("test", ROWS[15:]),
    ]


def test_a_split_without_a_file_is_drawn_from_train(write, tmp_path):
    write("d/train.csv", quoted(ROWS[:15]))
    write("d/test.json", json.dumps(ROWS[15:]))
    made = corpus(tmp_path / "d")
    assert made["test"] == ROWS[15:] and same(made, ROWS) and made["validation"]


def test_rows_in_both_train_and_test_are_told_of(write, tmp_path):
    write("d/train.csv", quoted(ROWS))
    write("d/test.csv", quoted(ROWS[:4]))
    with pytest.warns(UserWarning, match=r"4 of 4 test rows are also in train"):
        corpus(tmp_path / "d")


HEAD = "prompt,response\n"
BAD = [
    ("empty.txt", "", "the file is empty; add"),
    ("blank.txt", " \n\n \r\n", "the file is empty; add"),
    ("bom.txt", "\ufeff", "no example; add"),
    ("header.csv", HEAD, "no example; add"),
    ("list.json", "[]", "no example; add"),
    ("latin.csv", HEAD.encode() + b"caf\xe9,b\n", "byte 19 (0xE9) is not UTF-8; save the file"),
    ("marked.txt", b"\xef\xbb\xbfa\xff", "byte 4 (0xFF) is not UTF-8; save"),
    ("utf16.txt", "text".encode("utf-16"), "(it looks like UTF-16); save"),
    ("notes.docx", "x", 'the ending ".docx" is not known; use one of .txt'),
    ("notes", "x", "a name without ending is not known; use one of"),
    ("ragged.csv", HEAD + 'a,"b\nb"\nc,d,e\n', 'row 2 (line 4): 3 cells where the header has 2; put double'),
    ("short.tsv", "prompt\tresponse\na\n", "row 1 (line 2): 1 cells where the header has 2; put"),
    ("open.csv", HEAD + 'a,"b\n', "line 2: unexpected end of data; close the double quotes"),
    ("twice.csv", "text,text\na,b\n", 'line 1: the column "text" comes twice; rename'),
    ("bad.jsonl", '{"text": "a"}\n\n{"text": b}\n', "row 2 (line 3): not JSON (Expecting value at char"),
    ("deep.jsonl", "[" * 100_000, "row 1 (line 1): not JSON (nested too deeply); write"),
    ("kind.jsonl", '{"text": "a"}\n["b"]\n', "row 2 (line 2): an object such as"),
    ("bad.json", '[{"text": "a"},\n{"text"}]', "line 2: not JSON"),
    ("lines.json", '{"text": "a"}\n{"text": "b"}', "call it .jsonl"),
    ("object.json", '{"text": "a"}', "a list of objects is needed, here is an object; put [ and ]"),
    ("lack.jsonl", '{"text": "a"}\n{"txt": "b"}', 'row 2 (line 2), column "text": the row lacks it; add it'),
    ("number.jsonl", '{"text": "a"}\n{"text": 5}', 'row 2 (line 2), column "text": text is needed, here is'),
    ("list.jsonl", '{"text": "a"}\n{"text": ["b"]}', 'column "text": text is needed, here is list; write'),
    ("null.jsonl", '{"text": "a"}\n{"text": null}', 'row 2 (line 2), column "text": it is empty; fill it in'),
    ("void.csv", HEAD + "a,b\nc, \n", 'row 2 (line 3), column "response": it is empty; fill it in'),
    ("half.jsonl", '{"text": "a"}\n{"text": "\\ud83d"}', 'row 2 (line 2), column "text": it holds half'),
    ("columns.csv", "question,answer\na,b\n", "(question, answer) are none of: text; prompt, response;"),
    ("lonely.csv", "prompt,note\na,b\n", "(prompt, note) are none of"),
    ("one.txt", "One paragraph.", "one example, which cannot be split; give three"),
    ("two.txt", "One.\n\nTwo.", "2 different documents cannot fill 3 splits"),
    ("fake.parquet", "PAR1 but no parquet", "not a parquet file that can be read"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "words"), BAD, ids=[name for name, *_ in BAD])
def test_a_bad_file_says_where_and_the_way_out_in_one_line(write, name, content, words):
    with pytest.raises(DataError) as caught:
        corpus(write(name, content))
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith(write(name, content))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"d/a.md": "x"}, "no .txt file and no train file"),
        ({"d/test.csv": HEAD + "a,b\n"}, "it has test.csv but no train file; add one"),
        (
            {"d/train.csv": HEAD, "d/train.txt": "a"},
            "train.csv and train.txt both hold the train split; keep one",
        ),
        ({"d/train.txt": "a\n\nb"}, "2 different documents cannot fill 3 splits"),
        ({"d/only.txt": "a"}, "one example, which cannot be split"),
    ],
)
def test_a_bad_folder_says_so_in_one_line(write, tmp_path, files, words):
    for name, content in files.items():
        write(name, content)
    with pytest.raises(DataError) as caught:
        corpus(tmp_path / "d")
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"promt": "text"}, 'no column "promt" to rename. Did you mean "prompt"? It has prompt, response.'),
        ({"prompt": "response"}, 'renaming "prompt" to "response" would hide the column "response"'),
    ],
)
def test_a_bad_renaming_says_so(write, columns, words):
    with pytest.raises(DataError) as caught:
        corpus(write("a.json", json.dumps(ROWS)), columns=columns)
    assert words in str(caught.value)


def test_a_missing_file_names_the_nearest(write, tmp_path):
    write("reviews.csv", quoted(ROWS))
    with pytest.raises(DataError, match=r'no such file or folder\. Did you mean "reviews.csv"\?'):
        corpus(tmp_path / "review.csv")
    with pytest.raises(DataError, match="there is no folder"):
        corpus(tmp_path / "nowhere" / "review.csv")


def test_without_pyarrow_there_is_one_line(monkeypatch, write):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="needs pyarrow: python -m pip install pyarrow"):
        corpus(write("a.parquet", "x"))
