"""Pretraining with the models that transformers' own example scripts train.

    python transformers_steps.py mae|mlm|clm|proteins|wav2vec2|videomae default|tuned DATA

Sizes, batches, lengths and masks are those of ../cases.py. Dropout is left out, since there is none
on the other side, and wav2vec 2.0 gets its positions by a convolution of one tap instead of 128,
since the other side has a table of them. "tuned" adds bfloat16 autocast and the fused AdamW.
"""

import sys
import wave
from pathlib import Path

import common
import numpy as np
import torch
import transformers
from torchvision import transforms
from transformers.models.wav2vec2 import modeling_wav2vec2 as speech

SPECIAL = 3  # end (and padding), hidden, unknown
END, HIDDEN = 0, 1
SYMBOL = 0x20000  # as in ../drawn.py
RESIDUES = "ACDEFGHIKLMNOPQRSTUVWY"
NORMAL = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def main(case: str, kind: str, data: str) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    tuned = kind == "tuned"
    model, batches, batch, steps, clip, loss = CASES[case](data)
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1.5e-4, weight_decay=0.05, fused=True if tuned else None
    )

    def step(inputs):
        with common.half(tuned):
            value = loss(model, inputs)
        value.backward()
        if clip:  # as the Trainer of the scripts does
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    common.report(step, batches, batch, steps=steps, version=transformers.__version__)


def named(model, inputs):
    return model(**inputs).loss


# -- pictures and clips -------------------------------------------------------------------------


def mae(data: str):
    config = transformers.ViTMAEConfig(
        hidden_size=384, num_attention_heads=6, intermediate_size=1536, norm_pix_loss=True
    )
    transform = transforms.Compose(  # as run_mae.py
        [
            transforms.RandomResizedCrop(224, scale=(0.2, 1.0), interpolation=3),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            NORMAL,
        ]
    )

    def loss(model, batch):
        return model(pixel_values=batch[0]).loss

    batches = common.loader(common.pictures(data, transform), 64)
    return transformers.ViTMAEForPreTraining(config), batches, 64, 3, False, loss


def videomae(data: str):
    config = transformers.VideoMAEConfig(
        image_size=112, hidden_size=384, num_attention_heads=6, intermediate_size=1536,
        decoder_hidden_size=192, decoder_num_hidden_layers=4, decoder_num_attention_heads=3,
        decoder_intermediate_size=768,
    )  # fmt: skip
    clips = np.load(data, mmap_mode="r")
    crop = transforms.RandomResizedCrop(112, scale=(0.2, 1.0))
    flip = transforms.RandomHorizontalFlip()

    def make(number: int):
        first = np.random.randint(len(clips[number]) - 16 + 1)
        frames = torch.from_numpy(clips[number][first : first + 16].copy()).permute(0, 3, 1, 2)
        return NORMAL(flip(crop(frames)).float() / 255)  # (16, 3, 112, 112)

    def loss(model, frames):
        hidden = torch.rand(len(frames), 7 * 7).argsort(1) < round(0.9 * 7 * 7)  # tubes
        return model(pixel_values=frames, bool_masked_pos=hidden.repeat(1, 8)).loss

    batches = common.loader(common.Samples(range(len(clips)), make), 16)
    return transformers.VideoMAEForPreTraining(config), batches, 16, 4, False, loss


# -- tokens -------------------------------------------------------------------------------------


def window(size: int):
    def make(tokens):
        first = np.random.randint(max(1, len(tokens) - size + 1))
        return torch.from_numpy(tokens[first : first + size])

    return make


def hide(documents, kinds: int):
    """Padded to the longest of the batch; of 15 % of the tokens 80 % hidden, 10 % exchanged."""
    tokens = torch.nn.utils.rnn.pad_sequence(documents, batch_first=True, padding_value=END)
    there = torch.nn.utils.rnn.pad_sequence([d + 1 for d in documents], batch_first=True) > 0
    chosen = (torch.rand(tokens.shape) < 0.15) & (tokens >= SPECIAL)
    fate = torch.rand(tokens.shape)
    seen = torch.where(chosen & (fate < 0.9), torch.randint_like(tokens, SPECIAL, kinds), tokens)
    seen = seen.masked_fill(chosen & (fate < 0.8), HIDDEN)
    labels = tokens.masked_fill(~chosen, -100)
    return {"input_ids": seen, "attention_mask": there.long(), "labels": labels}


