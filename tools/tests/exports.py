"""Reads DIR/{samples,rollups,events,tests}.{csv,json,parquet} with Python, DuckDB and pyarrow, and fails
where they do not say the same. Exits with 77 where DuckDB or pyarrow is not installed."""

import csv
import json
import pathlib
import sys

try:
    import duckdb
    import pyarrow.parquet
except ImportError as e:
    print(f"{e}; pip install duckdb pyarrow", file=sys.stderr)
    sys.exit(77)


def text(value):
    """A value as CSV has it."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    return str(value)


def row(fields):
    """Fields by name, those with JSON in them in one order."""
    known = {name: text(value) for name, value in fields.items()}
    if "values" in known:
        known["values"] = json.dumps(json.loads(known["values"]), sort_keys=True)
    return known


def rows_of(cursor):
    names = [column[0] for column in cursor.description]
    return [row(dict(zip(names, fields))) for fields in cursor.fetchall()]


def differ(what, name, said, truth):
    if said == truth:
        return
    for i, (a, b) in enumerate(zip(said, truth)):
        if a != b:
            sys.exit(f"{what}: row {i} of {name} is {a}, not {b}")
    sys.exit(f"{what}: {name} has {len(said)} rows, not {len(truth)}")


directory = pathlib.Path(sys.argv[1])
for what in ["samples", "rollups", "events", "tests"]:
    path = {kind: str(directory / f"{what}.{kind}") for kind in ["csv", "json", "parquet"]}
    with open(path["json"], encoding="utf-8") as file:
        truth = [row(json.loads(line)) for line in file]
    assert truth, what
    with open(path["csv"], encoding="utf-8", newline="") as file:
        differ(what, "csv", [row(fields) for fields in csv.DictReader(file)], truth)
    arrow = pyarrow.parquet.read_table(path["parquet"]).to_pylist()
    differ(what, "parquet by pyarrow", [row(fields) for fields in arrow], truth)
    duck = duckdb.execute("SELECT * FROM read_parquet(?)", [path["parquet"]])
    differ(what, "parquet by DuckDB", rows_of(duck), truth)
    options = "header = true, all_varchar = true, quote = '\"', escape = '\"', delim = ','"
    duck = duckdb.execute(f"SELECT * FROM read_csv(?, {options})", [path["csv"]])
    differ(what, "csv by DuckDB", rows_of(duck), truth)
    print(f"{what}: {len(truth)} rows")
