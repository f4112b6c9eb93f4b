"""How much of what chats share is found, and in how many pages, with a model's own chat template: pages cut as text is, and where
messages end: in blocks of 16 tokens, and for an engine whose heads have cores in whole blocks of 32.

    python tests/measure_cuts.py MODEL TEXT ...

MODEL is a folder with a tokenizer, TEXT are files that the messages are made of. No engine and no semproxy: tokens alone say which
pages are stored, and which are found.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from transformers import AutoTokenizer

from semproxy_kv.vllm.prefix import cuts, links
from semproxy_kv.vllm.separators import separators
from semproxy_kv.vllm.settings import BLOCK, Settings

SETTINGS = Settings()
Messages = list[dict[str, str]]
Request = tuple[list[int], list[int]]  # prompt and answer


class Pages:
    """What is stored, as places of sequences: what is behind each."""

    def __init__(self, between: frozenset[int], block: int) -> None:
        self.between, self.block = between, block
        self.behind: defaultdict[str, set[str]] = defaultdict(set)
        self.asked: list[tuple[int, int, int]] = []  # of each request: tokens that an earlier one has, that were found, pages of them

    def find(self, ids: list[int]) -> tuple[int, int]:
        """How many of the first tokens are stored, and in how many pages."""
        chain = links(ids[:-1])
        reached = {0: 0}
        for at, link in enumerate(chain):
            if at in reached:
                reached |= {n: reached[at] + 1 for n in range(at + 1, len(chain)) if chain[n] in self.behind[link]}
        blocks = max(reached)
        return (blocks * BLOCK, reached[blocks]) if blocks * BLOCK >= SETTINGS.min_tokens else (0, 0)

    def ask(self, prompt: list[int], answer: list[int], shared: int) -> None:
        """A request from its lookup to what is kept of it."""
        found, pages = self.find(prompt)
        self.asked.append((shared, found, pages))
        ids = [*prompt, *answer]
        chain = links(ids)
        sizes, least = SETTINGS.page_sizes, SETTINGS.min_tokens
        for first, to in cuts(ids, found, len(prompt), len(ids) - 1, sizes, least, self.between, self.block):
            self.behind[chain[first // BLOCK]].add(chain[to // BLOCK])


class Chats:
    def __init__(self, model: str, files: list[str]) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(model)
        self.text: list[int] = self.tokenizer.encode("\n".join(Path(f).read_text() for f in files), add_special_tokens=False)
        self.between = separators(self.tokenizer)
        self.at = 0

    def some(self, tokens: int) -> str:
        """Text of about so many tokens, another one each time."""
        self.at = (self.at + 7919) % (len(self.text) - tokens)
        return str(self.tokenizer.decode(self.text[self.at : self.at + tokens]))

    def ids(self, messages: Messages) -> list[int]:
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def say(self, role: str, tokens: int) -> dict[str, str]:
        return {"role": role, "content": self.some(tokens)}

    def questions(self, before: Messages, n: int = 8) -> list[Request]:
        """Prompts that go on from the same messages with questions of their own, and answers."""
        return [(self.ids([*before, self.say("user", 20 + 9 * i)]), self.text[i : i + 100]) for i in range(n)]

    def turns(self, system: int, n: int = 10) -> Iterator[Request]:
        """A conversation, turn by turn."""
        messages = [self.say("system", system)]
        for _ in range(n):
            messages.append(self.say("user", 60))
            answer = self.say("assistant", 200)
            yield self.ids(messages), self.tokenizer.encode(answer["content"], add_special_tokens=False)
            messages.append(answer)


def alike(a: list[int], b: list[int]) -> int:
    """How many tokens they begin with in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def measured(requests: list[Request], between: frozenset[int], block: int) -> tuple[float, float, float]:
    """Of the requests behind the first: tokens that an earlier one had, the share of them that was found, and pages of it."""
    pages = Pages(between, block)
    before: list[list[int]] = []
    for prompt, answer in requests:
        pages.ask(prompt, answer, max((alike(prompt, ids) for ids in before), default=0))
        before.append([*prompt, *answer])
    shared, found, n = (mean(of) for of in zip(*pages.asked[1:], strict=True))
    return shared, found / shared, n


def main(model: str, files: list[str]) -> None:
    chats = Chats(model, files)
    cases = {f"system prompt of {n:,}": [chats.questions([chats.say("system", n)])] for n in (300, 700, 1500, 3000)}
    cases["system prompts of 300 to 3,000, every 45"] = [chats.questions([chats.say("system", n)], 2) for n in range(300, 3001, 45)]
    for system in (300, 700):
        cases[f"conversation, system prompt of {system}, next turns"] = [list(chats.turns(system))]
    examples = [chats.say("system", 100), *(chats.say(role, 90) for _ in range(8) for role in ("user", "assistant"))]
    cases["16 messages of 90 as examples"] = [chats.questions(examples)]
    document = chats.some(1500)
    cases["document of 1,500 and question in one message"] = [
        [(chats.ids([{"role": "user", "content": document + chats.some(40)}]), chats.text[i : i + 100]) for i in range(8)]
    ]
    print("| shared | tokens | as text: found (least), pages | messages, blocks of 16 | messages, blocks of 32 |")
    print("| --- | --- | --- | --- | --- |")
    for name, of in cases.items():
        row = []
        for between, block in ((frozenset[int](), 16), (chats.between, 16), (chats.between, 32)):
            tokens, shares, pages = zip(*(measured(requests, between, block) for requests in of), strict=True)
            least = f" ({min(shares):.0%})" if len(shares) > 1 else ""
            row.append(f"{mean(shares):.0%}{least}, {mean(pages):.1f}")
        print(f"| {name} | {mean(tokens):,.0f} | {' | '.join(row)} |")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
