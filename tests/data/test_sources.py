"""Every form of data gives the same samples, names and labels."""

import os
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image as Pillow

from selfsup.data import open_source
from selfsup.data.names import Names
from selfsup.errors import SelfsupError
from selfsup.evaluate import tasks
from tests.data.pictures import encoded, pixels, write


def decoded(source, image, size=64):
    return [image.read(source.read(i)) for i in range(len(source))]


def test_a_folder_is_listed_in_the_byte_order_of_its_names(tmp_path):
    names = ["b.png", "a/z.png", "a.png", "a/b/c.png", "a0.png", "Ä.png", "a-b/x.png"]
    source = open_source(write(tmp_path, {name: encoded(1) for name in names}))
    assert [source.name(i) for i in range(len(source))] == sorted(names, key=os.fsencode)


def test_only_files_of_the_main_kind_are_samples(tmp_path):
    files = {f"{i}.jpg": encoded(i, form="JPEG") for i in range(3)}
    files |= {"notes.txt": b"hello", "labels.csv": b"path,label\n", ".hidden.jpg": encoded(9)}
    files |= {"noname": encoded(5), "noise": os.urandom(64), ".git/x.jpg": encoded(8)}
    source = open_source(write(tmp_path, files))
    assert [source.name(i) for i in range(len(source))] == ["0.jpg", "1.jpg", "2.jpg", "noname"]
    assert source.content == "image"
    assert source.ignored == {"hidden": 2, "no extension": 1, "text": 1, "table": 1}


def test_tables_beside_files_are_pointed_to(tmp_path):
    """Neither is taken unasked: captions make pairs of pictures, and labels are for judging."""
    rows = [f"{i % 6}.png,a dog number {i} runs on the grass,{i // 6},train" for i in range(12)]
    captions = "\n".join(["image,caption,number,split", *rows]).encode()
    shapes = "\n".join(["file,shape,size", *(f"{i}.png,{'ab'[i % 2]},{i}" for i in range(6))])
    labels = "\n".join(["file,label", *(f"{i}.png,{i % 2}" for i in range(6))])
    files = {f"{i}.png": encoded(i) for i in range(6)}
    files |= {"a.csv": captions, "b.csv": shapes.encode(), "c.csv": labels.encode()}
    files |= {"d.csv": b"when,what\n1,2\n", "e.csv": b"", "f.csv": b"file,x\n0.png,\xff\x00"}
    source = open_source(write(tmp_path, files))
    assert len(source) == 6 and source.content == "image"
    assert source.notes == [
        f"a.csv has texts for these files: to learn from both, give {tmp_path}/a.csv",
        f"b.csv tells shape of these files: evaluate with --labels {tmp_path}/b.csv:COLUMN",
        f"c.csv has classes of these files: evaluate with --labels {tmp_path}/c.csv",
    ]
    assert open_source(tmp_path / "a.csv").content == "pairs"
    assert open_source(tmp_path, labels=f"{tmp_path}/b.csv:shape").labels()[1] == ["a", "b"]


@pytest.mark.parametrize("beside", [True, False])
def test_folds_are_a_column_of_the_table(tmp_path, beside):
    """Of the table of labels, wherever it lies, or of the one that is the data."""
    rows = [f"{'' if beside else 'audio/'}{i}.png,{i % 3 + 1},{'ab'[i % 2]}" for i in range(6)]
    table = "\n".join(["filename,fold,category", *rows]).encode()
    files = {f"audio/{i}.png": encoded(i) for i in range(6)}
    write(tmp_path, files | {"meta/about.csv" if beside else "about.csv": table})
    table = tmp_path / ("meta/about.csv" if beside else "about.csv")
    source = open_source(tmp_path, labels=table) if beside else open_source(table)
    names = [[source.name(i) for i in fold] for fold in source.folds()]
    assert [{name[-5] for name in fold} for fold in names] == [{"0", "3"}, {"1", "4"}, {"2", "5"}]
    assert tasks.suggested("image", tmp_path if beside else table, table) == "folds"
    table.write_bytes(table.read_bytes().replace(b"fold", b"split"))
    assert tasks.suggested("image", tmp_path if beside else table, table) == "classify"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_a_file_without_extension_is_known_by_its_first_bytes(tmp_path, form):
    source = open_source(write(tmp_path, {"download": encoded(1, form=form)}))
    assert source.content == "image"


