"""The models for text: causal, able to learn, and GPT the arithmetic that it is in the paper."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from engine.models import MODELS

TEXT = ("gpt", "rnn", "transformer")
STRING = "the quick brown fox jumps over the lazy dog, and the dog sleeps on."
LETTERS = sorted(set(STRING))


def built(name, length=16, vocabulary=11, **arguments) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name](input_shape=(length,), output_size=vocabulary, vocabulary=vocabulary, **arguments)


def tokens(*size: int, vocabulary: int = 11) -> torch.Tensor:
    return torch.randint(vocabulary, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", TEXT)
def test_changing_a_token_leaves_the_logits_before_it_unchanged(name, training):
    model = built(name).train(training)
    inputs = tokens(3, 16)
    with torch.no_grad():
        logits = model(inputs)
        assert logits.shape == (3, 11, 16) and logits.dtype == torch.float32
        for place in range(16):
            changed = inputs.clone()
            changed[:, place] = (changed[:, place] + 1) % 11
            other = model(changed)
            assert torch.allclose(other[..., :place], logits[..., :place], atol=1e-6, rtol=0)
            assert not torch.allclose(other[..., place:], logits[..., place:], atol=1e-4)


@pytest.mark.parametrize("name", TEXT)
def test_each_place_has_a_gradient_from_itself_and_what_is_before_it_only(name):
    model = built(name)
    embedded = []
    model.embedding.register_forward_hook(lambda module, inputs, output: embedded.append(output.requires_grad_()))
    logits = model(tokens(1, 16))
    gradient = torch.autograd.grad(logits[0, :, 7].square().sum(), embedded[0])[0]
    assert (gradient[0].abs().sum(dim=1) > 0).tolist() == [place <= 7 for place in range(16)]


@pytest.mark.parametrize("name", TEXT)
def test_a_short_string_is_learned_by_heart(name):
    text = torch.tensor([LETTERS.index(letter) for letter in STRING])
    inputs, targets = text[None, :-1], text[None, 1:]
    model = built(name, length=inputs.shape[1], vocabulary=len(LETTERS))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = nn.CrossEntropyLoss()(model(inputs), targets)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    guessed = "".join(LETTERS[letter] for letter in model.eval()(inputs).argmax(dim=1)[0])
    assert guessed[-40:] == STRING[-40:]


@pytest.mark.parametrize("name", TEXT)
def test_a_text_model_starts_near_chance(name):
    model = built(name, vocabulary=65)
    inputs, targets = tokens(32, 16, vocabulary=65), tokens(32, 16, vocabulary=65).roll(1, 0)
    assert nn.functional.cross_entropy(model(inputs), targets).item() == pytest.approx(math.log(65), rel=0.3)


@pytest.mark.parametrize("name", TEXT)
def test_dropout_is_drawn_in_training_only(name):
    model = built(name, dropout=0.3)
    inputs = tokens(2, 16)
    assert not torch.equal(model(inputs), model(inputs))
    model.eval()
    assert torch.allclose(model(inputs), model(inputs))


@pytest.mark.parametrize("name", TEXT)
def test_a_state_dict_carries_a_text_model(name):
    first = built(name).eval()
    torch.manual_seed(9)
    other = MODELS[name]((16,), 11, vocabulary=11).eval()
    other.load_state_dict(first.state_dict())
    assert torch.equal(other(tokens(2, 16)), first(tokens(2, 16)))


@pytest.mark.parametrize("bias", [True, False])
def test_gpt_is_the_formula_of_the_paper(bias):
    model = built("gpt", dim=12, heads=3, layers=2, bias=bias).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 3)
    inputs = tokens(2, 16)
    assert torch.allclose(model(inputs), formula(model.state_dict(), inputs, heads=3, layers=2), atol=1e-10)


def formula(weights: dict[str, torch.Tensor], inputs: torch.Tensor, heads: int, layers: int) -> torch.Tensor:
    """GPT-2 written out, one sample, head and place at a time."""

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.zeros(()))

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        scaled = centred / torch.sqrt(centred.square().mean(dim=-1, keepdim=True) + 1e-5)
        return scaled * weights[f"{name}.weight"] + weights.get(f"{name}.bias", torch.zeros(()))

    outputs = []
    for sample in inputs:
        stream = weights["embedding.weight"][sample] + weights["position"][: len(sample)]
        width = stream.shape[1]
        for layer in range(layers):
            block = f"blocks.{layer}"
            query, key, value = linear(f"{block}.attention.qkv", norm(f"{block}.norm_attention", stream)).split(width, dim=1)
            mixed = torch.zeros_like(stream)
            for head in range(heads):
                part = slice(head * width // heads, (head + 1) * width // heads)
                for place in range(len(sample)):
                    scores = key[: place + 1, part] @ query[place, part] / math.sqrt(width // heads)
                    mixed[place, part] = torch.softmax(scores, dim=0) @ value[: place + 1, part]
            stream = stream + linear(f"{block}.attention.out", mixed)
            inner = linear(f"{block}.mlp.0", norm(f"{block}.norm_mlp", stream))
            inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
            stream = stream + linear(f"{block}.mlp.2", inner)
        outputs.append(norm("norm", stream) @ weights["head.weight"].T)
    return torch.stack(outputs).transpose(1, 2)


def test_gpt_has_as_many_parameters_as_nanogpts_character_model():
    model = built("gpt", length=256, vocabulary=65, dim=384, heads=6, layers=6)
    count = sum(parameter.numel() for parameter in model.parameters()) - model.position.numel()
    assert round(count / 1e6, 2) == 10.65


def test_gpts_residual_projections_start_smaller_with_depth():
    model = built("gpt", dim=128, layers=8)
    for block in model.blocks:
        for weight in (block.attention.out.weight, block.mlp[2].weight):
            assert weight.std().item() == pytest.approx(0.02 / math.sqrt(16), rel=0.05)
        for weight in (block.attention.qkv.weight, block.mlp[0].weight):
            assert weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_gpts_head_is_the_embedding_unless_it_is_asked_not_to_be():
    tied, free = built("gpt"), built("gpt", tied=False)
    assert tied.head.weight is tied.embedding.weight
    assert sum(p.numel() for p in free.parameters()) - sum(p.numel() for p in tied.parameters()) == 11 * 128
    assert MODELS["gpt"]((16,), 5, vocabulary=11, tied=False)(tokens(2, 16)).shape == (2, 5, 16)


def test_gpt_takes_shorter_text_than_it_was_built_for():
    model = built("gpt").eval()
    inputs = tokens(2, 16)
    assert torch.allclose(model(inputs[:, :5]), model(inputs)[..., :5], atol=1e-5)
    with pytest.raises(ValueError, match=r"gpt was built for 16 tokens a sample, and this one has 17"):
        model(tokens(2, 17))


@pytest.mark.parametrize(
    ("name", "shape", "arguments", "sentence"),
    [
        ("gpt", (6,), {"vocabulary": None}, r"gpt takes text, .* numbers of shape \(6,\): choose mlp"),
        ("gpt", (1, 8, 8), {"vocabulary": 11}, r"gpt takes text as rows of tokens .* shape \(1, 8, 8\)"),
        ("rnn", (8, 8), {"vocabulary": 11}, r"rnn takes text as rows of tokens"),
        ("transformer", (8, 8), {"vocabulary": 11}, r"transformer takes text as rows of tokens"),
        ("rnn", (8,), {"vocabulary": 11, "bidirectional": True}, r"bidirectional = true .* text of shape \(8,\)"),
        ("gpt", (8,), {"vocabulary": 12}, r"tied = true .* 11 outputs and a vocabulary of 12; set tied = false"),
        ("gpt", (8,), {"vocabulary": 11, "dim": 10}, r"dim = 10 must be a multiple of heads = 4"),
        ("gpt", (8,), {"vocabulary": 11, "layers": 0}, r"layers = 0"),
        ("gpt", (8,), {"vocabulary": 11, "dropout": 2.0}, r"dropout"),
    ],
)
def test_what_can_not_be_built_is_one_sentence(name, shape, arguments, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        MODELS[name](input_shape=shape, output_size=11, **arguments)
    assert "\n" not in str(caught.value)
