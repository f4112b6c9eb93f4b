"""Tasks in RULER's kinds, made here with a seed: facts put into a text, and questions about them.

A question's answer is forced: it is right where the model's most likely token is the answer's at every place. A case is
{"task", "context", "qs": [{"q": question, "p": how the answer begins, "a": the answer}]}, one a line in a file.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .texts import CODE, PROSE, whole_lines

WORDS = (
    "amber brisk cedar delta ember fjord grove haven ivory jolly karma lemon maple noble ocean pearl quartz raven sable tulip umber "
    "velvet willow xenon yacht zephyr basil comet dune elm flint gecko hazel iris jade kite lotus mango nectar olive"
).split()
NAMES = (
    "Alice Brian Carla David Elena Frank Grace Henry Irene Jacob Karen Louis Maria Nathan Olivia Peter Quinn Rachel Simon Teresa"
).split()
CITIES = "Paris London Berlin Madrid Rome Vienna Lisbon Dublin Oslo Prague Athens Warsaw Cairo Tokyo Delhi Lima Boston Denver".split()
JOBS = "doctor teacher lawyer baker pilot farmer painter singer nurse chef writer dentist plumber soldier driver".split()
FOODS = "pizza sushi pasta curry soup salad bread cheese rice chocolate".split()


@dataclass(frozen=True)
class Question:
    question: str
    begins: str
    answer: str


@dataclass(frozen=True)
class Case:
    task: str
    context: str
    questions: tuple[Question, ...]


def read(path: Path) -> list[Case]:
    rows = [json.loads(line) for line in path.read_text().splitlines() if line]
    return [Case(r["task"], r["context"], tuple(Question(q["q"], q["p"], q["a"]) for q in r["qs"])) for r in rows]


def write(cases: list[Case]) -> str:
    rows = [
        {"task": c.task, "context": c.context, "qs": [{"q": q.question, "p": q.begins, "a": q.answer} for q in c.questions]} for c in cases
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def generate(sources: dict[str, str], chars: int, count: int, seed: int) -> list[Case]:
    """So many cases, of all kinds in turn, each with a context of about so many characters."""
    rng = random.Random(seed)
    kinds = list(KINDS.values())
    return [kinds[i % len(kinds)](rng, sources, chars) for i in range(count)]


def single(rng: random.Random, sources: dict[str, str], chars: int) -> Case:
    return _needles(rng, sources, chars, 1, "needle")


def several_keys(rng: random.Random, sources: dict[str, str], chars: int) -> Case:
    return _needles(rng, sources, chars, 6, "keys")


def _needles(rng: random.Random, sources: dict[str, str], chars: int, count: int, task: str) -> Case:
    facts = [(key, number(rng)) for key in rng.sample(WORDS, count)]
    text = insert(rng, prose(rng, sources, chars), [f"The special magic number for {k} is {v}" for k, v in facts])
    asked = (
        Question(f"What is the special magic number for {k} mentioned in the text?", f"The special magic number for {k} is", f" {v}")
        for k, v in facts
    )
    return Case(task, text, tuple(asked))


def several_values(rng: random.Random, sources: dict[str, str], chars: int) -> Case:
    """Two keys with three values each. Each value but the first is asked for after those before it."""
    held = {key: [number(rng) for _ in range(3)] for key in rng.sample(WORDS, 2)}
    facts = [f"One of the magic numbers for {key} is {value}" for key, values in held.items() for value in values]
    rng.shuffle(facts)
    text = insert(rng, prose(rng, sources, chars), facts)
    asked = []
    for key, values in held.items():
        in_order = sorted(values, key=text.index)
        for i in range(1, len(in_order)):
            begins = (
                "".join(f"One of the magic numbers for {key} is {v}. " for v in in_order[:i]) + f"One of the magic numbers for {key} is"
            )
            ask = f"What are all the magic numbers for {key} mentioned in the text, in the order in which they are mentioned?"
            asked.append(Question(ask, begins, f" {in_order[i]}"))
    return Case("values", text, tuple(asked))


def variables(rng: random.Random, sources: dict[str, str], chars: int) -> Case:
    names = [f"X{i}" for i in rng.sample(range(10, 99), 6)]
    facts, asked = [], []
    for first, second in zip(names[::2], names[1::2], strict=True):
        value = number(rng)
        facts += [f"VAR {first} = {value}", f"VAR {second} = VAR {first}"]
        asked.append(Question(f"What is the value of VAR {second}?", f"VAR {second} = VAR {first} =", f" {value}"))
    return Case("variables", insert(rng, prose(rng, sources, chars), facts), tuple(asked))


def people(rng: random.Random, sources: dict[str, str], chars: int) -> Case:
    facts, asked = [], []
    for name in rng.sample(NAMES, 5):
        city, job, food = rng.choice(CITIES), rng.choice(JOBS), rng.choice(FOODS)
        facts.append(f"{name} lives in {city}, works as a {job} and likes to eat {food}")
        asked.append(
            rng.choice(
                (
                    Question(f"In which city does {name} live?", f"{name} lives in", f" {city}"),
                    Question(f"What is the job of {name}?", f"{name} works as a", f" {job}"),
                    Question(f"What does {name} like to eat?", f"{name} likes to eat", f" {food}"),
                )
            )
        )
    return Case("people", insert(rng, prose(rng, sources, chars), facts), tuple(asked))


def code(rng: random.Random, sources: dict[str, str], chars: int) -> Case:
    """Constants, defaults and base classes put between the blocks of a program."""
    lines = piece(rng, sources[_one_of(rng, sources, CODE)], chars).split("\n")
    keys = rng.sample(WORDS, 10)
    facts, asked = [], []
    for i, (one, two) in enumerate(zip(keys[::2], keys[1::2], strict=True)):
        value = number(rng)
        if i % 3 == 0:
            name = f"{one.upper()}_{two.upper()}"
            facts.append(f"{name} = {value}")
            asked.append(Question(f"What is the value of the constant {name} in the code?", f"{name} =", f" {value}"))
        elif i % 3 == 1:
            name = f"{one}_{two}"
            facts.append(f"def {name}(limit={value}): return limit")
            asked.append(Question(f"What is the default of limit in the function {name}?", f"def {name}(limit=", value))
        else:
            name = one.title() + two.title()
            facts.append(f"class {name}(Base{value}): pass")
            asked.append(Question(f"What is the base class of {name}?", f"class {name}(", f"Base{value}"))
    gaps = [i for i, line in enumerate(lines) if not line.strip()] or list(range(len(lines)))
    places = sorted(rng.choices(gaps, k=len(facts)), reverse=True)
    for at, fact in zip(places, reversed(facts), strict=True):
        lines.insert(at, f"\n{fact}\n")
    return Case("code", "\n".join(lines), tuple(asked))


KINDS: dict[str, Callable[[random.Random, dict[str, str], int], Case]] = {
    "keys": several_keys,
    "code": code,
    "variables": variables,
    "people": people,
    "values": several_values,
    "needle": single,
}


def number(rng: random.Random) -> str:
    return str(rng.randrange(1000, 9999))


def _one_of(rng: random.Random, sources: dict[str, str], wanted: tuple[str, ...]) -> str:
    return rng.choice([name for name in sorted(sources) if name in wanted] or sorted(sources))


def piece(rng: random.Random, text: str, chars: int) -> str:
    start = rng.randrange(max(len(text) - chars, 1))
    return whole_lines(text[start : start + chars])


def prose(rng: random.Random, sources: dict[str, str], chars: int) -> str:
    return " ".join(piece(rng, sources[_one_of(rng, sources, PROSE)], chars).split())


def insert(rng: random.Random, text: str, facts: list[str]) -> str:
    """The facts in their order, each after a sentence of its own drawing."""
    sentences = text.split(". ")
    places = sorted(rng.choices(range(1, len(sentences) + 1), k=len(facts)), reverse=True)
    for at, fact in zip(places, reversed(facts), strict=True):
        sentences.insert(at, fact)
    return ". ".join(sentences)
