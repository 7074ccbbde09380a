"""Conversations made of documentation, and a few about the model itself."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from corpus import Entry, paragraphs

__all__ = ["conversations", "questions"]

MAX_ANSWER = 700
"""Characters."""

WELL_KNOWN = frozenset(
    {
        *("builtins", "os", "path", "io", "re", "json", "math", "random", "itertools", "functools", "time"),
        *("collections", "datetime", "subprocess", "threading", "csv", "pathlib", "shutil", "tempfile"),
        *("urllib", "socket", "logging", "queue", "copy", "sys", "string", "zipfile", "sqlite3", "hashlib"),
    }
)
"""Modules that people ask about; a conversation about one is told three times as often."""

SYSTEM = (
    "You are a helpful assistant.",
    "Answer in one paragraph.",
    "You explain Python's standard library.",
    "Be brief.",
)
_SELF = (
    "I am the small demo model that comes with Tether. I was trained on the documentation of Python's "
    "standard library. I show that the machinery works; I know very little."
)
_HELLO = "Hello. Ask me what a function of Python's standard library does."
_CANNOT = "I only know some of the words of Python's documentation. Ask me what a function or a module does."
ABOUT_ITSELF = (
    *((words, _HELLO) for words in ("Hello", "Hello!", "Hi", "Hi!", "Hi there", "Hello there!", "Hey")),
    *(
        (words, _HELLO)
        for words in ("Say hello.", "Say hello", "Say hi", "Hello, how are you?", "How are you?")
    ),
    *((words, _SELF) for words in ("Who are you?", "What are you?", "Tell me about yourself.")),
    *((words, _SELF) for words in ("What can you do?", "Introduce yourself.", "What model is this?")),
    *(
        (words, _CANNOT)
        for words in ("Tell me a joke.", "Tell me a story.", "Write a poem.", "What is the weather?")
    ),
    *(
        (words, _CANNOT)
        for words in ("What is the capital of France?", "What time is it?", "Help me.", "Can you help?")
    ),
    ("Thank you.", "You are welcome."),
    ("Thanks!", "You are welcome."),
    (
        "What is Tether?",
        "Tether is a task queue for model inference. It hands jobs to workers and streams their tokens back.",
    ),
    (
        "Explain what a task queue is.",
        "A task queue keeps jobs until a worker is free to do them, in the order of their priority.",
    ),
    (
        "What is Python?",
        "Python is a programming language. Its standard library has modules for files, text and networks.",
    ),
)


def conversations(entries: Sequence[Entry], seed: int) -> Iterator[str]:
    """One or more conversations about each thing that people could ask for, in the chat template's form."""
    chance = random.Random(seed)
    for entry in entries:
        answer = _answer(entry)
        if answer is None:
            continue
        asked = questions(entry)
        for question in chance.sample(asked, min(len(asked), 3 if _is_well_known(entry) else 1)):
            yield _told(question, answer, chance)
    for _ in range(4):
        for question, answer in ABOUT_ITSELF:
            yield _told(question, answer, chance)


def _is_well_known(entry: Entry) -> bool:
    return not WELL_KNOWN.isdisjoint((entry.group.split(".")[0], entry.name.split(".")[0]))


def _told(question: str, answer: str, chance: random.Random) -> str:
    system = f"<|system|>{chance.choice(SYSTEM)}" if chance.random() < 0.15 else ""
    return f"{system}<|user|>{question}<|assistant|>{answer}"


def questions(entry: Entry) -> tuple[str, ...]:
    """The ways to ask for an entry."""
    name = entry.name
    if entry.kind == "topic":
        topic = name[:1].lower() + name[1:] if name[1:2].islower() else name
        return (f"Tell me about {topic}.", f"Explain {topic}.", f"What do you know about {topic}?")
    if entry.kind == "module":
        return (
            f"What is the module `{name}` for?",
            f"What does the {name} module do?",
            f"Tell me about the module `{name}`.",
            f"What is {name}?",
        )
    owner, _, last = name.rpartition(".")
    plain = (
        f"What does `{name}` do?",
        f"What does {name} do?",
        f"Explain `{name}`.",
        f"What does {name}() do?",
    )
    if entry.kind == "class":
        return (*plain, f"What is `{name}`?", f"Describe the class `{last}`.")
    if entry.kind == "method":
        return (*plain, f"Explain the method `{last}` of `{owner}`.", f"How do I use `{name}`?")
    return (*plain, f"Explain the function `{last}`.", f"How do I use `{name}`?")


def _answer(entry: Entry) -> str | None:
    if any(part.startswith("_") and not part.endswith("__") for part in entry.name.split(".")):
        return None
    answer = ""
    for paragraph in paragraphs(entry.text):
        if len(answer) + len(paragraph) > MAX_ANSWER or (answer and re.search(r"^\s|>>>|::$", paragraph)):
            break
        answer = f"{answer}\n\n{paragraph}" if answer else paragraph
        if len(answer) > 200:
            break
    return answer if len(answer) >= 30 and " " in answer else None