def test_labels_are_the_folders_below_those_that_all_share(tmp_path):
    names = ["top/cat/1.png", "top/dog/b/2.png", "top/cat/3.png", "top/4.png"]
    source = open_source(write(tmp_path, {name: encoded(1) for name in names}))
    numbers, classes = source.labels()
    assert classes == ["cat", "dog"]
    labels = {source.name(i): numbers[i] for i in range(4)}
    assert labels == {"top/4.png": -1, "top/cat/1.png": 0, "top/cat/3.png": 0, "top/dog/b/2.png": 1}


def test_train_and_test_are_parts_and_not_classes(tmp_path):
    names = ["train/cat/1.png", "test/cat/1.png", "train/dog/1.png"]
    source = open_source(write(tmp_path, {name: encoded(1) for name in names}))
    assert source.labels()[1] == ["cat", "dog"]
    parts, part_names = source.splits()
    assert [part_names[p] for p in parts] == ["test", "train", "train"]


ABOUT = ("LICENSE_NOTE.txt", "README.md", "Licence", "NOTICE.txt", "CITATION.bib", "a.txt.md5",
         "SHA256SUMS", "readme")  # fmt: skip


@pytest.mark.parametrize("above", ["", "corpus/", "corpus/all/"])
def test_what_tells_about_the_data_is_no_sample(above, tmp_path):
    names = ["train/a.txt", "train/README.md", "test/b.txt", *ABOUT]
    source = open_source(write(tmp_path, {above + name: b"some words" for name in names}))
    assert [source.name(i).removeprefix(above) for i in range(len(source))] == [
        "test/b.txt",
        "train/README.md",  # in a folder of samples it is one
        "train/a.txt",
    ]
    assert source.splits()[1] == ["test", "train"] and source.labels() is None
    assert source.ignored == {"about the data": len(ABOUT)}


def test_samples_with_such_names_stay_samples(tmp_path):
    names = ("license_0001.txt", "notice-12.txt", "citations.txt", "readme2.txt")
    assert len(open_source(write(tmp_path / "texts", dict.fromkeys(names, b"some words")))) == 4
    pictures = {"LICENSE.png": encoded(0), "readme.jpg": encoded(1, form="JPEG")}
    assert len(open_source(write(tmp_path / "pictures", pictures))) == 2
    with pytest.raises(SelfsupError, match="1 about the data"):
        open_source(write(tmp_path / "none", {"README.md": b"nothing here"}))


def test_a_folder_of_tables(tmp_path):
    rows = b"text,label\n" + b"".join(b"these are some words %d,1\n" % i for i in range(12))
    write(tmp_path / "one", {"LICENSE": b"", "a.csv": rows, "other.csv": b"a,b\nx,y\n"})
    assert len(open_source(tmp_path / "one")) == 12
    write(tmp_path / "parts", {"reviews_train.csv": rows, "reviews_test.csv": rows})
    source = open_source(tmp_path / "parts")
    assert len(source) == 24 and source.splits()[1] == ["test", "train"]
    write(tmp_path / "several", {"a.csv": rows, "b.csv": rows})
    with pytest.raises(SelfsupError, match=r"found a.csv, b.csv") as caught:
        open_source(tmp_path / "several")
    assert caught.value.code == "E104" and "give one of them" in str(caught.value)
    molecules = b"smiles,label\nCCO,1\nCC,0\n"
    write(tmp_path / "molecules", {"a.csv": molecules, "b.csv": molecules})
    with pytest.raises(SelfsupError, match="give one of them"):
        open_source(tmp_path / "molecules")
    assert len(open_source(tmp_path / "molecules" / "a.csv")) == 2


def test_a_flat_folder_has_no_labels(tmp_path):
    assert open_source(write(tmp_path, {"1.png": encoded(1)})).labels() is None


def test_the_fingerprint_sees_what_changes(folder):
    before = open_source(folder).fingerprint()
    assert open_source(folder).fingerprint() == before
    write(folder, {"b/new.png": encoded(99)})
    added = open_source(folder).fingerprint()
    os.utime(folder / "a" / "00.png", ns=(1, 1))
    rewritten = open_source(folder).fingerprint()
    os.rename(folder / "b" / "new.png", folder / "b" / "newer.png")
    renamed = open_source(folder).fingerprint()
    assert len({before, added, rewritten, renamed}) == 4


def test_a_table_names_files_and_gives_labels(tmp_path, image):
    write(tmp_path, {"x/1.png": encoded(1), "x/2.png": encoded(2), "x/3.png": encoded(3)})
    table = tmp_path / "train.csv"
    table.write_text('path,label,split\nx/2.png,"a, b",train\nx/1.png,c,test\ngone.png,c,test\n')
    source = open_source(table)
    assert [source.name(i) for i in range(2)] == ["x/2.png", "x/1.png"]
    np.testing.assert_array_equal(image.read(source.read(0)), pixels(2))
    numbers, classes = source.labels()
    assert [classes[n] for n in numbers] == ["a, b", "c"]
    assert [p["code"] for p in source.problems] == ["missing"]
    assert source.splits()[1] == ["test", "train"]


