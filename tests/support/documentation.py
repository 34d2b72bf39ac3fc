"""The pages of the documentation as text, their code blocks, and the tables of the reference."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
TEXT = {
    page.relative_to(ROOT / "docs").as_posix(): page.read_text(encoding="utf-8") for page in DOCS
}
REFERENCE = TEXT["reference.md"]
OPENAPI = json.loads((ROOT / "server" / "openapi.json").read_text(encoding="utf-8"))
ADDRESS = "http://127.0.0.1:8000"


def blocks(page: str, language: str, section: str = "") -> list[str]:
    """Return a page's code blocks in a language, those below one heading if it is given."""
    text = TEXT[page]
    if section:
        (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


def table(heading: str) -> dict[str, list[str]]:
    """Return the first table below a heading of the reference: cells by the first one."""
    (text,) = re.findall(
        rf"^##+ {re.escape(heading)}\n(.*?)(?=^##+ |\Z)", REFERENCE, re.DOTALL | re.MULTILINE
    )
    lines = re.search(r"((?:^\|.*\n)+)", text, re.MULTILINE)[1].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0].strip("`"): row[1:] for row in rows}
