"""Tables, pictures and the study of predictors, from rows."""

import json
import random
from pathlib import Path

import pytest

from semproxy_quality import picture, predict, table
from semproxy_quality.rows import Row, read

METHODS = {"weighted": (True, "last", 0.02), "kvp:SnapKV": (False, "last", 0.10), "kvp:KVzip": (False, "second", 0.01)}


def rows() -> list[Row]:
    rng = random.Random(1)
    out: list[Row] = []
    base = {"model": "m", "tokens": 100}
    for text in range(6):
        full = 2 + rng.random()
        out.append(
            base
            | {
                "kind": "perplexity",
                "method": "full",
                "product": False,
                "cost": "",
                "ratio": 1.0,
                "kept": 1.0,
                "text": text,
                "nll": full,
                "full": full,
            }
        )
        for name, (product, cost, loss) in METHODS.items():
            for ratio in (0.5, 0.25):
                nll = full + loss / ratio + rng.random() / 100
                out.append(
                    base
                    | {
                        "kind": "perplexity",
                        "method": name,
                        "product": product,
                        "cost": cost,
                        "ratio": ratio,
                        "kept": ratio,
                        "text": text,
                        "nll": nll,
                        "full": full,
                    }
                )
    for case in range(6):
        for question in range(3):
            place = {
                "kind": "answer",
                "mode": "agnostic",
                "case": case,
                "task": "keys",
                "question": question,
                "full_right": True,
                "full": 0.5,
            }
            out.append(
                base | place | {"method": "full", "product": False, "cost": "", "ratio": 1.0, "kept": 1.0, "right": True, "nll": 0.5}
            )
            for name, (product, cost, loss) in METHODS.items():
                for ratio in (0.5, 0.25):
                    right = rng.random() > loss / ratio * 2
                    fidelity = {"fidelity": {"good": loss / ratio, "bad": -loss / ratio, "flat": 1.0}} if product else {}
                    out.append(
                        base
                        | place
                        | fidelity
                        | {
                            "method": name,
                            "product": product,
                            "cost": cost,
                            "ratio": ratio,
                            "kept": ratio,
                            "right": right,
                            "nll": 0.5 + loss / ratio + case / 1000,
                        }
                    )
    return out


def test_the_table_says_who_is_ahead() -> None:
    text = table.render(rows())
    assert "| **weighted** | last queries |" in text
    assert "behind kvp:KVzip" not in text  # it needs more
    assert "ahead everywhere, or level" in text
    other = table.render(rows(), "kvp:SnapKV")
    assert "behind" not in other.split("beside what needs")[0]


def test_a_press_that_is_ahead_is_told() -> None:
    swapped = [r | {"method": {"weighted": "kvp:SnapKV", "kvp:SnapKV": "weighted"}.get(r["method"], r["method"])} for r in rows()]
    swapped = [r | {"product": r["method"] == "weighted"} for r in swapped]
    assert "50 %: behind kvp:SnapKV by" in table.render(swapped)


def test_pictures_are_drawn(tmp_path: Path) -> None:
    assert {f.name for f in picture.draw(rows(), tmp_path)} == {"loss.svg", "loss.png", "recall.svg", "recall.png"}


def test_a_good_predictor_is_told_from_a_bad_one() -> None:
    text = predict.render(rows())
    lines = {
        line.split(" | ")[0].strip("| "): line.split(" | ")[1:]
        for line in text.split("As a guard")[0].splitlines()
        if line.startswith("| ")
    }
    # One method at two ratios: a field of two values, and twelve losses. Their correlation is .87 at most.
    assert float(lines["good"][0].split(" / ")[1]) > 0.85
    assert float(lines["bad"][0].split(" / ")[1]) < -0.85
    assert lines["flat"][0] == "+nan / +nan"


def test_rows_that_were_measured_again_count_once(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows() + rows()))
    assert len(read([file])) == len(rows())
    (tmp_path / "none").write_text("")
    with pytest.raises(SystemExit):
        read([tmp_path / "none"])


def test_a_guard_is_held_on_other_cases() -> None:
    def request(case: int, probe: float, lost: float) -> predict.Request:
        return predict.Request("weighted", 0.25, ("agnostic", "keys", case), lost, 0.0, {"probe": probe, "minus": -probe})

    found = [request(c, probe, lost) for c in range(8) for probe, lost in ((0.1, 0.0), (0.2, 0.02), (0.3, 0.6 if c % 2 else 0.5))]
    rising, falling = (predict.guard(found, name, 0.02) for name in ("probe", "minus"))
    assert rising is not None
    assert falling is not None
    assert rising.threshold == 0.2
    assert rising.passed == pytest.approx(2 / 3)
    assert (falling.threshold, falling.rising) == (-0.2, False)
    assert rising.lost.value == pytest.approx(0.01) == falling.lost.value
    assert predict.guard([request(c, 0.1, 0.5) for c in range(4)], "probe", 0.02) is None
