"""The command line of `semproxy-kv bench`, without an engine."""

from __future__ import annotations

import pytest

from semproxy_kv.vllm.bench import arguments

NEEDED = ["--model", "m", "--text", "t"]


def test_the_bench_takes_settings_of_the_connector() -> None:
    assert arguments(NEEDED).connector == {}
    given = '{"page_first": 896, "importance": true, "shared_memory": ""}'
    assert arguments([*NEEDED, "--connector", given]).connector == {"page_first": 896, "importance": True, "shared_memory": ""}


@pytest.mark.parametrize(("given", "why"), [("{page_first: 896}", "not JSON"), ("[1]", "no JSON object"), ("null", "no JSON object")])
def test_what_is_no_object_is_refused(given: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments([*NEEDED, "--connector", given])
    said = capsys.readouterr().err
    assert "argument --connector" in said
    assert why in said
