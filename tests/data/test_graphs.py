"""Graphs in files: what is read, and that hostile files end in an error that names the place."""

import io
import re

import numpy as np
import pytest

from selfsup.data import open_source
from selfsup.data.graphs import canonical
from selfsup.data.outcome import BadSample
from selfsup.data.smiles import described, parse
from selfsup.errors import SelfsupError


def network(folder, edges="a,b\nb,c\nc,a\na,d\n", nodes=None, features=None):
    nodes = nodes or "node,label,split\na,0,train\nb,1,val\nc,1,test\nd,,none\n"
    (folder / "edges.csv").write_text("src,dst\n" + edges)
    (folder / "nodes.csv").write_text(nodes)
    if features is not None:
        np.savez(folder / "features.npz", **features)
    return folder


def tu(folder, **files):
    usual = {
        "A": "1, 2\n2, 1\n3, 4\n",
        "graph_indicator": "1\n1\n2\n2\n2\n",
        "graph_labels": "-1\n1\n",
        "node_labels": "0\n3\n0\n0\n3\n",
    }
    for name, text in {**usual, **files}.items():
        (folder / f"X_{name}.txt").write_text(text)
    return folder


def test_a_network_of_named_nodes(tmp_path):
    source = open_source(network(tmp_path, features={"x": np.eye(4, 6)}))
    assert (source.content, len(source), source.name(3)) == ("nodes", 4, "d")
    assert source.edges.tolist() == canonical(np.array([[0, 1, 2, 0], [1, 2, 0, 3]]), 4).tolist()
    labels, names = source.labels()
    assert labels.tolist() == [0, 1, 1, -1] and names == ["0", "1"]
    parts, kinds = source.splits()
    assert [kinds[p] if p >= 0 else "" for p in parts] == ["train", "val", "test", ""]
    before = source.fingerprint()
    (tmp_path / "edges.csv").write_text("src,dst\na,b\n")
    assert open_source(tmp_path).fingerprint() != before


def test_self_loops_doubles_and_isolated_nodes(tmp_path):
    source = open_source(network(tmp_path, edges="a,a\na,b\nb,a\na,b\n"))
    assert source.edges.tolist() == [[1, 0], [0, 1]]
    assert source.rows.width == 32  # nothing is known but how many neighbours there are
    assert source.rows.columns.tolist() == [1, 1, 0, 0]


def test_edges_without_a_head_or_nodes(tmp_path):
    (tmp_path / "edges.csv").write_text("0,1\n1,2\n")
    assert len(open_source(tmp_path)) == 3
    np.savez(tmp_path / "g.npz", edge_index=np.array([[0, 1], [1, 2]]), x=np.ones((4, 2)))
    assert len(open_source(tmp_path / "g.npz")) == 4


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"edges": "a,b\na,zebra\n"}, "zebra"),
        ({"nodes": "node,label\na,0\na,1\n"}, "'a' is there more than once"),
        ({"features": {"x": np.array([[1.0], [np.nan], [2.0], [np.inf]])}}, "2 nodes: 1, 3"),
        ({"features": {"x": np.ones((3, 2))}}, "3 nodes, but 4"),
        ({"features": {"x": np.array([[object()]])}}, "pickle|Object"),
        ({"features": {"x": np.array([["a"]] * 4)}}, "type"),
        (
            {"features": {"indptr": np.array([0, 1, 9, 1, 1]), "indices": np.array([0]),
                          "data": np.ones(1), "shape": np.array([4, 2])}},
            "offsets",
        ),
        (
            {"features": {"indptr": np.array([0, 1, 1, 1, 1]), "indices": np.array([7]),
                          "data": np.ones(1), "shape": np.array([4, 2])}},
            "node 0 has column 7 of 2",
        ),
    ],
)  # fmt: skip
def test_hostile_networks_are_refused_by_name(tmp_path, changes, told):
    network(tmp_path, **changes)
    with pytest.raises(SelfsupError, match="E105") as error:
        open_source(tmp_path)
    assert re.search(told, str(error.value))


def test_edges_out_of_range(tmp_path):
    for edges in ("0,1\n1,7\n", "0,1\n-1,2\n"):
        (tmp_path / "edges.csv").write_text(edges)
        np.save(tmp_path / "features.npy", np.ones((3, 2)))
        with pytest.raises(SelfsupError, match="row 2"):
            open_source(tmp_path)
    (tmp_path / "edges.csv").write_text("a,b\n")
    np.savez(tmp_path / "g.npz", edges=np.array([[0, 5]]).T, x=np.ones((3, 2)))
    with pytest.raises(SelfsupError, match="E105"):
        open_source(tmp_path / "g.npz")