def ended(numbers) -> np.ndarray:
    return np.array([END, *numbers, END])


def mlm(data: str):
    texts = [path.read_text("utf-8") for path in sorted(Path(data).glob("*.txt"))]
    tokens = [ended(ord(letter) - SYMBOL + SPECIAL for letter in text) for text in texts]
    config = transformers.BertConfig(
        vocab_size=30_522, hidden_size=384, num_hidden_layers=6, num_attention_heads=6,
        intermediate_size=1536, max_position_embeddings=128, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    samples = common.Samples(tokens, window(128))
    batches = common.loader(samples, 32, workers=0, collate=lambda d: hide(d, 30_522))
    return transformers.BertForMaskedLM(config), batches, 32, 6, True, named


def proteins(data: str):
    lines = [line for line in Path(data).read_text().splitlines() if not line.startswith(">")]
    tokens = [ended(RESIDUES.index(letter) + SPECIAL for letter in line) for line in lines]
    config = transformers.EsmConfig(
        vocab_size=SPECIAL + len(RESIDUES), mask_token_id=HIDDEN, pad_token_id=END,
        hidden_size=320, num_hidden_layers=6, num_attention_heads=20, intermediate_size=1280,
        position_embedding_type="rotary", token_dropout=True, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    samples = common.Samples(tokens, window(256))
    batches = common.loader(samples, 32, workers=0, collate=lambda d: hide(d, config.vocab_size))
    return transformers.EsmForMaskedLM(config), batches, 32, 5, True, named


def clm(data: str):
    text = Path(data).read_text("utf-8")
    known = {letter: number for number, letter in enumerate(sorted(set(text)), SPECIAL)}
    numbers = np.array([known[letter] for letter in text])
    config = transformers.GPT2Config(
        vocab_size=SPECIAL + len(known), n_positions=64, n_embd=128, n_layer=4, n_head=4,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip

    def collate(windows):
        return {"input_ids": torch.stack(windows), "labels": torch.stack(windows)}

    samples = common.Samples(np.split(numbers[: len(numbers) // 1024 * 1024], 1024), window(64))
    batches = common.loader(samples, 12, workers=0, collate=collate)
    return transformers.GPT2LMHeadModel(config), batches, 12, 60, True, named


# -- speech -------------------------------------------------------------------------------------


def wav2vec2(data: str):
    config = transformers.Wav2Vec2Config(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=6, intermediate_size=1536,
        conv_dim=(256,) * 7, num_conv_pos_embeddings=1, hidden_dropout=0.0, attention_dropout=0.0,
        activation_dropout=0.0, feat_proj_dropout=0.0, feat_quantizer_dropout=0.0,
        final_dropout=0.0, layerdrop=0.0,
    )  # fmt: skip
    model = transformers.Wav2Vec2ForPreTraining(config)

    def make(path: Path):
        with wave.open(str(path), "rb") as file:
            sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32)
        first = np.random.randint(len(sound) - 64_000 + 1)
        sound = sound[first : first + 64_000]
        return (sound - sound.mean()) / sound.std()

    def collate(sounds):
        """Masks and negatives are drawn here, as by the collator of the example script."""
        shape = len(sounds), int(model._get_feat_extract_output_lengths(64_000))
        hidden = speech._compute_mask_indices(shape, mask_prob=0.65, mask_length=10)
        others = speech._sample_negative_indices(shape, config.num_negatives, hidden)
        return {
            "input_values": torch.from_numpy(np.stack(sounds)),
            "mask_time_indices": torch.from_numpy(hidden),
            "sampled_negative_indices": torch.from_numpy(others),
        }

    def loss(model, inputs):
        return model(**inputs).loss / inputs["mask_time_indices"].sum()

    samples = common.Samples(sorted(Path(data).glob("*.wav")), make)
    return model, common.loader(samples, 8, collate=collate), 8, 3, False, loss


CASES = {f.__name__: f for f in (mae, mlm, clm, proteins, wav2vec2, videomae)}

if __name__ == "__main__":
    main(*sys.argv[1:])
