"""The command `quality`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .rows import Row, read


def main(argv: list[str] | None = None) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is asked of a hub
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    args = _parser().parse_args(argv)
    args.do(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="quality", description="Measure what compression costs real models.")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="measure, and write rows.jsonl, table.md and pictures")
    run.set_defaults(do=_run)
    run.add_argument("--model", nargs="+", default=["smol"], help="smol, qwen (fetched once), or a folder")
    run.add_argument("--ratios", type=float, nargs="+", default=[0.5, 0.25, 0.125])
    run.add_argument("--methods", nargs="+", help="weighted,exact=0.5 (a policy's profile), kvp:NAME (a press), am, am-repeat")
    run.add_argument("--budgets", type=lambda s: s.split(","), default=["adaptive"], help="of semproxy's methods: adaptive,layered,equal")
    run.add_argument("--cost-class", default="second", choices=["none", "last", "all", "second"], help="leave out what needs more")
    run.add_argument("--text", help="texts for perplexity, a line {source, text} each; none: no perplexity")
    run.add_argument("--windows", type=int, default=16, help="texts")
    run.add_argument("--context", type=int, nargs="+", default=[1024], help="tokens of a text that are compressed")
    run.add_argument("--follow", type=int, default=128, help="tokens after them that are forced through the model")
    run.add_argument("--tasks", help="cases, a line {task, context, qs} each; none: no tasks")
    run.add_argument("--cases", type=int, default=18, help="cases")
    run.add_argument("--only", type=lambda s: s.split(","), default=[], help="kinds of tasks")
    run.add_argument("--chars", type=int, default=3900, help="characters of a generated case")
    run.add_argument("--inside", type=int, default=0, help="cases whose question is inside what is compressed")
    run.add_argument("--seed", type=int, default=1)
    run.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    run.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    run.add_argument("--out", type=Path, required=True, help="folder; rows are added to those that it has")
    for name, words in (("table", "the tables of rows"), ("predict", "rank correlation of what the sidecar reports with what is lost")):
        command = commands.add_parser(name, help=words)
        command.set_defaults(do=_table if name == "table" else _predict)
        command.add_argument("rows", type=Path, nargs="+")
        if name == "table":
            command.add_argument("--reference", default="", help="the method that differences are taken to")
            command.add_argument("--out", type=Path, help="folder for pictures")
        else:
            command.add_argument("--bound", type=float, default=0.02, help="share of the answers that a guard may lose")
    fetch = commands.add_parser("fetch", help="make a model's folder if it is not there, and print its path")
    fetch.set_defaults(do=_fetch)
    fetch.add_argument("model", choices=["smol", "qwen"])
    return parser


def _run(args: argparse.Namespace) -> None:
    from . import job

    job.run(args)
    rows = read([args.out / "rows.jsonl"])
    _show(rows, args.out, "")


def _show(rows: list[Row], out: Path | None, reference: str) -> None:
    from . import picture, table

    text = table.render(rows, reference)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "table.md").write_text(text)
        picture.draw(rows, out)
    print(text)


def _table(args: argparse.Namespace) -> None:
    _show(read(args.rows), args.out, args.reference)


def _predict(args: argparse.Namespace) -> None:
    from . import predict

    print(predict.render(read(args.rows), args.bound))


def _fetch(args: argparse.Namespace) -> None:
    from . import models

    print(models.find(args.model))


if __name__ == "__main__":
    main()
