"""The tokenizer beside a base model: transformers is asked, whatever its files are called; an empty one is refused."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from transformers.models.auto import tokenization_auto

from tests.support.tokenizers import SENTENCES, byte_level, word_piece
from unipet.config import ModelConfig
from unipet.errors import UnipetError
from unipet.runs import model_files
from unipet.runs.model_files import locate
from unipet.runs.tokenizer_files import PATTERNS, read_tokenizer, vocabulary_files
from unipet.tasks.encode import tokenizer_identity

BPE = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "w": 4, "e": 5, "we": 6, "Ġ": 7, "Ġwe": 8}


def directory(root: Path, model_type: str, files: dict[str, str] | None = None, **config: Any) -> Path:
    root.mkdir(exist_ok=True)
    (root / "config.json").write_text(json.dumps({"model_type": model_type, **config}))
    for name, content in (files or {}).items():
        (root / name).write_text(content)
    return root


def sentence_piece(path: Path, kind: str = "unigram") -> Path:
    """A sentencepiece model, trained by its own library."""
    sentencepiece = pytest.importorskip("sentencepiece")
    text = path.with_suffix(".txt")
    text.write_text("\n".join(SENTENCES * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(path.with_suffix("")), vocab_size=60, model_type=kind, minloglevel=2,
        hard_vocab_limit=False, pad_id=3,
    )  # fmt: skip
    text.unlink()
    path.with_suffix(".vocab").unlink()
    return path.with_suffix(".model")


def test_a_sentencepiece_model_of_any_name(tmp_path: Path) -> None:
    made = sentence_piece(tmp_path / "made")
    for model_type, name in (
        ("deberta-v2", "spm.model"),
        ("t5", "spiece.model"),
        ("xlm-roberta", "sentencepiece.bpe.model"),
    ):
        folder = directory(tmp_path / model_type, model_type)
        with pytest.raises(UnipetError, match=r"model\.path: .* has no tokenizer"):
            read_tokenizer(folder)
        shutil.copy(made, folder / name)
        tokenizer = read_tokenizer(folder)
        ids = tokenizer("we saw John")["input_ids"]
        assert tokenizer.unk_token_id not in ids and "we saw John" in tokenizer.decode(ids)


def test_marians_two_models_and_its_vocabulary(tmp_path: Path) -> None:
    made = sentence_piece(tmp_path / "made")
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_file=str(made))
    vocabulary = {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}
    folder = directory(tmp_path / "m", "marian", {"vocab.json": json.dumps({**vocabulary, "<pad>": len(vocabulary)})})
    shutil.copy(made, folder / "source.spm")
    with pytest.raises(UnipetError, match=r"cannot load the tokenizer of .*\(its files: source\.spm, vocab\.json\)"):
        read_tokenizer(folder)
    shutil.copy(made, folder / "target.spm")
    tokenizer = read_tokenizer(folder)
    assert tokenizer.decode(tokenizer("we saw John")["input_ids"], skip_special_tokens=True) == "we saw John"
    identity = tokenizer_identity(tokenizer)
    assert tokenizer_identity(read_tokenizer(folder)) == identity
    shutil.copy(sentence_piece(tmp_path / "other", "bpe"), folder / "source.spm")
    assert tokenizer_identity(read_tokenizer(folder)) != identity, "the same vocabulary, read by other rules"


@pytest.mark.parametrize("name", ["ByT5Tokenizer", "CanineTokenizer"])
def test_a_tokenizer_of_bytes_or_characters_needs_no_file(name: str, tmp_path: Path) -> None:
    folder = directory(tmp_path, "t5" if name.startswith("B") else "canine", tokenizer_class=name)
    tokenizer = read_tokenizer(folder)
    assert type(tokenizer).__name__ == name and len(tokenizer("we saw", add_special_tokens=False)["input_ids"]) == 6


def test_merges_and_vocabulary(tmp_path: Path) -> None:
    folder = directory(tmp_path, "gpt2", {"vocab.json": json.dumps(BPE)})
    with pytest.raises(UnipetError, match=r"cannot load the tokenizer of .*\(its files: vocab\.json\)"):
        read_tokenizer(folder)
    (folder / "merges.txt").write_text("#version: 0.2\nw e\nĠ we\n")
    assert read_tokenizer(folder)("we we")["input_ids"] == [6, 8]


FILED = """bert roberta gpt2 t5 llama marian deberta-v2 xlm-roberta albert mbart bart gemma qwen2 mistral gpt_neox
modernbert electra distilbert m2m_100 pegasus xlnet""".split()


@pytest.mark.parametrize("model_type", FILED)
def test_no_files_are_no_tokenizer(model_type: str, tmp_path: Path) -> None:
    others = {"generation_config.json": "{}", "special_tokens_map.json": "{}", "README.md": "", "requirements.txt": ""}
    others["model.safetensors.index.json"] = "{}"
    folder = directory(tmp_path, model_type, others)
    assert vocabulary_files(folder) == []
    with pytest.raises(UnipetError, match=r"model\.path: .* has no tokenizer") as error:
        read_tokenizer(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "\n\n", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"])
def test_files_without_a_word_are_no_tokenizer(content: str, tmp_path: Path) -> None:
    with pytest.raises(UnipetError, match=r"has special tokens but no words \(its files"):
        read_tokenizer(directory(tmp_path, "bert", {"vocab.txt": content}))


def test_files_that_the_class_does_not_read(tmp_path: Path) -> None:
    with pytest.raises(
        UnipetError, match=r"a BertTokenizer is read from vocab\.txt, tokenizer\.json; files there: vocab\.json"
    ):
        read_tokenizer(directory(tmp_path, "bert", {"vocab.json": "{}"}))


@pytest.mark.parametrize("make", [byte_level, word_piece])
def test_a_saved_tokenizer_is_read_as_it_was(make: Any, tmp_path: Path) -> None:
    made = make()
    made.save_pretrained(directory(tmp_path, "bert" if make is word_piece else "gpt2"))
    assert read_tokenizer(tmp_path)("we saw John")["input_ids"] == made("we saw John")["input_ids"]


def test_every_vocabulary_file_of_transformers_is_asked_of_the_hub() -> None:
    names: set[str] = set()
    for class_name in {name for name in tokenization_auto.TOKENIZER_MAPPING_NAMES.values() if name}:
        try:
            kind = tokenization_auto.tokenizer_class_from_name(class_name)
        except ImportError:
            continue
        names |= {name for name in getattr(kind, "vocab_files_names", {}).values() if name}
    assert {"source.spm", "target.spm", "spm.model", "vocab.txt", "merges.txt", "bpe.codes"} <= names
    names |= {"tekken.json", "tokenizer.model.v3", "qwen.tiktoken", "vocab.bpe", "tokenizer_config.json"}
    assert not [name for name in names if not any(fnmatch(name, pattern) for pattern in PATTERNS)]
    weights = [
        "pytorch_model.bin",
        "tf_model.h5",
        "flax_model.msgpack",
        "model.gguf",
        "model.onnx",
        "rust_model.ot",
        "x.pkl",
    ]
    assert not [name for name in weights if any(fnmatch(name, pattern) for pattern in model_files._HUB_FILES)]


def test_a_cached_model_without_vocabulary_files_is_asked_for_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot that an older version left without its tokenizer's files is completed; without a network it is used."""
    import huggingface_hub

    folder = directory(tmp_path / "snapshot", "t5", tokenizer_class="ByT5Tokenizer")
    (folder / "model.safetensors").write_bytes(b"")
    asked: list[bool] = []

    def download(name: str, local_files_only: bool = False, **wanted: Any) -> str:
        asked.append(local_files_only)
        if not local_files_only:
            (folder / "source.spm").write_text("")
        return str(folder)

    def nothing(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    model = ModelConfig(name="auto", path="owner/name")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", nothing)
    assert locate(model, weights=True) == folder and asked == [True]
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)
    assert locate(model, weights=True) == folder and asked == [True, True, False] and (folder / "source.spm").is_file()
    assert locate(model, weights=True) == folder and asked[3:] == [True]
