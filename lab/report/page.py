"""The frame of a report: plain HTML with its style inside, readable on paper and on a phone."""

from collections.abc import Mapping, Sequence
from html import escape

_STYLE = """
:root { color-scheme: light; --ink: #1d2733; --faint: #66707c; --line: #e3e7eb; }
* { box-sizing: border-box; }
body { margin: 0; background: #fbfbfa; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .6rem; text-wrap: balance; }
h1::first-letter { text-transform: uppercase; }
h2 { font-size: 1.1rem; margin: 0 0 .9rem; }
.finding { max-width: 46rem; margin: 0; font-size: 1.08rem; }
section { border-top: 1px solid var(--line); margin-top: 2.2rem; padding-top: 1.4rem; }
.figures { display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
figure { margin: 0; max-width: 34rem; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: inherit !important; font-variant-numeric: tabular-nums; }
figcaption, .note { color: var(--faint); font-size: .88rem; margin: .5rem 0 0; max-width: 46rem; }
.scroll { overflow-x: auto; margin-top: 1.5rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .9rem .45rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--faint); font-weight: 500; font-size: .88rem; }
th:first-child { text-align: left; font-weight: 600; }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .5em; }
dl { display: grid; grid-template-columns: minmax(9rem, max-content) 1fr; gap: .35rem 1.5rem;
  margin: 0; font-size: .95rem; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 34rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .6rem; }
}
@media print { body { background: none; } section { break-inside: avoid; } }
"""


def page(title: str, finding: str, sections: Sequence[str]) -> str:
    """Return the whole document."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>pnnlab: {escape(title)}</title>\n<style>{_STYLE}</style>\n"
        "</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="finding">{escape(finding)}</p>\n'
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(heading: str, *blocks: str) -> str:
    """Return a section; figures among its blocks stand side by side where there is room."""
    drawn = [block for block in blocks if block.startswith("<figure")]
    others = [block for block in blocks if not block.startswith("<figure")]
    grid = f'<div class="figures">{"".join(drawn)}</div>' if drawn else ""
    return f"<section>\n<h2>{escape(heading)}</h2>\n{grid}{''.join(others)}\n</section>"


def figure(svg: str, caption: str) -> str:
    """Return a figure with its caption; `svg` is markup, the caption text."""
    return f"<figure>\n{svg}\n<figcaption>{escape(caption)}</figcaption>\n</figure>\n"


def table(rows: Sequence[Mapping[str, str]], note: str) -> str:
    """Return a table under the keys of the first row; cells and the note are markup."""
    keys = list(rows[0])
    head = "".join(f'<th scope="col">{key}</th>' for key in keys)
    body = "\n".join(f"<tr>{_cells(row, keys)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f'<tbody>\n{body}\n</tbody>\n</table></div>\n<p class="note">{note}</p>\n'
    )


def _cells(row: Mapping[str, str], keys: Sequence[str]) -> str:
    first = f'<th scope="row">{row[keys[0]]}</th>'
    return first + "".join(f"<td>{row.get(key, '')}</td>" for key in keys[1:])


def definitions(facts: Mapping[str, str]) -> str:
    """Return names with their values, as a list."""
    pairs = (f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f"<dl>{''.join(pairs)}</dl>"
