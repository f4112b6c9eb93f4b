"""Ten minutes of the measurements on SmolLM2: bounds on the product's default, and who it must be ahead of."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import required

from semproxy_quality import stats
from semproxy_quality.cli import _parser
from semproxy_quality.rows import Row, read

RATIO = 0.25
ALIKE = "weighted,headWeights=[[1]]"
PRESSES = ["KeyDiff", "Streaming", "SnapKV", "TOVA", "AdaKV(SnapKV)", "ExpectedAttention", "Merging(ExpectedAttention)", "Compactor"]
# What the default was measured at on SmolLM2 (48 questions, 16 texts). A loss is a regression where it is above by more than three
# of its standard errors here.
LOG_PERPLEXITY = 0.025
LOST = 0.21  # of the answers that the full cache gives


def measured(smollm2: Path, out: Path, *args: str) -> list[Row]:
    if not os.environ.get("SEMPROXY_BIN"):
        if required("smollm2"):
            pytest.fail("SEMPROXY_TEST_REQUIRE names smollm2, and SEMPROXY_BIN no semproxy: make quality-quick builds one")
        pytest.skip("SEMPROXY_BIN names no semproxy: make quality-quick builds one")
    from semproxy_quality import job

    job.run(_parser().parse_args(["run", "--model", str(smollm2), "--cases", "10", *args, "--out", str(out)]))
    return read([out / "rows.jsonl"])


@pytest.fixture(scope="module")
def rows(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    names = ["weighted", *(f"kvp:{p}" for p in PRESSES)]
    return measured(smollm2, tmp_path_factory.mktemp("quality"), "--ratios", str(RATIO), "--windows", "12", "--methods", *names)


@pytest.fixture(scope="module")
def eighth(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Answers at an eighth of the tokens."""
    return measured(smollm2, tmp_path_factory.mktemp("eighth"), "--ratios", "0.125", "--text", "none", "--methods", "weighted", ALIKE)


def of(rows: Sequence[Row], method: str, kind: str) -> list[Row]:
    return [r for r in rows if r["method"] == method and r["kind"] == kind]


def test_perplexity_of_the_default(rows: list[Row]) -> None:
    loss = stats.loss(of(rows, "weighted", "perplexity"))
    assert loss.count >= 10
    assert loss.value <= LOG_PERPLEXITY + 3 * loss.error, f"ratio {math.exp(loss.value):.4f}"


def test_recall_of_the_default(rows: list[Row]) -> None:
    asked = of(rows, "weighted", "answer")
    lost = stats.lost(asked)
    assert sum(r["full_right"] for r in asked) >= 20, "the full cache answers too little for this to say anything"
    assert lost.value <= LOST + 3 * lost.error


def test_the_default_keeps_what_it_was_asked_to(rows: list[Row]) -> None:
    for r in rows:
        if r["method"] == "weighted":
            assert r["kept"] == pytest.approx(RATIO, abs=0.01)


@pytest.mark.parametrize("press", PRESSES)
def test_the_default_is_ahead(rows: list[Row], press: str) -> None:
    """Of every press that needs no second prefill, on the same texts and questions."""
    press = f"kvp:{press}"
    text, asked = of(rows, press, "perplexity"), of(rows, press, "answer")
    ppl = stats.paired(text, of(rows, "weighted", "perplexity"), "nll")
    right = stats.paired(asked, of(rows, "weighted", "answer"), "right")
    assert ppl.value > 0, f"behind by {-ppl.value:.4f} ± {ppl.error:.4f} in log perplexity"
    assert right.value < 0, f"behind by {right.value:.3f} ± {right.error:.3f} in recall"


def test_known_heads_keep_more_facts(eighth: list[Row]) -> None:
    """At an eighth of the tokens answers lose much less likelihood than where all heads weigh the same."""
    known, alike = of(eighth, "weighted", "answer"), of(eighth, ALIKE, "answer")
    gain = stats.paired(known, alike, "nll")
    assert gain.value < -gain.error, f"{gain.value:.3f} ± {gain.error:.3f}"
