"""compress() through a real semproxy over real NATS, with a model that was really trained."""

from __future__ import annotations

import copy
import json
import os
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import POLICY, TOKENIZER, missing

from semproxy_kv import Backoff, Client, LocalSidecar, Options, SemproxyError, UnsupportedModel
from semproxy_kv.client.local import local_policy

try:
    import torch
    from transformers import DynamicCache, StaticCache, StoppingCriteria

    from semproxy_kv.hf import begin, cache_bytes, capture_queries, compress, faults, install
    from semproxy_kv.hf.compress import close_local
except ImportError:
    missing("torch", "torch and transformers are not installed")

# SEMPROXY_RECALL_CASES=64 runs all of them.
CASES = int(os.environ.get("SEMPROXY_RECALL_CASES", "6"))


@torch.no_grad()
def prefill(model: Any, ids: Any, mask: Any = None) -> Any:
    install(model)
    cache = DynamicCache(config=model.config)
    where = None if mask is None else (mask.cumsum(-1) - 1).clamp(min=0)  # as generate() counts
    model(ids, cache=cache, attention_mask=mask, position_ids=where)
    return cache


@pytest.fixture(scope="module")
def context(recall_cases: list[dict[str, Any]]) -> Any:
    return torch.tensor([recall_cases[0]["context"]])


@pytest.fixture
def own(binary: str) -> Iterator[LocalSidecar]:
    """A sidecar that the test may kill."""
    with LocalSidecar(POLICY, tokenizer=str(TOKENIZER)) as s:
        yield s


def recall(model: Any, case: dict[str, Any], cache: Any) -> int:
    """How many four-digit facts of the context the model generates right."""
    right, questions = 0, case["questions"]
    for answer in case["answers"]:
        at = answer["at"]
        ids = torch.tensor([case["context"] + questions[:at]])
        out = model.generate(ids, cache=cache, max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0)
        right += out[0, -4:].tolist() == questions[at : at + 4]
        cache.crop(ids.shape[1] - cache.get_seq_length())
    return right


@pytest.mark.parametrize("tenant", ["quarter", "regular", "half8"])
def test_recall_of_generated_answers_and_memory(tenant: str, tinylm: Any, recall_cases: Any, connect: Any) -> None:
    cases = recall_cases[: CASES if tenant == "quarter" else 2]
    client, full, small, before, after = connect(tenant), 0, 0, 0, 0
    for case in cases:
        ids = torch.tensor([case["context"]])
        cache = prefill(tinylm, ids)
        full += recall(tinylm, case, copy.deepcopy(cache))
        report = compress(tinylm, cache, ids, client=client, on_error="raise")
        before, after = before + report.bytes_before, after + report.bytes_after
        assert report.outcome == "compressed"
        assert report.bytes_after == cache_bytes(cache)
        small += recall(tinylm, case, cache)
    asked = sum(len(case["answers"]) for case in cases)
    print(f"\n{tenant}: recall full {full}/{asked}, compressed {small}/{asked}; bytes {before} -> {after} ({after / before:.1%})")
    assert small >= 0.99 * full - (tenant != "quarter")  # two cases: one answer is 8 %
    assert after < (0.52 if tenant == "half8" else 0.27) * before


def test_fidelity_is_measured_with_captured_queries(tinylm: Any, context: Any, connect: Any) -> None:
    with capture_queries(16) as queries:
        cache = prefill(tinylm, context)
    assert queries[0].shape == (1, 4, 16, 64)
    report = compress(tinylm, cache, context, client=connect("quarter"), queries=queries)
    assert 0 < float(report.fidelity[0]["attention_error"]) < 0.5


def test_what_the_policy_leaves_exact_is_left(tinylm: Any, context: Any, connect: Any) -> None:
    cache = prefill(tinylm, context)
    layers = list(cache.layers)
    report = compress(tinylm, cache, context, client=connect("exact"))
    assert (report.outcome, report.bytes_after) == ("exact", report.bytes_before)
    assert all(a is b for a, b in zip(layers, cache.layers, strict=True))


@pytest.mark.parametrize("layers", [1, 2, None])
def test_layers_may_go_in_pages_of_their_own(layers: int | None, tinylm: Any, context: Any, connect: Any) -> None:
    cache = prefill(tinylm, context)
    report = compress(tinylm, cache, context, client=connect("quarter"), layers_per_page=layers, on_error="raise")
    assert report.pages == {1: 5, 2: 3, None: 1}[layers]
    entries = sum(layer.prefix.keys.shape[0] for layer in cache.layers)
    assert abs(entries - 5 * 2 * 216) <= 10


def test_layers_too_large_for_a_message_are_split_by_tokens(tinylm: Any, context: Any, connect: Any) -> None:
    client = connect("quarter")

    class Narrow:
        max_page = 200_000
        submit = staticmethod(client.submit)

    cache = prefill(tinylm, context)
    report = compress(tinylm, cache, context, client=Narrow(), on_error="raise")  # type: ignore[arg-type]
    assert report.pages == 5 * 5
    assert cache.get_seq_length() == 864
    positions = cache.layers[0].prefix.positions[0, 0]
    assert bool((cache.layers[0].prefix.bias[0, 0].exp().sum() - 864).abs() < 0.01)
    assert float(positions.min()) >= 0
    assert float(positions.max()) <= 863


