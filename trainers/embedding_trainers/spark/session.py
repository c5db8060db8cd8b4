"""The Spark session of a training: the caller's, or a new one; and Spark's failures as errors of one line."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from embedding_trainers.extra import import_extra
from feast_embeddings.errors import EmbeddingsError, InputError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["checkpoints", "functions", "open_session", "spark_errors", "spark_module"]

_THIS_MACHINE = "local[*]"
_LOCAL = re.compile(r"local(\[(\d+|\*)(,\s*\d+)?\])?")
_STANDALONE = re.compile(r"spark://([^,\s/:]+:\d+)(,[^,\s/:]+:\d+)*")
_SECONDS = 5
_ON_THIS_MACHINE = {
    # Spark itself listens to everyone by default,
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    # and does all its work in 1 GiB. This is half of the memory, in MiB.
    "spark.driver.memory": f"{max(1024, os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2**21)}m",
}
_DEFAULTS = {
    "spark.app.name": "feast-embeddings train",
    # Where there are no checkpoints, the lineage of many iterations is deeper than a stack of 1 MB.
    "spark.driver.extraJavaOptions": "-Xss8m",
    "spark.executor.extraJavaOptions": "-Xss8m",
    "spark.log.level": "ERROR",
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


def spark_module(name: str) -> Any:
    """Import a module of PySpark.

    Raises:
        MissingExtraError: it is not installed.
    """
    return import_extra(name, "training on Spark", "spark")


def functions() -> Any:
    """Return PySpark's module of SQL functions."""
    return spark_module("pyspark.sql.functions")


@contextmanager
def open_session(session: SparkSession | None, master: str | None, conf: Mapping[str, str]) -> Iterator[SparkSession]:
    """Yield the given session, else the active one, else a new one that is stopped in the end.

    Args:
        master: of a new session; None is all cores of this machine.
        conf: settings of a new session.

    Raises:
        InputError: `master` or `conf` cannot be used, or a session runs already and would ignore them.
        EmbeddingsError: there is no Java, or Spark does not start.
        MissingExtraError: PySpark is not installed.
    """
    sql = spark_module("pyspark.sql")
    _check_master(master or _THIS_MACHINE)
    if not hasattr(sql.DataFrame, "zipWithIndex"):
        raise EmbeddingsError(
            f"training on Spark needs PySpark 4.2 or later, found {spark_module('pyspark').__version__}; upgrade it"
        )
    running = session or sql.SparkSession.getActiveSession()
    if running is not None:
        if master is not None or conf:
            raise InputError(
                f"a Spark session already runs on {running.conf.get('spark.master')}, which would ignore --master and "
                "--spark-conf; leave them out, or stop that session first"
            )
        yield running
        return
    master = master or _THIS_MACHINE
    for key in conf:
        if not key.startswith("spark."):
            raise InputError(f"--spark-conf {key!r}: expected a setting of Spark, such as spark.executor.memory")
    if not shutil.which("java") and not os.environ.get("JAVA_HOME"):
        raise EmbeddingsError("Spark needs Java 17 or later; install it, or set JAVA_HOME to its folder")
    settings = dict(_DEFAULTS)
    if master.startswith("local"):
        settings |= _ON_THIS_MACHINE | {"spark.pyspark.python": sys.executable}
    with spark_errors():
        builder = sql.SparkSession.builder.master(master)
        for key, value in {**settings, **conf}.items():
            builder = builder.config(key, value)
        started = builder.getOrCreate()
        # PySpark itself reads this setting in spark-submit only.
        if python := started.conf.get("spark.pyspark.python", None):
            started.sparkContext.pythonExec = python
    try:
        yield started
    finally:
        started.stop()


@contextmanager
def checkpoints(session: SparkSession) -> Iterator[None]:
    """Give a session on this machine a folder for checkpoints, unless it has one; on a cluster only its owner can."""
    context = session.sparkContext
    if context.getCheckpointDir() is not None or not context.master.startswith("local"):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="feast-embeddings-spark-") as folder:
        context.setCheckpointDir(folder)
        try:
            yield
        finally:
            # Not by PySpark, which has no way back.
            context._jsc.setCheckpointDir(None)


@contextmanager
def spark_errors() -> Iterator[None]:
    """Raise what Spark refuses as an `InputError`, and what fails in it as an `EmbeddingsError`; the rest passes."""
    errors = spark_module("pyspark.errors")
    py4j = spark_module("py4j.protocol")
    try:
        yield
    except (errors.AnalysisException, errors.ParseException) as error:
        raise InputError(f"Spark: {_first_line(str(error))}") from error
    except py4j.Py4JJavaError as error:
        raise EmbeddingsError(f"Spark failed: {_root(error.java_exception)}") from error
    except errors.PythonException as error:
        *_, last = (line for line in str(error).splitlines() if line.strip())
        raise EmbeddingsError(f"Spark failed in Python on a worker: {last.strip()}") from error
    except (errors.PySparkException, py4j.Py4JError) as error:
        raise EmbeddingsError(f"Spark failed: {_first_line(str(error))}") from error


def _check_master(master: str) -> None:
    if _LOCAL.fullmatch(master) or master == "yarn" or master.startswith("k8s://"):
        return
    if not _STANDALONE.fullmatch(master):
        raise InputError(f"--master {master!r}: expected local[N], spark://HOST:PORT, yarn or k8s://HOST:PORT")
    # Spark itself gives up after a minute, with a page of stack.
    failures = []
    for address in master.removeprefix("spark://").split(","):
        host, _, port = address.partition(":")
        try:
            socket.create_connection((host, int(port)), timeout=_SECONDS).close()
        except (OSError, OverflowError) as error:
            failures.append(f"{address}: {error}")
        else:
            return
    raise EmbeddingsError(f"no Spark master answers at {master} ({'; '.join(failures)}); start it, or correct --master")


def _root(exception: Any) -> str:
    while exception.getCause() is not None:
        exception = exception.getCause()
    return _first_line(exception.getMessage() or exception.getClass().getName())


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no message")
