"""Pages of the site that are not files in docs/: from the root, notebooks, and the references. MkDocs calls it."""

from __future__ import annotations

import importlib
import json
import os
import re
from pathlib import Path

from click import Context
from configs.site.examples import examples_in
from configs.site.troubleshooting import DOCTOR, troubleshooting_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from feast_embeddings.cli import main

SITE = Path(__file__).parent
ROOT = SITE.parents[1]
DOCS = ROOT / "docs"
OF_THE_ROOT = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}

# What docs/compatibility.md promises: all public names of a package, or these of a module.
REFERENCES: dict[str, dict[str, tuple[str, ...]]] = {
    "feast_embeddings": {"feast_embeddings": ()},
    "feast_embeddings.artifact": {"feast_embeddings.artifact": ()},
    "feast_embeddings.client": {"feast_embeddings.client": ()},
    "feast_embeddings.engines": {
        "feast_embeddings.engines.engine": ("Engine",),
        "feast_embeddings.engines.testing": ("EngineTests",),
    },
    "feast_embeddings.reading": {"feast_embeddings.reading": ()},
    "feast_embeddings.service": {"feast_embeddings.service": ()},
    "embedding_trainers": {
        "embedding_trainers.train": (),
        "embedding_trainers.trainer": (),
        "embedding_trainers.testing": ("TrainerTests",),
        "embedding_trainers.content.encoder": ("Encoder",),
        "embedding_trainers.content.testing": ("EncoderTests",),
    },
}

_DIAGRAM = re.compile(r"^```mermaid\n(?P<diagram>.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[(?P<text>[^\[\]]+)\]\((?!\w+:|#)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {uri: (ROOT / name).read_text() for name, uri in OF_THE_ROOT.items()}
    pages |= {f"notebooks/{path.stem}.md": notebook_page(path) for path in sorted(DOCS.glob("notebooks/*.ipynb"))}
    pages |= {f"reference/{name}.md": python_page(name) for name in REFERENCES}
    pages["reference/commands.md"] = commands_page()
    pages["troubleshooting.md"] = troubleshooting_page()
    pages["assets/iframe-worker.js"] = (SITE / "iframe-worker.js").read_text()
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write diagrams as tables, and lead links to where their files are on the site.

    Of a link to a file that is not there, the text stays.
    """
    written = {uri: name for name, uri in OF_THE_ROOT.items()}
    uri = page.file.src_uri
    folder = (ROOT / written[uri] if uri in written else DOCS / uri).parent
    on_the_site = {DOCS / file.src_uri: file.src_uri for file in files}
    on_the_site |= {ROOT / name: uri for name, uri in OF_THE_ROOT.items()}
    on_the_site |= {path: f"notebooks/{path.stem}.md" for path in DOCS.glob("notebooks/*.ipynb")}
    on_the_site[DOCTOR] = "troubleshooting.md"

    def moved(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / link["path"]))
        if target in on_the_site:
            path = os.path.relpath(on_the_site[target], Path(uri).parent)
            return f"[{link['text']}]({Path(path).as_posix()}{link['anchor'] or ''})"
        return link["text"] if target.exists() else link[0]

    return _LINK.sub(moved, _DIAGRAM.sub(lambda found: table_of(found["diagram"]), markdown))


def table_of(diagram: str) -> str:
    """Return a flowchart of Mermaid, of nodes in subgraphs, as a table; a script that draws it has megabytes."""
    rows, arrows = list[list[str]](), list[list[str]]()
    for line in map(str.strip, diagram.splitlines()):
        if line.startswith("subgraph"):
            rows.append([])
        elif "-->" in line:
            arrows.append(re.split(r"\s*-->\s*", line))
        elif re.fullmatch(r"\w+", line) and line != "end":
            rows[-1].append(line)
        elif line not in ("end", "flowchart TD"):
            raise ValueError(f"a diagram for the site has subgraphs, nodes and arrows only, got {line!r}")
    table = ["| floor | room | arrows to |", "|---|---|---|"]
    for number, names in zip(reversed(range(len(rows))), rows, strict=True):
        for name in names:
            ends = (f"`{end}`" for start, end in arrows if start == name)
            table.append(f"| {number} | `{name}` | {', '.join(ends)} |")
    return "\n".join(table)


def notebook_page(path: Path) -> str:
    """The cells of a notebook."""
    page = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            language = "bash" if text.startswith("%%bash") else "python"
            text = f"```{language}\n{text.removeprefix('%%bash').strip()}\n```"
        page.append(text)
    return "\n\n".join(page)


def python_page(name: str) -> str:
    """A page for mkdocstrings: each public name from where it is defined."""
    page = [f"# {name}"]
    for module, names in REFERENCES[name].items():
        home = importlib.import_module(module)
        page += re.findall(r"^Stability: .*", home.__doc__ or "", re.MULTILINE)
        for public in names or home.__all__:
            value = getattr(home, public)
            value = sorted(value) if isinstance(value, frozenset) else value  # the same page each time
            defined = getattr(value, "__module__", "")
            is_ours = defined.startswith(("feast_embeddings", "embedding_trainers"))
            page.append(f"::: {defined}.{public}" if is_ours else f"`{module}.{public} = {value!r}`")
    return "\n\n".join(page)


def commands_page() -> str:
    """The help of each command, as `--help` prints it, and examples with what they print."""
    parent = Context(main, info_name="feast-embeddings")
    examples = examples_in([ROOT / "README.md", *sorted(DOCS.glob("*.md"))])
    page = ["# Commands"]
    for name in main.list_commands(parent):
        if command := main.get_command(parent, name):
            told = command.make_context(name, [], parent, resilient_parsing=True, terminal_width=110)
            page.append(f"## {name}\n\n```text\n{told.get_help()}\n```")
            page += [f"```bash\n{one.code}```\n\n```text\n{one.output}```" for one in examples.get(name, [])]
    return "\n\n".join(page)
