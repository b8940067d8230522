"""Results as a `datasets.Dataset` on disk, drawn images in it; and as a DataFrame in memory."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from orchestrator.client._lines import Line, read_lines
from orchestrator.client._outputs.columns import COLUMNS, batches_of, load_package, rows_of, schema_of
from orchestrator.client._outputs.images import lines_with_images
from orchestrator.client._outputs.output import Form, Output
from orchestrator.client._outputs.whole_folders import drafted_folder
from orchestrator.client._steps import Steps, drain, work
from orchestrator.domain.jobs import JobKind

if TYPE_CHECKING:
    import pandas

    from orchestrator.client._job import JobCalls

ARROW = "rows.arrow"


def write_dataset_folder(job: JobCalls[Any], output: Output, lines: IO[bytes]) -> Steps[None]:
    """A folder for `datasets.load_from_disk`; rows go to disk as they come."""
    datasets, pa = load_package("datasets", "datasets"), load_package("pyarrow", "datasets")
    kind = job.view.kind
    features = _features(datasets, kind)
    with drafted_folder(output) as folder, tempfile.TemporaryDirectory(dir=folder.parent, prefix=".rows-") as rows:
        path = Path(rows) / ARROW
        with path.open("wb") as file, pa.ipc.new_stream(file, features.arrow_schema) as writer:
            if kind is JobKind.caption:
                for batch in batches_of(kind, read_lines(lines)):
                    yield from work(partial(writer.write_batch, batch.cast(features.arrow_schema)))
            else:
                write = partial(_write_drawn, pa, writer, features.arrow_schema)
                yield from drain(lines_with_images(job, lines), write)
        yield from work(partial(_save, datasets, path, folder))


def write_frame_of(kind: JobKind, lines: IO[bytes]) -> pandas.DataFrame:
    load_package("pandas", "tables")
    pa = load_package("pyarrow", "tables")
    frame: pandas.DataFrame = pa.Table.from_batches(batches_of(kind, read_lines(lines)), schema_of(kind)).to_pandas()
    return frame


def temporary_folder() -> Path:
    """A folder that goes when this process does: a dataset reads its rows from there for as long as it is used."""
    folder = Path(tempfile.mkdtemp(prefix="janus-dataset-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / "dataset"


def load_folder(path: Path) -> Any:
    return load_package("datasets", "datasets").load_from_disk(str(path))


def dataset_output(folder: Path) -> Output:
    return Output.of(folder, Form.dataset)


def _features(datasets: Any, kind: JobKind) -> Any:
    """The types of the columns; of a generation job `images` are pictures, and `image_seeds` their seeds."""
    columns = {
        name: datasets.List(datasets.Image()) if alias == "images" else datasets.Value(alias)
        for name, alias in COLUMNS[kind].items()
    }
    if kind is JobKind.generate:
        columns["image_seeds"] = datasets.List(datasets.Value("int64"))
    return datasets.Features(columns)


def _write_drawn(pa: Any, writer: Any, schema: Any, drawn: tuple[Line, list[bytes]]) -> None:
    line, images = drawn
    (row,) = rows_of([line])
    records = line.get("images", ())
    pictures = [{"bytes": data, "path": record["file"]} for record, data in zip(records, images, strict=True)]
    row |= {"images": pictures, "image_seeds": [record["seed"] for record in records]}
    writer.write_batch(pa.RecordBatch.from_pylist([row], schema=schema))


def _save(datasets: Any, path: Path, folder: Path) -> None:
    """From one file of rows to the library's own layout, which splits large ones; no bar, as nobody asked for it."""
    was_shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        datasets.Dataset.from_file(str(path)).save_to_disk(str(folder))
    finally:
        if was_shown:
            datasets.enable_progress_bars()