@pytest.mark.parametrize("prefix", ["", "photos/"])
def test_a_table_beside_a_folder_gives_its_labels(folder, prefix):
    table = folder.parent / "labels.csv"
    table.write_text("file,class\n" + f"{prefix}a/00.png,7\n{prefix}b/01.png,10\n")
    source = open_source(folder, labels=table)
    numbers, classes = source.labels()
    assert classes == ["7", "10"]  # as numbers, not as text
    assert {source.name(i): classes[n] for i, n in enumerate(numbers) if n >= 0} == {
        "a/00.png": "7",
        "b/01.png": "10",
    }


def test_a_table_may_name_files_from_another_folder_and_have_its_own_column(folder, tmp_path):
    table = tmp_path / "about" / "meta.csv"
    rows = "".join(f"{i:02d}.png,{i % 3},{i % 5}\n" for i in range(20))
    write(tmp_path, {"about/meta.csv": b"filename,digit,who\n" + rows.encode()})
    with pytest.raises(SelfsupError, match=r"meta\.csv:COLUMN"):
        open_source(folder, labels=table).labels()
    numbers, classes = open_source(folder, labels=f"{table}:Who").labels()
    files = [*range(0, 20, 2), *range(1, 20, 2)]  # of a/, then of b/
    assert classes == list("01234") and numbers.tolist() == [i % 5 for i in files]
    with pytest.raises(SelfsupError, match="has no column what"):
        open_source(folder, labels=f"{table}:what").labels()
    with pytest.raises(SelfsupError, match="no table at"):
        open_source(folder, labels=f"{table}x:who").labels()
    odd = table.with_name("meta:who")  # a name of its own
    odd.write_bytes(b"path,label\na/00.png,x\n")
    assert open_source(folder, labels=odd).labels()[1] == ["x"]


def test_a_table_that_names_nothing_of_the_data_is_an_error(folder):
    table = folder.parent / "labels.csv"
    table.write_text("path,label\nelsewhere.png,7\n")
    with pytest.raises(SelfsupError, match="no row") as error:
        open_source(folder, labels=table).labels()
    assert error.value.exit_code == 65


def test_parquet_with_image_bytes(tmp_path, image):
    cells = [encoded(i) for i in range(7)]
    for name, column in {
        "plain": pa.array(cells),
        "nested": pa.array([{"bytes": c, "path": "x"} for c in cells]),
    }.items():
        table = pa.table({"image": column, "label": [0, 1, 0, 1, -1, 1, 10]})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=3)
        source = open_source(tmp_path / f"{name}.parquet")
        for i, sample in enumerate(decoded(source, image)):
            np.testing.assert_array_equal(sample, pixels(i))
        numbers, classes = source.labels()
        assert classes == ["0", "1", "10"] and numbers.tolist() == [0, 1, 0, 1, -1, 1, 2]
    both = open_source(tmp_path)
    assert len(both) == 14
    assert len({both.name(i) for i in range(14)}) == 14
    assert both.name(13) == "plain.parquet#6"


def test_an_array_is_used_where_it_lies(tmp_path):
    array = np.stack([pixels(i) for i in range(5)])
    source = open_source(array)
    assert np.shares_memory(source.read(3), array)
    np.save(tmp_path / "x.npy", array)
    np.testing.assert_array_equal(open_source(tmp_path / "x.npy").read(3), array[3])
    np.savez(tmp_path / "x.npz", images=array, labels=np.array([3, 1, 3, 1, 20]))
    source = open_source(tmp_path / "x.npz")
    np.testing.assert_array_equal(source.read(3), array[3])
    assert source.labels()[1] == ["1", "3", "20"]
    channels_first = torch.from_numpy(array).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(open_source(channels_first).read(2), array[2])


def test_an_array_of_python_objects_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(SelfsupError) as error:
        open_source(tmp_path / "x.npy")
    assert error.value.code == "E106"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_archive_of_arrays_is_told(tmp_path, save):
    """Cut anywhere, or with any byte wrong: read as it is, or an error with an id."""
    path = tmp_path / "x.npz"
    save(path, images=np.zeros((3, 4, 4), np.uint8))
    whole = path.read_bytes()
    cut = [whole[:end] for end in range(1, len(whole), 7)]
    wrong = [
        whole[:i] + bytes([whole[i] ^ bits]) + whole[i + 1 :]
        for i in range(len(whole))
        for bits in (1, 255)
    ]
    codes = set()
    for content in cut + wrong:
        path.write_bytes(content)
        try:
            open_source(path)
        except SelfsupError as error:
            codes.add(error.code)
    assert "E106" in codes and codes <= {"E104", "E106"}


