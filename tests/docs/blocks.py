"""The fenced blocks of Markdown pages."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_FENCE = re.compile(r"^\s*(`{3,}|~{3,}|:{3,})\s*(\{[\w-]+\})?\s*([\w.+-]*)\s*(.*)$")


class Block(NamedTuple):
    """One fenced block.

    Attributes:
        page: the file it stands in.
        line: of the fence, from 1.
        directive: MyST's, without braces; empty for a plain fence.
        language: of the text.
        caption: the name under which a reader saves it.
        text: without fences and options.
    """

    page: Path
    line: int
    directive: str
    language: str
    caption: str
    text: str

    @property
    def has_prompt(self) -> bool:
        return ">>>" in self.text

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    lines = enumerate(page.read_text().splitlines(), 1)
    for number, line in lines:
        opened = _FENCE.match(line)
        if not opened:
            continue
        fence, directive, language = opened[1], (opened[2] or "").strip("{}"), opened[3]
        inside = []
        for _, text in lines:
            if text.strip().startswith(fence) and not text.strip().strip(fence[0]):
                break
            inside.append(text)
        else:
            raise ValueError(f"{page}:{number}: a block that does not end")
        options = {}
        while directive and inside and (option := re.match(r":(\w+):\s*(.*)", inside[0])):
            options[option[1]] = option[2]
            inside.pop(0)
        yield Block(page, number, directive, language, options.get("caption", ""), "\n".join(inside).strip("\n") + "\n")


def commands_of(block: Block) -> Iterator[str]:
    """The commands of a shell block, one by one, without comments."""
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        for command in re.split(r" && | \| ", line.removeprefix("$ ")):
            bare = re.sub(r"\s+#.*$", "", command).strip()
            if bare and not bare.startswith("#"):
                yield bare
