"""What the demo model is made from: which text, which schedule, which verdict."""

import sys
from dataclasses import replace

import pytest

from support.paths import ROOT

SCRIPTS = str(ROOT / "ops" / "demo_model")


@pytest.fixture(scope="module")
def scripts():
    """The training's modules, which import one another by their plain names."""
    before = set(sys.modules)
    sys.path.insert(0, SCRIPTS)
    import adapter
    import card
    import chat
    import check
    import corpus
    import recipe
    import training

    class Modules:
        pass

    found = Modules()
    found.adapter, found.card, found.chat = adapter, card, chat
    found.check, found.corpus, found.recipe, found.training = check, corpus, recipe, training
    yield found
    sys.path.remove(SCRIPTS)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(SCRIPTS):
            del sys.modules[name]


LONG = "A paragraph that is long enough to be recognised in a second place: it has over eighty characters."
FUNCTION = '''
def %s(value):
    """%s"""
    # A comment of two lines, the first.
    # The second one ends the sentence, as comments do.
    return (value + 1) * 2
'''


@pytest.fixture
def library(tmp_path, monkeypatch, scripts):
    """A standard library of a few modules; `curses` and `pickle` are held out by their names."""
    for name, text in {
        "curses.py": FUNCTION % ("draw", LONG),
        "json/__init__.py": FUNCTION % ("load", "Read a document from a file that is open."),
        "shelve.py": FUNCTION % ("copied", f"Another beginning, then the same.\n\n    {LONG}\n    "),
        "same.py": FUNCTION % ("draw", LONG),
        "test/test_json.py": FUNCTION % ("test", "A test's documentation, which is no text of ours."),
        "broken.py": "def broken(:\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(scripts.corpus.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    monkeypatch.setattr(scripts.corpus, "_c_docstrings", lambda: iter(()))
    monkeypatch.setattr(scripts.corpus, "_topics", lambda: iter(()))
    return tmp_path


def test_the_same_library_gives_the_same_text_wherever_it_lies(library, scripts):
    first = scripts.corpus.collect()
    assert scripts.corpus.collect() == first
    assert scripts.corpus.collect().digest == first.digest
    (library / "json" / "__init__.py").write_text(FUNCTION % ("load", "Read another document altogether."))
    assert scripts.corpus.collect().digest != first.digest


def test_nothing_held_out_is_trained_on_under_another_name(library, scripts):
    found = scripts.corpus.collect()
    assert [entry.name for entry in found.held_out] == ["curses.draw"]
    assert [entry.name for entry in found.training] == ["json.load"]
    assert [source.path for source in found.sources] == ["json/__init__.py"]


def test_this_pythons_held_out_groups_are_few_and_stay_what_they_are(scripts):
    names = sorted(sys.stdlib_module_names)
    held_out = [name for name in names if scripts.corpus.is_held_out(name)]
    assert {"curses", "pickle", "queue", "smtplib", "ssl", "struct"} <= set(held_out)
    assert len(held_out) < len(names) / 10


def test_comments_of_two_lines_are_text_and_single_ones_are_not(library, scripts):
    (source,) = scripts.corpus.collect().sources
    assert source.comments == (
        "A comment of two lines, the first.\nThe second one ends the sentence, as comments do.",
    )


def entry(scripts, **changes):
    plain = scripts.corpus.Entry(
        "os", "os.path.join", "function", "Join two or more pathname components.\n\n>>> x"
    )
    return replace(plain, **changes)


def test_a_conversation_asks_for_a_thing_by_name_and_answers_with_its_documentation(scripts):
    told = list(scripts.chat.conversations([entry(scripts)], 1))
    assert any(
        "<|user|>What does " in text or "<|user|>Explain" in text or "How do I" in text for text in told
    )
    assert told[0].endswith("<|assistant|>Join two or more pathname components.")
    assert list(scripts.chat.conversations([entry(scripts)], 1)) == told


def test_nobody_asks_for_what_is_private(scripts):
    about_itself = len(list(scripts.chat.conversations([], 1)))
    private = [entry(scripts, name="os._exists"), entry(scripts, name="_pyio.BytesIO.read")]
    assert len(list(scripts.chat.conversations(private, 1))) == about_itself


def test_what_the_adapter_learns_is_a_beginning_and_then_code_without_words(library, scripts):
    (text,) = scripts.adapter.adapter_texts(scripts.corpus.collect().sources, 3)
    assert text.endswith("def load(value):\n    return (value + 1) * 2")
    assert '"""' not in text
    assert "#" not in text


def test_the_rate_rises_to_its_peak_and_falls_to_nothing(scripts):
    recipe = scripts.recipe.DEMO
    rates = [recipe.rate(step) for step in range(recipe.steps)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(recipe.peak, rel=0.05)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[-1] < recipe.peak / 100
    assert top < recipe.steps / 10


def test_every_step_has_a_stage_whose_shares_are_all_of_it(scripts):
    for recipe in (scripts.recipe.DEMO, scripts.recipe.CHECK, scripts.recipe.BASELINE):
        for stage in {recipe.stage(step) for step in range(recipe.steps)}:
            assert sum(share for _, share in stage.mixture) == pytest.approx(1.0)
            assert stage.length <= scripts.recipe.CONTEXT


@pytest.mark.parametrize("name", ["DEMO", "CHECK"])
def test_what_moves_the_weights_moves_every_one_of_them(scripts, name):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16, num_hidden_layers=1, max_position_embeddings=8, tie_word_embeddings=True, **shape
        )
    )
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    text = torch.arange(8).unsqueeze(0)
    model(input_ids=text, labels=text).loss.backward()
    for optimizer in scripts.training.optimizers_of(getattr(scripts.recipe, name), model):
        optimizer.step()
    assert all(not torch.equal(before[key], value) for key, value in model.named_parameters())


@pytest.fixture(scope="module")
def record(scripts):
    from tether_workers import demo_model

    return scripts.card.read_record(demo_model.folder())


def test_another_loss_on_the_same_text_fails_the_check(scripts, record):
    claimed = record.sample_nats_per_token
    assert scripts.check.judge(record, record.corpus, claimed + 0.01).good
    assert not scripts.check.judge(record, record.corpus, claimed + 0.05).good
    assert not scripts.check.judge(record, record.corpus, claimed - 0.05).good


def test_on_another_pythons_text_the_check_says_so_and_only_a_bound_holds(scripts, record):
    verdict = scripts.check.judge(record, "another", record.sample_nats_per_token + 0.3)
    assert verdict.good
    assert "other text" in verdict.words
    assert not scripts.check.judge(record, "another", record.sample_nats_per_token + 2).good


def test_the_card_has_the_digest_of_the_weights_and_the_losses_of_the_record(record):
    import hashlib

    from tether_workers import demo_model

    card = (demo_model.folder() / "MODEL_CARD.md").read_text()
    weights = (demo_model.folder() / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in card
    assert f"{record.held_out_nats_per_token:.3f}" in card
    assert f"{record.held_out_bits_per_byte:.3f}" in card
