"""Training the demo model: a small but genuine Whisper, on synthetic speech in eight languages.

With the token loss alone, the decoder would memorise the grammar's sentences and ignore the audio. An auxiliary head on
the encoder therefore predicts the phoneme in each frame (from espeak-ng's timings); it is discarded at the end. There
is no label smoothing, as it would put a lower bound on the entropy that adaptation minimises.

Training can be stopped at any time: the same command continues from the last state.
"""

import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizerFast,
)

from emtta_core.atomic_write import write_bytes
from emtta_core.demo.recipe import (
    IGNORE,
    LANGUAGES,
    START,
    TASKS,
    Example,
    Examples,
    Recipe,
    collate,
    padded,
    phoneme_inventory,
    train_tokenizer,
)
from emtta_core.errors import UsageError

STATE_FILE = "training.pt"


def train(out: Path, recipe: Recipe | None = None, echo: Callable[[str], None] = print) -> None:
    """Train the demo model into the folder `out`, in the layout of `from_pretrained`.

    Args:
        out: the folder; training continues from a state found there.
        recipe: the hyperparameters; by default those of the model that comes with emtta.
        echo: called with a line of progress from time to time.

    Raises:
        UsageError: when the folder contains a finished model, or a training state of another recipe.
    """
    recipe = recipe or Recipe()
    _refuse_other_work(out, recipe)
    with _settings_of_training():
        _train(out, recipe, echo)


@contextmanager
def _settings_of_training() -> Iterator[None]:
    # Set process-wide options for fast training on a CPU, and restore them.
    threads = torch.get_num_threads()
    torch.set_flush_denormal(True)
    torch.set_num_threads(max((os.cpu_count() or 2) - 1, 1))  # one core generates the examples
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)


def _train(out: Path, recipe: Recipe, echo: Callable[[str], None]) -> None:
    torch.manual_seed(recipe.seed)
    out.mkdir(parents=True, exist_ok=True)
    student = Student(recipe, phoneme_inventory(recipe.inventory_sentences))
    student.save_processors(out)
    recipe.save(out)
    done = student.restore(out / STATE_FILE)
    echo(f"{student.size:,} parameters, {len(student.inventory)} phonemes; {done} of {recipe.steps} updates are done")
    started, saved = time.monotonic(), time.monotonic()
    for step, batch in enumerate(student.batches(done), start=done + 1):
        token_loss, phoneme_loss = student.update(batch)
        if step % 50 == 0:
            rate = (step - done) * recipe.batch / (time.monotonic() - started)
            minutes_left = (recipe.steps - step) * recipe.batch / rate / 60
            echo(
                f"update {step}: token loss {token_loss:.3f}, phoneme loss {phoneme_loss:.3f},"
                f" {rate:.0f} utterances/s, {minutes_left:.0f} min left"
            )
        if time.monotonic() - saved > 120:
            student.save_state(out / STATE_FILE, step)
            saved = time.monotonic()
    student.save_model(out)
    (out / STATE_FILE).unlink(missing_ok=True)


def _refuse_other_work(out: Path, recipe: Recipe) -> None:
    if (out / "model.safetensors").exists():
        raise UsageError(f"{out} contains a finished model; train into a new folder, or delete this one first")
    if (out / STATE_FILE).exists() and Recipe.load(out) != recipe:
        raise UsageError(
            f"{out} contains a training state of another recipe; use that recipe or a new folder, or delete this one"
        )