def test_a_batch_with_padding_is_each_sequence_by_itself(tinylm: Any, context: Any, connect: Any) -> None:
    client = connect("quarter")
    ids = torch.zeros(2, 500, dtype=torch.long)
    mask = torch.zeros_like(ids)
    ids[0], mask[0] = context[0, :500], 1
    ids[1, 100:], mask[1, 100:] = context[0, 300:700], 1
    cache = prefill(tinylm, ids[:, :-1], mask[:, :-1])
    report = compress(tinylm, cache, ids, client=client, attention_mask=mask, on_error="raise")
    assert report.pages == 2
    got = tinylm.generate(ids, cache=cache, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0)
    for row, start in ((0, 0), (1, 100)):
        alone = ids[row : row + 1, start:]
        cache = prefill(tinylm, alone[:, :-1])
        compress(tinylm, cache, alone, client=client, on_error="raise")
        want = tinylm.generate(alone, cache=cache, max_new_tokens=8, do_sample=False, pad_token_id=0)
        assert got[row, 500:].tolist() == want[0, 500 - start :].tolist()


def test_a_cache_is_compressed_again_when_it_has_grown(tinylm: Any, context: Any, connect: Any) -> None:
    client = connect("quarter")
    cache = prefill(tinylm, context[:, :500])
    compress(tinylm, cache, context, client=client, on_error="raise")
    first = cache_bytes(cache)
    with torch.no_grad():
        tinylm(context[:, 500:864], cache=cache)
    grown = cache_bytes(cache)
    report = compress(tinylm, cache, context, client=client, on_error="raise")
    assert (report.tokens, cache.get_seq_length()) == (364, 864)
    assert first < report.bytes_after < 0.62 * grown
    with pytest.raises(UnsupportedModel, match="no token"):
        compress(tinylm, cache, context, client=client)


class EachStep(StoppingCriteria):  # type: ignore[misc]
    """Calls back after every token that generate() made."""

    def __init__(self, call: Any) -> None:
        self.call, self.steps = call, 0

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        self.steps += 1
        self.call(self.steps, input_ids)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


def test_cores_are_swapped_in_while_the_model_generates(tinylm: Any, context: Any, connect: Any) -> None:
    cache = prefill(tinylm, context[:, :-1])
    pending = begin(tinylm, cache, context, client=connect("quarter"))
    reports = []

    def swap(step: int, _: Any) -> None:
        if step == 5:
            reports.append(pending.finish("raise"))

    out = tinylm.generate(
        context, cache=cache, max_new_tokens=20, min_new_tokens=20, do_sample=False, pad_token_id=0,
        stopping_criteria=[EachStep(swap)],
    )  # fmt: skip
    assert out.shape[1] == 884
    assert reports[0].outcome == "compressed"
    assert cache.get_seq_length() == 883
    assert cache.layers[0].keys.shape[-2] == 20  # what was generated is kept as it is


def test_killing_semproxy_while_a_model_generates(tinylm: Any, context: Any, own: LocalSidecar) -> None:
    """The request succeeds on the full cache, with the same tokens as without semproxy, and the fault is counted."""
    want = tinylm.generate(context, max_new_tokens=24, min_new_tokens=24, do_sample=False, pad_token_id=0)
    cache = prefill(tinylm, context[:, :-1])
    before = sum(faults().values())
    sent, reports = [], []
    with Client(own.url, Options(tenant="quarter", timeout=1, max_attempts=2, backoff=Backoff(0.01, 0.05))) as client:

        def kill_then_compress(step: int, ids: Any) -> None:
            if step == 3:
                own.kill()
                sent.append(begin(tinylm, cache, ids, client=client))
            if step == 10:
                reports.append(sent[0].finish())

        got = tinylm.generate(
            context, cache=cache, max_new_tokens=24, min_new_tokens=24, do_sample=False, pad_token_id=0,
            stopping_criteria=[EachStep(kill_then_compress)],
        )  # fmt: skip
    assert got.tolist() == want.tolist()
    report = reports[0]
    assert report.error is not None
    assert (report.outcome, report.error.code) == ("kept", "unreachable")
    assert all(type(layer).__name__ == "DynamicLayer" for layer in cache.layers)
    assert sum(faults().values()) == before + 1


def test_killing_semproxy_while_it_works_on_a_page(tinylm: Any, context: Any, own: LocalSidecar) -> None:
    cache = prefill(tinylm, context)
    with Client(own.url, Options(tenant="quarter", timeout=1, max_attempts=2, backoff=Backoff(0.01, 0.05))) as client:
        threading.Timer(0.01, own.kill).start()
        for _ in range(200):
            report = compress(tinylm, copy.deepcopy(cache), context, client=client)
            if report.outcome == "kept":
                break
    assert report.error is not None
    assert report.error.code in ("unreachable", "deadline")


