"""Bugs that are planted in scripts, to show that a test finds them."""

from tether.broker.scripts import BROKER_SCRIPTS


def plant(monkeypatch, *bugs):
    """Let each broker that is opened from now on run scripts with these bugs.

    Each is a script of pools, the text that stands there, once in it with all that it includes, and the text
    that is to stand there. One that stands there no more fails at once: later it would pass for one found.
    """
    sound = BROKER_SCRIPTS.source
    texts = {}
    for script, original, planted in bugs:
        name = f"pool/{script}"
        text = texts.get(name) or sound(name)
        assert text.count(original) == 1, f"{name} has {text.count(original)} times {original!r}"
        texts[name] = text.replace(original, planted)
    monkeypatch.setattr(BROKER_SCRIPTS, "source", lambda name: texts.get(name) or sound(name))