class Student:
    """The model in training, with its optimizer and its auxiliary head."""

    def __init__(self, recipe: Recipe, inventory: tuple[str, ...]) -> None:
        self.recipe, self.inventory = recipe, inventory
        self.tokenizer = train_tokenizer(recipe.text_tokens)
        self.extractor = WhisperFeatureExtractor(
            feature_size=recipe.mels, hop_length=recipe.hop_length, chunk_length=recipe.window_seconds
        )
        self.model = WhisperForConditionalGeneration(_config(recipe, self.tokenizer))
        self.model.set_attn_implementation("eager")  # 1.4 times as fast on a CPU as torch's fused attention
        self.model.generation_config = _generation_config(recipe, self.tokenizer)
        self.head = nn.Linear(recipe.width, len(inventory))
        self.parameters = [*self.model.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler
        self.scheduler = schedule.SequentialLR(
            self.optimizer,
            [
                schedule.LinearLR(self.optimizer, 1e-3, 1.0, recipe.warmup),
                schedule.CosineAnnealingLR(self.optimizer, max(recipe.steps - recipe.warmup, 1)),
            ],
            [recipe.warmup],
        )

    @property
    def size(self) -> int:
        """The number of parameters, without the auxiliary head's."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def batches(self, done: int) -> DataLoader[Example]:
        """The remaining batches, generated in a separate process."""
        recipe = self.recipe
        examples = Examples(self.inventory, recipe.window_seconds, recipe.frames, recipe.seed)
        return DataLoader(
            examples,
            batch_size=recipe.batch,
            sampler=range(done * recipe.batch, recipe.steps * recipe.batch),
            collate_fn=collate,
            num_workers=1,
            prefetch_factor=16,
            multiprocessing_context="spawn",
        )

    def update(self, batch: list[Example]) -> tuple[float, float]:
        """Make one update and return the token loss and the phoneme loss in nats."""
        prompts = [self._prompt(example.language) for example in batch]
        texts = [self._tokens(example.text) for example in batch]
        end = self.tokenizer.eos_token_id
        inputs = padded([prompt + text for prompt, text in zip(prompts, texts, strict=True)], end)
        labels = padded(
            [[IGNORE] * (len(prompt) - 1) + [*text, end] for prompt, text in zip(prompts, texts, strict=True)],
            IGNORE,
        )
        features = self.extractor(
            [example.waveform for example in batch], sampling_rate=16_000, return_tensors="pt"
        ).input_features
        phonemes = torch.stack([torch.from_numpy(example.phonemes) for example in batch])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            encoded = self.model.model.encoder(features).last_hidden_state
            decoded = self.model.model.decoder(input_ids=inputs, encoder_hidden_states=encoded).last_hidden_state
            logits, guesses = self.model.proj_out(decoded), self.head(encoded)
        token_loss = _cross_entropy(logits, labels)
        phoneme_loss = _cross_entropy(guesses, phonemes)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(token_loss + self.recipe.phoneme_weight * phoneme_loss)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.scheduler.step()
        return token_loss.item(), phoneme_loss.item()

    def _prompt(self, language: str) -> list[int]:
        # The ids of the tokens that precede the text in Whisper's decoder.
        tokens = [START, f"<|{language}|>", TASKS[1], "<|notimestamps|>"]
        return [int(number) for number in self.tokenizer.convert_tokens_to_ids(tokens)]

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(" " + text, add_special_tokens=False).input_ids)

    def restore(self, file: Path) -> int:
        """Load a training state if there is one, and return the number of updates made."""
        if not file.exists():
            return 0
        state = torch.load(file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        return int(state["step"])

    def save_state(self, file: Path, step: int) -> None:
        """Write the training state atomically, so that an interruption loses nothing."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "head", "optimizer", "scheduler")}
        buffer = io.BytesIO()
        torch.save({**parts, "step": step}, buffer)
        write_bytes(file, buffer.getvalue())

    def save_processors(self, out: Path) -> None:
        """Write the tokenizer and the feature extractor."""
        self.tokenizer.save_pretrained(out)
        self.extractor.save_pretrained(out)

    def save_model(self, out: Path) -> None:
        """Write the weights (safetensors) and configs."""
        self.model.save_pretrained(out)


def _config(recipe: Recipe, tokenizer: WhisperTokenizerFast) -> WhisperConfig:
    end = tokenizer.eos_token_id
    return WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=recipe.mels,
        d_model=recipe.width,
        encoder_layers=recipe.encoder_layers,
        decoder_layers=recipe.decoder_layers,
        encoder_attention_heads=recipe.heads,
        decoder_attention_heads=recipe.heads,
        encoder_ffn_dim=4 * recipe.width,
        decoder_ffn_dim=4 * recipe.width,
        max_source_positions=recipe.frames,
        max_target_positions=recipe.max_tokens,
        dropout=0.0,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=tokenizer.convert_tokens_to_ids(START),
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )


def _generation_config(recipe: Recipe, tokenizer: WhisperTokenizerFast) -> GenerationConfig:
    # As in a Whisper's generation config: special tokens are suppressed, and so is an empty text.
    number = tokenizer.convert_tokens_to_ids
    end = tokenizer.eos_token_id
    return GenerationConfig(
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=number(START),
        max_length=recipe.max_tokens,
        is_multilingual=True,
        lang_to_id={f"<|{language}|>": number(f"<|{language}|>") for language in LANGUAGES},
        task_to_id={task.strip("<|>"): number(task) for task in TASKS},
        no_timestamps_token_id=number("<|notimestamps|>"),
        prev_sot_token_id=number("<|startofprev|>"),
        return_timestamps=False,
        suppress_tokens=[token for token in sorted(tokenizer.added_tokens_decoder) if token != end],
        begin_suppress_tokens=[number("Ġ"), end],
    )


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
