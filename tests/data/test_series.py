"""Tables and archives of series: what is recognised, and what becomes of faults (D17)."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from selfsup.data import open_source
from selfsup.data.series import PARTS, Piece, Recordings, bounds, is_series
from selfsup.errors import SelfsupError

NAN = float("nan")


def wide(path, rows, header="date,load,temperature", line="2020-01-01 {:02d}:00:00,{},{}\n"):
    path.write_text(header + "\n" + "".join(line.format(*row) for row in rows))
    return str(path)


def test_a_table_of_steps_is_one_recording(tmp_path):
    rows = [(hour, hour * 1.5, -hour) for hour in range(24)]
    source = open_source(wide(tmp_path / "a.csv", rows))
    assert isinstance(source, Recordings) and source.content == "series"
    assert source.columns == ["load", "temperature"]
    expected = np.array([row[1:] for row in rows], np.float32)
    np.testing.assert_array_equal(source.series[0], expected)
    assert source.labels() is None and source.notes == []


def test_rows_out_of_order_twice_and_left_out(tmp_path):
    hours = [0, 1, 3, 2, 3, 6, 7, 8, 9]
    rows = [(hour, hour + 100 * i, 1) for i, hour in enumerate(hours)]
    source = open_source(wide(tmp_path / "a.csv", rows))
    found = source.series[0][:, 0]
    assert len(found) == 10 and np.isnan(found[[4, 5]]).all()
    assert found[3] == 3 + 200 and found[2] == 2 + 300  # of two rows at 3:00 the first
    notes = " ".join(source.notes)
    assert "sorted" in notes and "repeat" in notes and "2 steps are left out" in notes


def test_missing_infinite_constant_and_empty_columns_are_kept_and_told(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b,c\n" + "".join(f"{i if i % 3 else 'NaN'},7,\n" for i in range(40)))
    with path.open("a") as file:
        file.write("inf,7,?\n")
    source = open_source(str(path))
    values = source.series[0]
    assert values.shape == (41, 3) and np.isnan(values[:, 2]).all() and np.isnan(values[-1, 0])
    notes = " ".join(source.notes)
    assert "missing" in notes and "b never changes" in notes and "c has no values" in notes


def test_decimal_commas_and_rows_of_another_length(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("t;x\n" + "".join(f"{i};{i},25\n" for i in range(30)) + "1;2;3\n")
    source = open_source(str(path))
    np.testing.assert_array_equal(source.series[0][:, 0], np.arange(30, dtype=np.float32) + 0.25)
    assert any("another number of cells" in note for note in source.notes)


def test_words_among_numbers_are_missing(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,y\n" + "".join(f"{i},{i}\n" for i in range(40)) + "broken,1\n")
    source = open_source(str(path))
    assert np.isnan(source.series[0][-1, 0]) and source.series[0][-1, 1] == 1
    assert any("1 cells are no numbers" in note for note in source.notes)


def test_long_form_has_a_series_for_each_id(tmp_path):
    lengths = {f"m{i}": 5 + i for i in range(20)}
    path = tmp_path / "long.csv"
    with path.open("w") as file:
        file.write("id,time,x,y,label,split\n")
        for i, (name, n) in enumerate(lengths.items()):
            for t in reversed(range(n)):
                split = "test" if i < 5 else "train"
                file.write(f"{name},{t},{t},{10 * i + t},{'ab'[i % 2]},{split}\n")
    source = open_source(str(path))
    assert not isinstance(source, Recordings) and len(source) == 20
    assert [len(source.read(i)) for i in range(20)] == list(lengths.values())
    np.testing.assert_array_equal(source.read(3)[:, 1], 30 + np.arange(8))
    labels, classes = source.labels()
    assert classes == ["a", "b"] and labels.tolist() == [0, 1] * 10
    splits, parts = source.splits()
    assert parts == ["test", "train"] and splits.sum() == 15

    table = pa.csv.read_csv(path)
    pq.write_table(table, tmp_path / "long.parquet")
    other = open_source(str(tmp_path / "long.parquet"))
    assert all(np.array_equal(other.read(i), source.read(i)) for i in range(20))


@pytest.mark.parametrize("who", ["pedestrian", "track_id", "agent", "Person"])
def test_each_that_moves_through_frames_is_a_series(who, tmp_path):
    lines = [f"frame,{who},x_m,y_m"]
    lines += [f"{10 * f},{w},{w + f / 4},{-w}" for f in range(30) for w in range(20) if f >= w]
    for part in ("train/a", "train/b", "test/a"):
        (tmp_path / f"{part}.csv").parent.mkdir(exist_ok=True)
        (tmp_path / f"{part}.csv").write_text("\n".join(lines))
    (tmp_path / "LICENSE.txt").write_text("free")
    source = open_source(str(tmp_path))
    assert len(source) == 60 and source.columns == ["x_m", "y_m"] and source.notes == []
    numbers, parts = source.splits()
    assert parts == ["test", "train"] and np.bincount(numbers).tolist() == [20, 40]
    assert source.labels() is None
    np.testing.assert_array_equal(source.read(3)[:, 0], 3 + np.arange(3, 30) / 4)
    assert len(open_source(str(tmp_path / "test" / "a.csv"))) == 20


def test_classes_below_parts_and_below_a_folder_of_all(tmp_path):
    for part in ("train", "test"):
        for kind in ("calm", "storm"):
            (tmp_path / "data" / part / kind).mkdir(parents=True)
            wide(tmp_path / "data" / part / kind / "a.csv", [(h, h, 1) for h in range(20)])
    source = open_source(str(tmp_path))
    assert source.labels()[1] == ["calm", "storm"] and source.splits()[1] == ["test", "train"]


def test_a_row_is_a_series_where_columns_are_numbered(tmp_path):
    path = tmp_path / "rows.csv"
    header = "label," + ",".join(f"t{i}" for i in range(12))
    path.write_text(header + "\n" + "".join(f"c{i % 2}," + ",".join("123456789abc"[:9]) + ",,,\n"
                                            for i in range(20)))  # fmt: skip
    source = open_source(str(path))
    assert len(source) == 20 and source.read(0).shape == (9, 1)
    assert source.labels()[1] == ["c0", "c1"]
    archive = tmp_path / "X_TRAIN.tsv"  # the archive's own form: no header, the class first
    archive.write_text("".join("\t".join(map(str, [1 + i % 2, *range(10)])) + "\n"
                               for i in range(18)))  # fmt: skip
    source = open_source(str(archive))
    assert len(source) == 18 and source.read(0)[:, 0].tolist() == list(range(10))
    assert source.labels()[1] == ["1", "2"]


def test_parquet_with_lists(tmp_path):
    table = pa.table({"x": [[1.0, 2.0], [3.0, None, 5.0]] * 10, "label": ["a", "b"] * 10})
    pq.write_table(table, tmp_path / "a.parquet")
    source = open_source(str(tmp_path / "a.parquet"))
    assert len(source) == 20 and np.isnan(source.read(1)[1, 0])
    assert source.labels()[1] == ["a", "b"]


TS = """#comment
@problemName Toy
@univariate false
@classLabel true up down
@data
1,2,?:4,5,6:up

