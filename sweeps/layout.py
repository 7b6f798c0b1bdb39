"""Names of what lies under results/ beside the folders of the sweeps."""

MLFLOW = "mlflow.db"
ARTIFACTS = "mlflow-artifacts"  # of MLflow's
LEDGER = "submissions.parquet"
SENT = "submissions"  # the files that were sent
SENDING = "submissions.lock"
RECORDS = "records"  # of the project's own sweeps, in git


def is_taken(name: str) -> bool:
    """Return whether a sweep of this name would lie where something else does, whatever the file system makes of capitals."""
    own = (MLFLOW, ARTIFACTS, LEDGER, SENT, SENDING, RECORDS)
    return name.casefold() in own or name.casefold().startswith(f"{MLFLOW}-")  # SQLite's -wal, -shm and -journal
