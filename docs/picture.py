"""Draw docs/demo.svg, the README's picture: go run ./cmd/semproxy demo --color always | python docs/picture.py docs/demo.svg

Needs the package rich."""
import io, re, sys
from rich.console import Console
from rich.text import Text

text = sys.stdin.read()
width = max(len(Text.from_ansi(line).plain) for line in text.splitlines())
console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="256")
console.print(Text.from_ansi(text), soft_wrap=True)
svg = console.export_svg(title="semproxy demo")
svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S)  # the reader's own monospace font
open(sys.argv[1], "w").write(svg.replace("Fira Code", "ui-monospace"))
