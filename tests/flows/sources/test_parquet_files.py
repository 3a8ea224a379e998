"""Parquet files: rows with units, mapped columns alone, truncated files, and files in a bucket."""

from __future__ import annotations

import datetime
import gzip
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collector_support import understanding
from test_files import LINES, PACKS

from connectors.buckets import BucketFiles, _regular
from connectors.stream import ConnectError
from flows.collector.call import Outcome
from flows.settings import Settings
from flows.sources import Pixels
from flows.sources.batch import pixels_of
from flows.sources.live import Ledger
from flows.sources.messages import files_of, of_file
from flows.sources.source import Source, parse_source

T0_MS = 1_795_600_800_000
NAMES = {"event": "event", "placement_id": "ad.placement", "play_id": "play", "ts": "at", "event_id": "id"}


def rows(count: int = 3) -> dict[str, Any]:
    return {
        "id": [f"e-{number}" for number in range(count)],
        "event": ["start"] * count,
        "ad": [{"placement": "p", "price": 1.5}] * count,
        "play": [f"play-{number}" for number in range(count)],
        "at": pa.array([(T0_MS + number) * 1000 for number in range(count)], pa.timestamp("us", "UTC")),
        "unread": ["x" * 100] * count,
    }


def write(path: Path, columns: dict[str, Any], **options: Any) -> Source:
    pq.write_table(pa.table(columns), path, **options)
    return Source(name="x", files=str(path), format="parquet", names=NAMES)


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd"])
def test_rows_become_pixels(tmp_path: Path, compression: str) -> None:
    source = write(tmp_path / "x.parquet", rows(), compression=compression, row_group_size=2)
    ledger = Ledger()
    lines = [
        json.loads(line.body)
        for line in pixels_of(source, Settings(), understanding(), ledger, lambda *_: None)
    ]
    assert ledger.line() == "read 3 = pixels 3 + not ours 0 + rejected 0"
    assert [(one["placement_id"], one["ts"], one["event_id"]) for one in lines] == [
        ("p", T0_MS + number, f"e-{number}") for number in range(3)
    ]


def test_only_mapped_columns_are_decoded(tmp_path: Path) -> None:
    source = write(tmp_path / "x.parquet", rows())
    (first, *_) = of_file(source, str(tmp_path / "x.parquet"))
    assert first.document is not None
    assert first.document.keys() == {"id", "event", "ad", "play", "at"}
    whole = Source(name="x", files=source.files, format="parquet")
    (first, *_) = of_file(whole, str(tmp_path / "x.parquet"))
    assert first.document is not None
    assert "unread" in first.document


# Made in the test: the first array of a process imports pandas, which each process that collects would pay.
@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (lambda: pa.array([T0_MS], pa.timestamp("ms")), T0_MS),
        (lambda: pa.array([T0_MS * 1_000_000 + 7], pa.timestamp("ns")), T0_MS),
        (lambda: pa.array([T0_MS // 1000], pa.timestamp("s")), T0_MS),
        (lambda: pa.array([2**62], pa.timestamp("us")), 2**62 // 1000),
        (lambda: pa.array([None], pa.timestamp("us")), None),
        (lambda: pa.array([datetime.date(2026, 11, 25)]), "2026-11-25"),
        (lambda: pa.array([61_001], pa.time32("ms")), "00:01:01.001"),
        (lambda: pa.array([Decimal("19.90")]), "19.90"),
        (lambda: pa.array([19.9], pa.float32()), "19.9"),
        (lambda: pa.array(["a"]).dictionary_encode(), "a"),
        (
            lambda: pa.array([[{"t": T0_MS * 1000}]], pa.list_(pa.struct([("t", pa.timestamp("us"))]))),
            [{"t": T0_MS}],
        ),
        (lambda: pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32())), {"k": 1}),
    ],
)
def test_types_with_units_become_values_with_units(
    tmp_path: Path, made: Callable[[], Any], wanted: Any
) -> None:
    pq.write_table(pa.table({"v": made()}), tmp_path / "x.parquet")
    (one,) = of_file(Source(name="x", files="x", format="parquet"), str(tmp_path / "x.parquet"))
    assert one.document == {"v": wanted}


def test_a_file_without_a_consent_column_makes_dead_letters(tmp_path: Path) -> None:
    source = write(tmp_path / "x.parquet", rows())
    source = source.model_copy(update={"names": NAMES | {"gpp": "privacy.gpp"}})
    pixels = Pixels(source, understanding(), "x")
    for one in of_file(source, str(tmp_path / "x.parquet")):
        found = pixels.understand(one)
        assert found is not None
        assert (found.outcome, found.reason, found.wrong) == (Outcome.REJECTED, "malformed", "gpp")


@pytest.mark.parametrize("left", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, left: float) -> None:
    source = write(tmp_path / "x.parquet", rows(2_000))
    content = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(content[: int(left * len(content))])
    with pytest.raises(ConnectError, match=r"x\.parquet: is no Parquet file, or damaged"):
        list(of_file(source, str(tmp_path / "x.parquet")))


def test_a_damaged_page_ends_the_run(tmp_path: Path) -> None:
    source = write(tmp_path / "x.parquet", rows(2_000), compression="zstd")
    content = bytearray((tmp_path / "x.parquet").read_bytes())
    content[40:400] = b"\xff" * 360
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(ConnectError, match="damaged"):
        list(of_file(source, str(tmp_path / "x.parquet")))


# Buckets, by moto's server, which speaks S3's protocol.


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        aws_access_key_id="key",
        aws_secret_access_key="a-secret-of-a-bucket",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="logs")
    yield client
    server.stop()


