"""Generated tasks, policies from snippets, methods by name."""

import json
from pathlib import Path

import pytest

from semproxy_quality import methods, tasks, texts
from semproxy_quality.product import _mean, profile

HAY = {"kjv": "And it came to pass. He went up. " * 400, "python": "def f(x):\n    return x\n\n" * 400}


def test_every_answer_is_in_its_context() -> None:
    for case in tasks.generate(HAY, 3000, 24, 1):
        for q in case.questions:
            told = case.context.replace("\n", " ")
            assert q.answer.strip() in told, (case.task, q)


def test_all_kinds_come_in_turn() -> None:
    made = tasks.generate(HAY, 2000, 12, 1)
    assert [c.task for c in made] == list(tasks.KINDS) * 2


def test_the_same_seed_makes_the_same_cases() -> None:
    assert tasks.generate(HAY, 2000, 6, 7) == tasks.generate(HAY, 2000, 6, 7)
    assert tasks.generate(HAY, 2000, 6, 7) != tasks.generate(HAY, 2000, 6, 8)


def test_cases_are_read_as_they_were_written(tmp_path: Path) -> None:
    made = tasks.generate(HAY, 1000, 6, 3)
    (tmp_path / "t.jsonl").write_text(tasks.write(made))
    assert tasks.read(tmp_path / "t.jsonl") == made


def test_windows_do_not_overlap_and_take_turns() -> None:
    sources = {"a": "".join(f"{i:04}\n" for i in range(400)), "b": "".join(f"b{i:03}\n" for i in range(100))}
    found = texts.windows(sources, 200, 8, 1)
    assert [t.source for t in found] == ["a", "b", "a", "b", "a", "a", "a", "a"]
    lines = [line for t in found for line in t.text.splitlines() if len(line) == 4]
    assert len(lines) == len(set(lines))


def test_a_snippet_is_a_profile() -> None:
    assert profile("weighted,exact=0.5,protect.recent=32,budget=equal") == {
        "method": "weighted",
        "exact": 0.5,
        "protect": {"recent": 32},
        "budget": "equal",
    }
    with pytest.raises(ValueError, match="not KEY=VALUE"):
        profile("weighted,exact")


def test_methods_have_the_cost_of_what_they_look_at() -> None:
    want = {
        "weighted": "all",
        "weighted@last": "last",
        "weighted@noqueries": "none",
        "weighted@importance": "second",
        "kvp:KeyDiff": "none",
        "kvp:SnapKV": "last",
        "kvp:AdaKV(SnapKV)": "last",
        "kvp:Compactor": "all",
        "kvp:Merging(ExpectedAttention)": "all",
        "kvp:KVzip": "second",
        "am": "all",
    }
    assert {m.name: m.cost for m in methods.choose(list(want), ["adaptive"])} == want
    assert "kvp:KVzip" not in {m.name for m in methods.choose(list(want), ["adaptive"], "all")}


def test_a_budget_is_set_where_the_profile_does_not_say_it() -> None:
    got = {m.name: json.dumps(m.product) for m in methods.choose(["weighted", "semantic,budget=layered"], ["adaptive", "equal"])}
    assert got == {
        "weighted": '{"method": "weighted", "budget": "adaptive"}',
        "weighted (equal)": '{"method": "weighted", "budget": "equal"}',
        "semantic,budget=layered": '{"method": "semantic", "budget": "layered"}',
    }


@pytest.mark.parametrize("name", ["kvp:NoSuch", "kvp:Ada(", "weighted@often", "weighted,exact"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        methods.parse(name)


def test_words_that_the_sidecar_reports_are_no_numbers() -> None:
    pages = [{"error": "0.25", "guard": "held", "worst": "3/4"}, {"error": "0.75", "guard": "held"}]
    assert _mean(pages) == {"error": 0.5}