3,4:1,NaN,2,9:down
"""


def test_ts_files(tmp_path):
    for part in ("TRAIN", "TEST"):
        (tmp_path / f"Toy_{part}.ts").write_text(TS)
    source = open_source(str(tmp_path))
    assert len(source) == 4 and source.labels()[1] == ["down", "up"]
    np.testing.assert_array_equal(
        source.read(1), np.array([[3, 1], [4, NAN], [NAN, 2], [NAN, 9]], np.float32)
    )
    assert source.splits()[1] == ["test", "train"]
    assert source.name(0) == "Toy_TEST.ts#0"
    (tmp_path / "bad.ts").write_text(TS + "1,x:2:up\n")
    with pytest.raises(SelfsupError, match="E105"):
        open_source(str(tmp_path / "bad.ts"))


def test_folders_name_classes_and_several_sets_are_refused(tmp_path):
    for kind in ("calm", "storm"):
        (tmp_path / "wind" / kind).mkdir(parents=True)
        for i in range(9):
            wide(tmp_path / "wind" / kind / f"{i}.csv", [(h, h, i) for h in range(20)])
    source = open_source(str(tmp_path / "wind"))
    assert len(source) == 18 and source.labels()[1] == ["calm", "storm"]
    for name in ("A", "B"):
        (tmp_path / "sets" / name).mkdir(parents=True)
        (tmp_path / "sets" / name / f"{name}_TRAIN.ts").write_text(TS)
    with pytest.raises(SelfsupError, match="several sets"):
        open_source(str(tmp_path / "sets"))


def test_other_tables_are_left_alone(tmp_path):
    (tmp_path / "a.csv").write_text("path,label\nimg/1.png,cat\n")
    (tmp_path / "b.csv").write_text("text,label\nhello there,1\nyou,0\n")
    (tmp_path / "c.csv").write_text("")
    assert not any(is_series(str(tmp_path / name)) for name in ("a.csv", "b.csv", "c.csv"))
    (tmp_path / "d.csv").write_text("x,y\n")
    assert not is_series(str(tmp_path / "d.csv"))


def test_only_the_first_part_of_a_recording_is_for_training():
    hours = 20 * 30 * 24 + 3000
    assert bounds(hours, 3600.0 * np.arange(hours)) == (8640, 11520, 14400)  # as for ETTh1
    assert bounds(7588, None) == (5311, 6071, 7588)  # as for the exchange rates


def test_stretches_end_in_their_part_and_reach_back(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x\n" + "".join(f"{i}\n" for i in range(2000)))
    source = open_source(str(path))
    train = source.for_training()
    assert source.fingerprint() != train.fingerprint()
    for i in range(len(train)):
        piece = train.read(i)
        assert isinstance(piece, Piece) and piece[-1, 0] == train.ends[i] - 1 < 1400
        assert len(piece) >= train.window
    parts, names = source.splits()
    assert names == list(PARTS) and set(parts.tolist()) == {0, 1, 2}
    assert source.name(0) == f"a.csv@{source.window}"


def test_series_of_different_widths_are_refused(tmp_path):
    for i in range(2):
        (tmp_path / f"{i}.csv").write_text("a,b\n1,2\n3,4\n" if i else "a\n1\n2\n")
    with pytest.raises(SelfsupError, match="different numbers of channels"):
        open_source(str(tmp_path))


@pytest.mark.skipif("SELFSUP_DATA" not in os.environ, reason="SELFSUP_DATA is not set")
def test_public_sets(tmp_path):
    home = Path(os.environ["SELFSUP_DATA"]) / "timeseries"
    source = open_source(str(home / "ETTh1.csv"))
    assert source.series[0].shape == (17420, 7) and source.columns[-1] == "OT"
    assert source.bounds == [(8640, 11520, 14400)] and source.notes == []
    assert open_source(str(home / "exchange_rate.csv")).bounds == [(5311, 6071, 7588)]
    with tarfile.open(home / "ucr_uea_ts.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    sizes = {"ArrowHead": (211, 251, 1), "BasicMotions": (80, 100, 6), "ACSF1": (200, 1460, 1)}
    for name, (count, steps, channels) in sizes.items():
        source = open_source(str(tmp_path / "ucr_uea" / name))
        assert len(source) == count and source.read(0).shape == (steps, channels)
        assert source.splits()[1] == ["test", "train"] and source.notes == []


def test_marks_of_steps_are_no_channel_and_follow_their_rows(tmp_path):
    path = tmp_path / "a.csv"
    rows = [(0, 0), (1, 0), (3, 1), (2, 0), (5, 1), (6, 0)]
    for name in ("anomaly", "label"):
        path.write_text(
            f"time,x,{name}\n" + "".join(f"2020-01-01 0{h}:00:00,{h}.5,{m}\n" for h, m in rows)
        )
        source = open_source(str(path))
        assert source.columns == ["x"] and source.series[0].shape == (7, 1)
        assert source.found_series.marks[0].tolist() == [False] * 3 + [True, False, True, False]
    digest = source.fingerprint()
    path.write_text(path.read_text().replace(".5,1", ".5,0"))
    assert open_source(str(path)).fingerprint() != digest
    path.write_text("x,label\n" + "".join(f"{i},{i % 3}\n" for i in range(40)))
    source = open_source(str(path))
    assert source.columns == ["x"] and source.found_series.marks == [None]
    assert "label is left out" in " ".join(source.notes)
    words = pa.table({"x": np.arange(40.0), "is_anomaly": [i == 7 for i in range(40)]})
    pq.write_table(words, tmp_path / "b.parquet")
    source = open_source(str(tmp_path / "b.parquet"))
    assert np.flatnonzero(source.found_series.marks[0]).tolist() == [7]


def test_numbers_of_steps_are_no_years(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("t,x\n" + "".join(f"{i},{i}.5\n" for i in range(30)))
    source = open_source(str(path))
    assert source.found_series.times[0].tolist() == list(range(30)) and source.times == [None]
    path.write_text("t,x\n" + "".join(f"{1_700_000_000 + 60 * i},{i}.5\n" for i in range(30)))
    source = open_source(str(path))
    assert source.times[0][1] - source.times[0][0] == 60 and source.read(0).time[-1] > 1.7e9
    assert len(source.read(0).time) == len(source.read(0))