def options(bucket: Any) -> dict[str, str]:
    return {
        "aws_endpoint": bucket.meta.endpoint_url,
        "aws_access_key_id": "key",
        "aws_secret_access_key": "env:BUCKET_SECRET",
        "aws_region": "us-east-1",
        "allow_http": "true",
    }


@pytest.fixture
def source(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setenv("BUCKET_SECRET", "a-secret-of-a-bucket")
    return Source(
        name="x",
        files="s3://logs/day=*/part-*.parquet",
        format="parquet",
        names=NAMES,
        storage=options(bucket),
    )


def put(bucket: Any, tmp_path: Path, key: str, count: int) -> None:
    write(tmp_path / "one.parquet", rows(count))
    bucket.put_object(Bucket="logs", Key=key, Body=(tmp_path / "one.parquet").read_bytes())


def test_files_of_a_bucket_are_found_by_a_pattern_and_read(
    bucket: Any, source: Source, tmp_path: Path
) -> None:
    for key in (
        "day=1/part-0.parquet",
        "day=2/part-0.parquet",
        "day=2/other.parquet",
        "day=2/x/part-1.parquet",
    ):
        put(bucket, tmp_path, key, 5)
    assert files_of(source) == ["s3://logs/day=1/part-0.parquet", "s3://logs/day=2/part-0.parquet"]
    ledger = Ledger()
    names = {name: path for name, path in NAMES.items() if name != "event_id"}
    source = source.model_copy(update={"names": names})
    lines = pixels_of(source, Settings(), understanding(), ledger, lambda *_: None)
    ids = {json.loads(line.body)["event_id"] for line in lines}
    assert len(ids) == ledger.pixels == 10


@pytest.mark.parametrize("suffix", ["", *PACKS])
def test_lines_of_a_bucket_are_unpacked(bucket: Any, source: Source, suffix: str) -> None:
    bucket.put_object(Bucket="logs", Key=f"lines/x.ndjson{suffix}", Body=PACKS.get(suffix, bytes)(LINES))
    source = source.model_copy(update={"files": "s3://logs/lines/x.ndjson*", "format": "json"})
    path = f"s3://logs/lines/x.ndjson{suffix}"
    assert path in files_of(source)
    assert sum(one.document is not None for one in of_file(source, path)) == 5_000


def test_a_file_replaced_during_the_read_is_refused(bucket: Any, source: Source) -> None:
    bucket.put_object(Bucket="logs", Key="moving.ndjson", Body=LINES)
    source = source.model_copy(update={"files": "s3://logs/moving.ndjson", "format": "json"})
    messages = of_file(source, "s3://logs/moving.ndjson")
    next(messages)
    bucket.put_object(Bucket="logs", Key="moving.ndjson", Body=LINES + b"{}\n")
    with pytest.raises(ConnectError, match="was replaced while it was read"):
        list(messages)


def test_a_truncated_compressed_file_of_a_bucket_is_refused(bucket: Any, source: Source) -> None:
    packed = gzip.compress(LINES)
    bucket.put_object(Bucket="logs", Key="cut.ndjson.gz", Body=packed[: len(packed) // 2])
    source = source.model_copy(update={"files": "s3://logs/cut.ndjson.gz", "format": "json"})
    with pytest.raises(ConnectError, match="cannot be read"):
        list(of_file(source, "s3://logs/cut.ndjson.gz"))


def test_an_unresponsive_bucket_is_named_without_its_secret(source: Source) -> None:
    assert "a-secret-of-a-bucket" not in repr(source)
    away = source.model_copy(update={"storage": {**source.storage, "aws_endpoint": "http://127.0.0.1:1"}})
    with pytest.raises(ConnectError, match=r"s3://logs/day=\*/part-\*\.parquet: ") as failed:
        files_of(away)
    assert "a-secret-of-a-bucket" not in str(failed.value)
    wrong = source.model_copy(update={"storage": {"bogus": "x"}})
    with pytest.raises(ConnectError, match=r"s3://logs: .*bogus"):
        files_of(wrong)
    with pytest.raises(ConnectError, match="no file has such a name"):
        files_of(source.model_copy(update={"files": "s3://logs/nothing/*"}))


@pytest.mark.parametrize(
    ("url", "root", "pattern"),
    [
        ("gs://bucket/a/b-*.csv.gz", "gs://bucket", "a/b-*.csv.gz"),
        ("az://account/container/a/*.csv", "az://account/container", "a/*.csv"),
    ],
)
def test_buckets_of_other_clouds_have_a_name_and_a_pattern(url: str, root: str, pattern: str) -> None:
    """Their servers cannot be had here: only the address is tried."""
    options = (
        {"skip_signature": "true"}
        if url.startswith("gs")
        else {"account_name": "account", "skip_signature": "true"}
    )
    found = BucketFiles(url, options)
    assert (found._root, found.pattern) == (root, pattern)
    assert parse_source(f'files = "{url}"\nformat = "csv"', "x.toml", "x").files == url


@pytest.mark.parametrize(
    ("pattern", "fits", "not_so"),
    [
        ("a/*.csv", ["a/x.csv"], ["a/b/x.csv", "a/xcsv"]),
        ("a/**/x.csv", ["a/x.csv", "a/b/c/x.csv"], ["b/x.csv"]),
        ("a/day=[0-9]?/x", ["a/day=12/x"], ["a/day=x2/x", "a/day=1/x"]),
        ("a/[!b]/x", ["a/c/x"], ["a/b/x"]),
    ],
)
def test_a_pattern_is_as_of_files(pattern: str, fits: list[str], not_so: list[str]) -> None:
    import re

    assert all(re.fullmatch(_regular(pattern), one) for one in fits)
    assert not any(re.fullmatch(_regular(pattern), one) for one in not_so)