def test_a_fault_may_be_raised_instead(tinylm: Any, context: Any, connect: Any) -> None:
    cache = prefill(tinylm, context)
    with pytest.raises(SemproxyError) as e:
        compress(tinylm, cache, context, client=connect("nobody"), on_error="raise")
    assert e.value.code == "policy.denied"


def test_a_cache_that_was_given_to_something_else_is_not_touched(tinylm: Any, context: Any, connect: Any) -> None:
    for more in (None, context[:, :100]):
        cache = prefill(tinylm, context)
        pending = begin(tinylm, cache, context, client=connect("quarter"))
        cache.crop(-100)
        if more is not None:  # as long as before, but other tokens
            with torch.no_grad():
                tinylm(more, cache=cache)
        report = pending.finish()
        assert report.error is not None
        assert (report.outcome, report.error.code) == ("kept", "engine.changed")
        assert cache.get_seq_length() == (764 if more is None else 864)


def test_pages_that_were_given_up_leave_the_cache(tinylm: Any, context: Any, connect: Any) -> None:
    cache = prefill(tinylm, context)
    pending = begin(tinylm, cache, context, client=connect("slow"), layers_per_page=1)
    pending.cancel()
    report = pending.finish()
    assert (report.outcome, report.bytes_after) == ("kept", report.bytes_before)
    assert pending.ready()


def test_caches_of_other_kinds_and_bad_input_are_refused(tinylm: Any, context: Any, connect: Any) -> None:
    client = connect("quarter")
    static = StaticCache(config=tinylm.config, max_cache_len=900)
    with torch.no_grad():
        tinylm(context, cache=static)
    cache = prefill(tinylm, context)
    right = torch.ones(1, 864)
    right[0, -3:] = 0
    with pytest.raises(UnsupportedModel, match="StaticLayer"):
        compress(tinylm, static, context, client=client)
    with pytest.raises(UnsupportedModel, match="prefill first"):
        compress(tinylm, DynamicCache(), context, client=client)
    with pytest.raises(UnsupportedModel, match="on the left"):
        compress(tinylm, cache, context, client=client, attention_mask=right)
    with pytest.raises(UnsupportedModel, match="one number per token"):
        compress(tinylm, cache, context, client=client, position_ids=torch.zeros(3, 1, 864))
    with pytest.raises(ValueError, match="input_ids"):
        compress(tinylm, cache, context[:, :10], client=client)
    with pytest.raises(TypeError, match="client"):
        compress(tinylm, cache, context)


def test_the_local_backend_runs_a_sidecar_of_its_own(binary: str, tinylm: Any, context: Any) -> None:
    try:
        for _ in range(2):
            cache = prefill(tinylm, context)
            report = compress(tinylm, cache, context, backend="local", ratio=0.25, on_error="raise")
            assert report.bytes_after < 0.27 * report.bytes_before
            assert report.shared == 1
    finally:
        close_local()


def test_the_local_backend_cuts_pages_where_its_tokenizer_says(binary: str, tinylm: Any, context: Any, tmp_path: Any) -> None:
    """With the tokenizer the cores are those of a sidecar that has it, and without it they are others."""
    try:
        first = {}
        for name, tokenizer in (("without", ""), ("with", str(TOKENIZER))):
            cache = prefill(tinylm, context)
            compress(tinylm, cache, context, backend="local", ratio=0.25, tokenizer=tokenizer, on_error="raise")
            first[name] = cache.layers[0].prefix.keys
        with LocalSidecar(local_policy(0.25), tokenizer=str(TOKENIZER)) as s, s.client() as client:
            cache = prefill(tinylm, context)
            compress(tinylm, cache, context, client=client, on_error="raise")
        assert torch.equal(first["with"], cache.layers[0].prefix.keys)
        assert first["with"].shape != first["without"].shape or not torch.equal(first["with"], first["without"])
        with pytest.raises(SemproxyError, match=r"local\.no_tokenizer.*nowhere"):
            compress(tinylm, prefill(tinylm, context), context, backend="local", tokenizer=tmp_path / "nowhere.json")
    finally:
        close_local()


def test_a_local_backend_that_cannot_start_says_why(tinylm: Any, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMPROXY_BIN", "/nowhere/semproxy")
    with pytest.raises(SemproxyError, match=r"local\.no_binary.*SEMPROXY_BIN"):
        compress(tinylm, prefill(tinylm, context), context, backend="local", ratio=0.77)


def test_the_sidecar_counts_the_pages_of_the_tenant(tinylm: Any, context: Any, sidecar: LocalSidecar, connect: Any) -> None:
    compress(tinylm, prefill(tinylm, context), context, client=connect("quarter"), on_error="raise")
    assert json.loads(connect("quarter").stat().body)["objects"] >= 1
    with urllib.request.urlopen(sidecar.admin + "/metrics") as r:
        assert b"semproxy" in r.read()
