"""Variants change what they say they change, and nothing else."""

import pytest
import torch

from avfusion import Frames, TokenStream
from avfusion.models import AudioVisualLanguageModel
from examples.mini_aveb.model import SeparateConnector, Variant, build_connector, build_model
from examples.mini_aveb.text import build_tokenizer
from examples.mini_aveb.towers import AUDIO_RATE, DIM, TOKENS, Towers
from examples.mini_aveb.variants import FINDINGS, FULL, SWEEPS, VARIANTS


def _features(seconds: float, frame_rate: float) -> dict[str, Frames | TokenStream]:
    torch.manual_seed(1)
    return {
        "visual": Frames.from_rate(torch.randn(1, round(seconds * frame_rate), TOKENS, DIM), frame_rate),
        "audio": TokenStream.from_rate(torch.randn(1, round(seconds * AUDIO_RATE), DIM), AUDIO_RATE),
    }


def _count(variant: Variant, seconds: float) -> int:
    return int(build_connector(variant)(**_features(seconds, variant.frame_rate)).mask.sum())


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_gives_embeddings_with_gradients(name: str) -> None:
    variant = VARIANTS[name]
    out = build_connector(variant).train()(**_features(4.0, variant.frame_rate))
    assert out.embeddings[out.mask].isfinite().all()
    out.embeddings[out.mask].square().mean().backward()


@pytest.mark.parametrize("seconds", [2.0, 4.0, 7.5])
def test_tokens_are_as_many_whatever_the_windows(seconds: float) -> None:
    """But for the last window, which may be padding in part."""
    for name in ("full", "windows of 1 s", "windows of 4 s", "no sliding windows", "no synchronisation"):
        variant = VARIANTS[name]
        frames, window = round(seconds * variant.frame_rate), variant.window_frames
        assert _count(variant, seconds) == -(-frames // window) * variant.queries, name


def test_the_longest_clip_fits_one_window() -> None:
    assert _count(VARIANTS["no sliding windows"], 7.5) == 16


def test_tokens_go_with_the_frame_rate() -> None:
    counts = [_count(VARIANTS[name], 6.0) for name in ("2 pictures a second", "full", "8 pictures a second")]
    assert counts == [6, 12, 24]


def test_variants_start_from_the_same_weights() -> None:
    """A paired difference is about the part alone where the parts have the same parameters."""
    states = []
    for name in ("full", "no diversity loss", "λ = 1", "no causal attention"):
        torch.manual_seed(3)
        states.append((name, build_connector(VARIANTS[name]).state_dict()))
    (_, full), *others = states
    for name, state in others:
        shared = full.keys() & state.keys()
        assert (shared == full.keys()) == (name != "no causal attention"), name
        same = [torch.equal(full[key], state[key]) for key in sorted(shared)]
        assert all(same) or name == "no causal attention", name


def test_without_causal_attention_there_are_no_weights_for_it() -> None:
    causal, plain = (build_connector(VARIANTS[name]).state_dict() for name in ("full", "no causal attention"))
    gone = causal.keys() - plain.keys()
    assert gone
    assert all("causal" in key for key in gone)
    assert not plain.keys() - causal.keys()


def test_the_separate_connector_never_lets_eye_and_ear_meet() -> None:
    torch.manual_seed(0)
    connector = SeparateConnector(VARIANTS["no synchronisation"]).eval()
    features = _features(4.0, 4.0)
    other = {**features, "audio": features["audio"]._replace(tokens=torch.randn_like(features["audio"].tokens))}
    out, changed = connector(**features), connector(**other)
    half = out.embeddings.shape[1] // 2
    assert torch.equal(out.embeddings[:, :half], changed.embeddings[:, :half])
    assert not torch.equal(out.embeddings[:, half:], changed.embeddings[:, half:])
    together = build_connector(FULL).eval()
    assert not torch.equal(together(**features).embeddings[:, :half], together(**other).embeddings[:, :half])


def test_the_separate_connector_takes_either_alone() -> None:
    connector = SeparateConnector(VARIANTS["no synchronisation"]).eval()
    features = _features(4.0, 4.0)
    both = connector(**features)
    seen, heard = (connector(**{name: features[name]}) for name in ("visual", "audio"))
    assert torch.equal(torch.cat([seen.embeddings, heard.embeddings], 1), both.embeddings)
    assert torch.equal(torch.cat([seen.mask, heard.mask], 1), both.mask)
    assert both.query_states.shape[0] == seen.query_states.shape[0] + heard.query_states.shape[0]


def test_both_connectors_have_about_as_many_parameters() -> None:
    full, separate = (
        sum(parameter.numel() for parameter in build_connector(VARIANTS[name]).parameters())
        for name in ("full", "no synchronisation")
    )
    assert separate == pytest.approx(full, rel=0.05)


def test_the_diversity_loss_has_the_variants_weight() -> None:
    tokenizer, towers = build_tokenizer(["yes"]), Towers()

    def loss(variant: Variant) -> float:
        torch.manual_seed(0)
        model: AudioVisualLanguageModel = build_model(variant, towers, tokenizer).eval()
        features = _features(2.0, 4.0)
        ids = torch.tensor([[tokenizer.convert_tokens_to_ids("<av>")] * 4 + [tokenizer.convert_tokens_to_ids("yes")]])
        labels = torch.cat([torch.full((1, 4), -100), ids[:, 4:]], 1)
        return model(ids, labels=labels, features=features).diversity_loss.item()

    assert loss(VARIANTS["no diversity loss"]) == 0
    assert loss(VARIANTS["λ = 1"]) == pytest.approx(100 * loss(FULL), rel=1e-4)
    assert loss(FULL) != 0


def test_what_is_compared_is_run() -> None:
    named = {name for finding in FINDINGS for name in (finding.better, finding.worse)}
    named |= {name for _, variants in SWEEPS.values() for name in variants}
    assert named == {*VARIANTS}
    assert all(name == variant.name for name, variant in VARIANTS.items())
