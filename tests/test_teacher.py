import pytest
import torch
from test_contract import some_graphs, texts
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from selfsup.dilated import Dilated
from selfsup.encoder import build
from selfsup.graph import network
from selfsup.language import Language
from selfsup.teacher import Teacher


def test_dropout_is_for_the_student_and_batch_norm_for_both():
    student = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    teacher, x = Teacher(student), torch.randn(8, 4)
    for _ in range(2):
        inner = student[0](x)
        var, mean = torch.var_mean(inner, 0, correction=0)
        expected = (inner - mean) * (var + 1e-5).rsqrt()
        torch.testing.assert_close(teacher(x), expected, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(student(x), expected)
        teacher.eval()
        assert not any(module.training for module in teacher.modules())
        teacher.train()


@pytest.mark.parametrize("made", ["language", "graph", "dilated", "resnet"])
def test_a_teacher_says_the_same_twice_while_its_student_trains(made):
    torch.manual_seed(0)
    if made == "language":
        encoder = Language(16, 23, dim=24, depth=1, heads=2, causal=False, dropout=0.5)
        (x,) = texts(1)
    elif made == "graph":
        encoder, x = network("gin", 12, dim=24, depth=2, drop=0.5), some_graphs(4, False)
    elif made == "dilated":
        encoder, x = Dilated(16, 2, dim=8, hidden=8, depth=2, dropout=0.5), torch.randn(3, 2, 16)
    else:
        encoder, x = build("resnet18", 16, width=0.125), torch.randn(4, 3, 16, 16)
    teacher = Teacher(encoder).train()
    assert torch.equal(teacher(x), teacher(x))
    norms = [module for module in teacher.modules() if isinstance(module, _BatchNorm)]
    assert all(norm.training for norm in norms)
    assert bool(norms) == (made in ("graph", "resnet"))
