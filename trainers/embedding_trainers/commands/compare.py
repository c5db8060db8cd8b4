"""The command ``feast-embeddings compare``. Heavy imports wait until it runs, so that its help is instant."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedding_trainers import AUTO
from embedding_trainers.commands.config_file import read_config
from embedding_trainers.commands.interaction_options import QUERY, InteractionSource, reading_options
from embedding_trainers.commands.repo_option import repo_option
from embedding_trainers.commands.settings import ConfiguredCommand, is_given, model_named, refuse_typed
from embedding_trainers.commands.split_options import LOG_TO_SPLIT, SplitChoice, split_options
from embedding_trainers.commands.trainer_options import run_options
from feast_embeddings.cli.version_words import version_named
from feast_embeddings.errors import EmbeddingsError, InputError

if TYPE_CHECKING:
    from embedding_trainers.comparison.paired import Row
    from embedding_trainers.comparison.runs import Contender
    from embedding_trainers.interactions import LogReport
    from embedding_trainers.trainer import RunOptions

__all__ = ["compare"]

_ENDINGS = (".md", ".json", ".png")
# What has no effect in one of the two uses is refused there.
_ONLY_WITH_TRAINERS = ("query", "split", "split_at", "trainers", "configs", "device")


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """What was compared: trainers or versions, on what, and how it ended; and why others failed, by name.

    Trainers that no one named and that cannot train here, or on this log, are left out, which is no failure.
    """

    kind: str
    method: str
    n_users: int
    n_ranked: int
    n_pairs: int
    logs: dict[str, LogReport]
    rows: list[Row]
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        from embedding_trainers.evaluation.report import ranked_users

        return f"{self.method}: {ranked_users(self.n_ranked, self.n_users)}, {self.n_pairs:,} pairs to predict"

    def text(self) -> str:
        from embedding_trainers.comparison.table import markdown

        counted = [f"{log}: {line}" for log, became in self.logs.items() for line in became.lines()]
        return "\n".join([*counted, markdown(self.kind, self.title, self.rows)])

    def json(self) -> str:
        facts = {name: getattr(self, name) for name in ("method", "n_users", "n_ranked", "n_pairs")}
        rows = {log: dataclasses.asdict(became) for log, became in self.logs.items()}
        compared = [dataclasses.asdict(row) for row in self.rows]
        return json.dumps(
            facts | {"compared": compared, "failed": self.failed, "left_out": self.left_out, "rows": rows}
        )


@click.command(cls=ConfiguredCommand)
@LOG_TO_SPLIT
@click.option(
    "--trainers",
    metavar="NAME,…",
    help="Trainers to compare, each with its defaults.  [default: all that can train on this log, unless there is a "
    "--config]",
)
@click.option(
    "--config",
    "configs",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="TOML file with a trainer and its hyper-parameters, which is compared too; repeatable.",
)
@click.option(
    "--versions",
    metavar="live|latest|previous|V,…",
    help="Compare versions of a model of --repo on --test instead of training.",
)
@click.option("--model", metavar="NAME", help="The model of --versions or --like; optional if there is only one.")
@repo_option("Feast repo.")
@split_options
@QUERY
@reading_options
@click.option(
    "--output",
    metavar="FILE",
    help="Also write the result to this file: .md, .json, or .png for a chart of quality against CPU seconds.",
)
@run_options
def compare(
    interactions: str | None,
    trainers: str | None,
    configs: tuple[Path, ...],
    versions: str | None,
    model: str | None,
    repo: Path,
    test: SplitChoice,
    query: str | None,
    source_of: Callable[[str], InteractionSource],
    output: str | None,
    options: RunOptions,
    as_json: bool,
) -> None:
    """Compare trainers, or existing versions, on the same test users.

    Each trainer trains on the same split in its own process, whose CPU seconds and highest memory count for the
    trainer. If one fails, the others are compared, and the exit code is 1. Models whose difference to the best may be
    chance are marked as noise. docs/evaluation.md defines all numbers.
    """
    from embedding_trainers.extra import import_extra

    context = click.get_current_context()
    if versions is not None and not is_given(context, "interactions"):
        interactions = None  # of the settings: versions are asked for
    if (interactions is None) == (versions is None):
        raise InputError("name either --interactions, to compare trainers, or --versions, to compare versions")
    target = None if output is None else _target(output, draws=versions is None)
    import_extra("scipy.sparse", "a comparison")
    if interactions is not None:
        if not is_given(context, "like"):
            refuse_typed(
                ("model",), "works only with --versions, or with --like, which is then a version of that model"
            )
        source = dataclasses.replace(source_of(interactions), query=query, repo=repo)
        named = trainers is not None or bool(configs)
        found = _trainers(source, test, _contenders(trainers, configs), options, named=named)
    else:
        refuse_typed(_ONLY_WITH_TRAINERS, "has no effect with --versions, as nothing is trained")
        if test.file is None:
            raise InputError("name the interactions that the versions are to predict with --test")
        source = dataclasses.replace(source_of(test.file), repo=repo)
        found = _versions(source, test, repo, model, _names("--versions", str(versions)), options)
    if target is not None:
        _write(target, found)
    click.echo(found.json() if as_json else found.text())
    if target is not None and not as_json:
        click.echo(f"wrote {output}")
    for why in found.left_out.values():
        click.echo(f"left out: {why}", err=True)
    if found.failed:
        raise EmbeddingsError(_failures(found.failed, len(found.rows)))


def _failures(failed: Mapping[str, str], n_trained: int) -> str:
    return f"{len(failed)} of {len(failed) + n_trained} trainers failed: {'; '.join(failed.values())}"


def _target(output: str, *, draws: bool) -> Path:
    from embedding_trainers.comparison.chart import import_figure
    from feast_embeddings.cli.output_file import output_path

    target = output_path("--output", output, *_ENDINGS)
    if target.suffix == ".png":
        if not draws:
            raise InputError(
                f"--output {output}: a chart has CPU seconds, and versions are not trained; write .md or .json"
            )
        import_figure()  # before hours of training
    return target


def _write(target: Path, found: _Comparison) -> None:
    from embedding_trainers.comparison.chart import draw
    from feast_embeddings.cli.output_file import new_file

    with new_file(target) as file:
        if target.suffix == ".png":
            draw(found.title, found.rows, file)
        else:
            file.write(((found.json() if target.suffix == ".json" else found.text()) + "\n").encode())


def _names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InputError(f"{option} {text!r}: expected names with commas between them")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{option}: {twice!r} is named twice")
    return names


def _contenders(trainers: str | None, configs: Sequence[Path]) -> list[Contender]:
    from embedding_trainers.comparison.runs import Contender
    from embedding_trainers.trainer import known_trainers

    names = [] if configs else known_trainers()
    if trainers is not None:
        names = _names("--trainers", trainers)
    contenders = [Contender(name, name, {}) for name in names]
    for path in configs:
        parameters = read_config(path)
        contender = Contender(path.stem, parameters.pop("trainer", AUTO), parameters)
        if contender.name in {other.name for other in contenders}:
            raise InputError(f"--config {path}: another row of the table is called {path.stem!r}; rename the file")
        contenders.append(contender)
    for contender in contenders:
        contender.config()  # a wrong one is an error before the first is trained
    return contenders


def _trainers(
    source: InteractionSource,
    test: SplitChoice,
    contenders: Sequence[Contender],
    options: RunOptions,
    *,
    named: bool,
) -> _Comparison:
    from embedding_trainers.comparison.paired import compare
    from embedding_trainers.comparison.runs import NotInstalledError, train_each
    from embedding_trainers.trainer import find_trainer

    uses_weights = any(find_trainer(each.trainer).uses_weights for each in contenders)
    reads_log = any(each.reads_log for each in contenders)
    parts, logs = test.of_log(source, options.seed, uses_weights=uses_weights, reads_log=reads_log)
    scored, errors = train_each(contenders, parts, options)
    failed = {name: str(error) for name, error in errors.items()}
    if not scored:
        [first, *others] = errors.values()
        if not others:
            raise first
        kind = InputError if all(isinstance(error, InputError) for error in errors.values()) else EmbeddingsError
        raise kind(_failures(failed, 0))
    rows = compare(scored, seed=options.seed)
    cannot = {name for name, error in errors.items() if isinstance(error, InputError | NotInstalledError)}
    left_out = {} if named else {name: why for name, why in failed.items() if name in cannot}
    n_pairs = int(parts.test.nnz)
    return _Comparison(
        *("trainer", parts.method, parts.n_test_users, len(scored[0].values), n_pairs, logs, rows),
        failed={name: why for name, why in failed.items() if name not in left_out},
        left_out=left_out,
    )


def _versions(
    source: InteractionSource,
    test: SplitChoice,
    repo: Path,
    model: str | None,
    words: Sequence[str],
    options: RunOptions,
) -> _Comparison:
    from embedding_trainers.comparison.paired import compare
    from embedding_trainers.comparison.versions import score_versions
    from embedding_trainers.extra import import_extra
    from feast_embeddings.artifact import load_artifact

    model = model_named(repo, model)
    named: dict[str, list[str]] = {}  # two words may be one version
    for word in words:
        named.setdefault(version_named(repo, model, word), []).append(word)
    artifacts = {version: load_artifact(repo / "data", model, version) for version in named}
    [first, *_] = artifacts.values()
    log, became = test.read(source, first)
    loaded = {
        f"{version} ({', '.join(words)})" if words != [version] else version: test.of_version(artifacts[version], log)
        for version, words in named.items()
    }
    with import_extra("threadpoolctl").threadpool_limits(options.threads or None):
        scored, n_users, n_pairs = score_versions(loaded, log)
    rows = compare(scored, seed=options.seed)
    method = test.describe(f"interactions of {test.file} that all versions of {model} can predict")
    return _Comparison("version", method, n_users, len(scored[0].values), n_pairs, {"test": became}, rows)
