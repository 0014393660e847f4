"""What is told of a method where it shows no pictures."""

import re
from html import unescape

import torch

from selfsup.data import smiles
from selfsup.modalities import find
from selfsup.report.made import coloured, in_use, told
from selfsup.shown import Alike, Continued, Groups, Guess, Guesses


def text(markup):
    return " ".join(unescape(re.sub("<[^>]*>", " ", markup)).split())


def test_places_of_one_group_have_one_colour():
    groups = Groups(torch.tensor([[0, 1, 0, -1], [2, 2, 2, 2]]), 3, (4,))
    first, second = coloured(groups, upward=False)
    assert first.shape == (32, 128, 3)
    cells = [first[0, 16 + 32 * i].tolist() for i in range(4)]
    assert cells[0] == cells[2] and len({*map(tuple, cells)}) == 3
    assert (second == second[0, 0]).all() and cells[3] == [225, 225, 225]
    high = Groups(torch.tensor([[0, 0, 1, 1]]), 2, (2, 2))
    down, up = (coloured(high, upward=u)[0] for u in (False, True))
    assert (down[0] == up[-1]).all() and not (down[0] == up[0]).any(1).all()
    guessed = Groups(torch.tensor([[0, -1, 1, -1], [-1, 2, -1, 2]]), 3, (4,))
    assert in_use([groups, guessed]) == (
        "3 of 3 groups are in use in these samples. Of the hidden places 75 % get their own."
    )


def test_hidden_residues_are_named_with_how_sure():
    protein = find("protein")()
    leucine, alanine = (int(protein.codec.encode(letter)[0]) for letter in "LA")
    made = Guesses([[Guess(4, [leucine], [alanine, leucine], "62 %, 30 %")], []], 3, 9)
    found = text(told("hidden tokens", made, ["one", "two"], protein))
    assert "Hidden tokens 3 of 9 that were hidden are guessed right" in found
    assert "one 5 L A, ✓ L 62 %, 30 %" in found and "two" not in found


def test_atoms_are_called_by_what_is_known_of_them():
    graph = find("graph")()
    graph.molecules = True
    (_, rows) = smiles.described(smiles.parse("c1ccccc1C#N"))
    assert graph.words(rows[-1]) == (
        "N, 1 neighbours, 0 hydrogens, no charge, a triple bond"
    ) and graph.words(rows[0]).endswith("aromatic, in a ring, an aromatic bond, two aromatic bonds")
    graph.molecules, graph.kinds = False, [3, 7]
    assert graph.words([1]) == "kind 7"


def test_a_passage_stands_beside_how_it_went_on():
    words = find("text")(tokens="bytes")
    parts = [words.codec.encode(part).tolist() for part in ("to be", " or not", "<b> ")]
    markup = told("from the middle on", Continued([tuple(parts)]), ["play"], words)
    assert text(markup).endswith("play to be or not <b>") and "<b>" not in markup


def test_pairs_that_find_their_own_are_counted():
    alike = Alike(("image", "text"), torch.tensor([[0.9, 0.1], [0.8, 0.3]]))
    markup = told("image and text", alike, ["cat", "dog"], find("text")())
    assert "1 of 2 find their own" in text(markup)
    assert re.findall("<strong>([^<]*)", markup) == ["0.90", "0.30"]