def test_no_payload_of_a_pickle_is_run(tmp_path):
    network(tmp_path)
    payload = b"cos\nsystem\n(S'touch owned'\ntR."
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|O", "fortran_order": False, "shape": (1,)}
    )
    (tmp_path / "features.npy").write_bytes(file.getvalue() + payload)
    with pytest.raises(SelfsupError, match="E105"):
        open_source(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_tu_layout(tmp_path):
    source = open_source(tu(tmp_path))
    assert (source.content, len(source)) == ("graphs", 2)
    first, second = source.read(0), source.read(1)
    assert first["edges"].tolist() == [[1, 0], [0, 1]] and first["labels"].tolist() == [0, 3]
    assert second["edges"].tolist() == [[1, 0], [0, 1]] and len(second["labels"]) == 3
    assert source.labels()[0].tolist() == [0, 1] and source.folds() == []


def test_graphs_of_nodes_in_any_order_and_graphs_without_nodes(tmp_path):
    tu(tmp_path, graph_indicator="3\n1\n3\n1\n1\n", graph_labels="1\n1\n2\n", A="1, 3\n2, 5\n")
    source = open_source(tmp_path)
    assert source.read(0)["edges"].tolist() == [[2, 0], [0, 2]]
    assert source.read(2)["edges"].tolist() == [[1, 0], [0, 1]]
    with pytest.raises(BadSample, match="empty"):
        source.read(1)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"A": "1, 2\n1, 9\n"}, "line 2.*1 and 9"),
        ({"A": "0, 2\n"}, "line 1"),
        ({"A": "1, 3\n"}, "different graphs"),
        ({"A": "1, x\n"}, "X_A"),
        ({"A": "1, 2, 3\n"}, "X_A"),
        ({"graph_indicator": "1\n1\n7\n2\n2\n"}, "line 3"),
        ({"node_labels": "1\n"}, "1 lines for 5 nodes"),
    ],
)
def test_hostile_tu_files_are_refused_by_line(tmp_path, files, told):
    tu(tmp_path, **files)
    with pytest.raises(SelfsupError, match="E105") as error:
        open_source(tmp_path)
    assert re.search(told, str(error.value))


@pytest.mark.parametrize(
    ("smiles", "atoms", "hydrogens", "bonds"),
    [
        ("CCO", "CCO", [3, 2, 1], 2),
        ("c1ccccc1", "CCCCCC", [1] * 6, 6),
        ("c1cc[nH]c1", "CCCNC", [1, 1, 1, 1, 1], 5),
        ("CC(=O)[O-].[Na+]", ["C", "C", "O", "O", "Na"], [3, 0, 0, 0, 0], 3),
        ("C%12CC%12", "CCC", [2, 2, 2], 3),
        ("F/C=C\\F", "FCCF", [0, 1, 1, 0], 3),
        ("N[C@@H](C)C(=O)O", "NCCCOO", [2, 1, 3, 0, 0, 1], 5),
        ("[13CH4]", "C", [4], 0),
        ("[H]O[H]", "O", [2], 0),
        ("CS(=O)(=O)C", "CSOOC", [3, 0, 0, 0, 3], 4),
        ("C1=CC=CC=C1-c2ccccc2", "C" * 12, [1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1], 13),
        ("c1ccc2ccccc2c1", "C" * 10, [1, 1, 1, 0, 1, 1, 1, 1, 0, 1], 11),
    ],
)
def test_smiles(smiles, atoms, hydrogens, bonds):
    molecule = parse(smiles)
    assert molecule.elements == list(atoms)
    assert molecule.hydrogens == hydrogens and len(molecule.bonds) == bonds


@pytest.mark.parametrize(
    "smiles",
    ["", "  ", "C(", "C)", "C1CC", "C=", "=C", "CX", "[C", "[Qq]", "C11", "C12CC12", "1CC1",
     "(C)", "C==C", "C=1CC#1", "C" * 3000, "C" * 20_000, "hello world", "C\x00C", "[C+++++9]"],
)  # fmt: skip
def test_what_is_no_smiles_is_set_aside(smiles):
    with pytest.raises(BadSample):
        parse(smiles)


def test_rings_are_found_and_a_long_chain_is_no_recursion():
    ring = [any(c == 33 for c in row) for row in described(parse("CC1CC1CC2CCC2"))[1]]
    assert ring == [False, True, True, True, False, True, True, True, True]
    assert len(described(parse("C" * 1900))[1]) == 1900


def test_a_table_of_molecules(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("smiles,active,split\nCCO,1,train\nnope,0,test\nc1ccccc1,,test\n")
    source = open_source(path)
    assert source.content == "graphs" and source.read(0) == "CCO"
    assert source.labels()[0].tolist() == [1, 0, -1]
    assert source.splits()[1] == ["test", "train"]
    rows = "".join(f"{'C' * (i + 1)},test,{i / 8}\n" for i in range(30))
    path.write_text(f"SMILES,Set, logS\n{rows}")
    source = open_source(path)
    assert source.read(1) == "CC" and source.splits()[1] == ["test"] and source.labels() is None
    assert source.targets()[1] == "logS" and source.targets()[0][8] == 1