def test_an_archive_of_arrays_larger_than_memory_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((1000, 32, 32), np.uint8))
    free = SimpleNamespace(available=1 << 19)
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    with pytest.raises(SelfsupError, match="announces more") as error:
        open_source(tmp_path / "x.npz")
    assert error.value.code == "E104"


def test_a_container_may_hold_less_than_the_machine(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((1000, 32, 32), np.uint8))
    places = [tmp_path / "none", tmp_path / "max"]
    monkeypatch.setattr("selfsup.machine.LIMITS", places)
    for limit in ("max", "9223372036854771712"):
        places[1].write_text(limit)
        assert len(open_source(tmp_path / "x.npz")) == 1000
    places[1].write_text("1000000")
    with pytest.raises(SelfsupError, match="announces more"):
        open_source(tmp_path / "x.npz")


@pytest.mark.parametrize("pattern", ["pipe", "p*e", "pipe.tar"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, pattern):
    os.mkfifo(tmp_path / pattern.replace("*", "ip"))
    with pytest.raises(SelfsupError, match="neither a file nor a folder") as caught:
        open_source(tmp_path / pattern)
    assert caught.value.code == "E104"


class Pairs:
    """A map-style dataset as torchvision has them."""

    classes = ("zero", "one")

    def __init__(self, form):
        self.form = form

    def __len__(self):
        return 4

    def __getitem__(self, i):
        if i >= 4:
            raise IndexError
        return self.form(i), i % 2


@pytest.mark.parametrize(
    "form",
    [
        lambda i: Pillow.fromarray(pixels(i)),
        lambda i: pixels(i),
        lambda i: torch.from_numpy(pixels(i)).permute(2, 0, 1),
        lambda i: torch.from_numpy(pixels(i)).permute(2, 0, 1) / 255,
        encoded,
        lambda i: {"bytes": encoded(i), "path": None},
    ],
    ids=["pil", "array", "tensor", "float", "bytes", "cell"],
)
def test_any_object_with_length_and_items(form, image):
    source = open_source(Pairs(form))
    for i, sample in enumerate(decoded(source, image)):
        np.testing.assert_array_equal(sample, pixels(i))
    numbers, classes = source.labels()
    assert classes == ["zero", "one"] and numbers.tolist() == [0, 1, 0, 1]
    assert source.fingerprint() == open_source(Pairs(form)).fingerprint()


def test_dictionaries_as_items(image):
    rows = [{"label": "b", "image": pixels(0)}, {"label": "a", "image": pixels(1)}]
    source = open_source(rows)
    np.testing.assert_array_equal(image.read(source.read(1)), pixels(1))
    assert source.labels()[1] == ["a", "b"]


def test_a_list_of_paths_and_a_single_file(folder, image):
    paths = [folder / "b" / "03.png", folder / "a" / "00.png"]
    source = open_source(paths)
    np.testing.assert_array_equal(image.read(source.read(0)), pixels(3))
    assert source.name(1) == str(paths[1])
    assert len(open_source(paths[0])) == 1


def test_nothing_there(tmp_path):
    with pytest.raises(SelfsupError) as error:
        open_source(tmp_path / "absent")
    assert (error.value.code, error.value.exit_code) == ("E101", 66)
    for build in (lambda: None, lambda: (tmp_path / "only.cls.json.lock").write_text("x")):
        build()
        with pytest.raises(SelfsupError) as error:
            open_source(tmp_path)
        assert (error.value.code, error.value.exit_code) == ("E102", 66)
    assert "1 lock" in error.value.why
    with pytest.raises(SelfsupError) as error:
        open_source([])
    assert error.value.code == "E102"
    with pytest.raises(SelfsupError) as error:
        open_source(17)
    assert error.value.code == "E104"


def test_names_cost_their_own_length():
    names = Names(b"folder/%06d.jpg" % i for i in range(10_000))
    assert names.nbytes < 10_000 * (17 + 9)
    assert names[9_999] == b"folder/009999.jpg" and len(names) == 10_000
    assert list(names.take(np.array([2, 1]))) == [b"folder/000002.jpg", b"folder/000001.jpg"]
