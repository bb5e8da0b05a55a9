"""Ask questions of Parquet files in a bucket, through the S3 gateway of a node.

    python duckdb_over_s3.py 127.0.0.1:7403 's3://datasets/trips/*.parquet'

DuckDB reads the columns and row groups that it needs; what it reads twice comes out of the cache.
"""

import sys

import duckdb


def connect(node: str) -> duckdb.DuckDBPyConnection:
    """Return a connection that reads ``s3://`` through a node's gateway."""
    connection = duckdb.connect()
    connection.sql("INSTALL httpfs; LOAD httpfs")
    connection.sql(f"CREATE SECRET (TYPE s3, ENDPOINT '{node}', URL_STYLE 'path', USE_SSL false)")
    return connection


def main(node: str, files: str) -> None:
    """Print the trips of each number of passengers, and how far they went."""
    connection = connect(node)
    rows = connection.execute(
        "SELECT passengers, count(*) AS trips, round(avg(distance_km), 1) AS km "
        "FROM read_parquet($1) GROUP BY passengers ORDER BY passengers",
        [files],
    ).fetchall()
    for passengers, trips, km in rows:
        print(f"{passengers} passengers: {trips:,} trips of {km} km")


if __name__ == "__main__":
    main(*sys.argv[1:])
